#include "worker/contract/schema_format.h"

#include <arpa/inet.h>
#include <string.h>

#define EMAIL_SIZE_MAX 254 /* RFC 5321, 4.5.3.1.3, without the angle brackets */
#define LOCAL_SIZE_MAX 64
#define LABEL_SIZE_MAX 63

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static struct str after(struct str text, size_t size)
{
    return (struct str){text.data + size, text.size - size};
}

/* inet_pton wants a text that ends. */
static bool is_address(int family, struct str text)
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr address;

    if (text.size >= sizeof copy || memchr(text.data, '\0', text.size) != NULL)
        return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    return inet_pton(family, copy, &address) == 1;
}

/* ---- email ---- */

/* Dot-string: atoms with single dots between them. */
static bool is_dot_string(struct str local)
{
    char before = '.';

    for (size_t i = 0; i < local.size; i++) {
        char c = local.data[i];
        if (c == '.' ? before == '.' : !is_alpha(c) && !is_digit(c) && !is_one_of(c, "!#$%&'*+-/=?^_`{|}~"))
            return false;
        before = c;
    }
    return before != '.';
}

/* Quoted-string: printable ASCII, `"` and `\` behind a backslash. */
static bool is_quoted_string(struct str local)
{
    size_t i = 1;

    if (local.size < 2 || local.data[0] != '"')
        return false;
    while (i < local.size && local.data[i] != '"') {
        i += local.data[i] == '\\';
        if (i >= local.size || local.data[i] < ' ' || local.data[i] > '~')
            return false;
        i++;
    }
    return i == local.size - 1;
}

static bool is_domain(struct str domain)
{
    size_t label = 0;

    for (size_t i = 0; i < domain.size; i++) {
        char c = domain.data[i];
        if (c == '.') {
            if (label == 0 || domain.data[i - 1] == '-')
                return false;
            label = 0;
            continue;
        }
        if ((!is_alpha(c) && !is_digit(c) && (c != '-' || label == 0)) || ++label > LABEL_SIZE_MAX)
            return false;
    }
    return label > 0 && domain.data[domain.size - 1] != '-';
}

/* [192.0.2.1] or [IPv6:2001:db8::1] */
static bool is_address_literal(struct str domain)
{
    static const char tag[] = "IPv6:";

    if (domain.size < 2 || domain.data[0] != '[' || domain.data[domain.size - 1] != ']')
        return false;
    struct str address = {domain.data + 1, domain.size - 2};
    if (address.size > sizeof tag - 1 && strncmp(address.data, tag, sizeof tag - 1) == 0)
        return is_address(AF_INET6, after(address, sizeof tag - 1));
    return is_address(AF_INET, address);
}

static bool is_email(struct str text)
{
    const char *at = memrchr(text.data, '@', text.size);

    if (at == NULL || text.size > EMAIL_SIZE_MAX)
        return false;
    struct str local = {text.data, (size_t)(at - text.data)};
    struct str domain = {at + 1, text.size - local.size - 1};
    return local.size <= LOCAL_SIZE_MAX && (is_dot_string(local) || is_quoted_string(local)) &&
           (is_domain(domain) || is_address_literal(domain));
}

/* ---- uri ---- */

/* Unreserved characters, sub-delims, %XX, and those of `more`. */
static bool is_uri_text(struct str text, const char *more)
{
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '%') {
            if (text.size - i < 3 || !is_hex(text.data[i + 1]) || !is_hex(text.data[i + 2]))
                return false;
            i += 2;
        } else if (!is_alpha(c) && !is_digit(c) && !is_one_of(c, "-._~!$&'()*+,;=") && !is_one_of(c, more)) {
            return false;
        }
    }
    return true;
}

static size_t size_until(struct str text, const char *set)
{
    size_t size = 0;

    while (size < text.size && !is_one_of(text.data[size], set))
        size++;
    return size;
}

/* [ userinfo "@" ] host [ ":" port ] */
static bool is_authority(struct str authority, bool host_required)
{
    const char *at = memchr(authority.data, '@', authority.size);
    struct str host = at != NULL ? after(authority, (size_t)(at - authority.data) + 1) : authority;
    size_t host_size;

    if (at != NULL && !is_uri_text((struct str){authority.data, (size_t)(at - authority.data)}, ":"))
        return false;
    if (host.size > 0 && host.data[0] == '[') {
        size_t end = size_until(host, "]");
        if (end == host.size || !is_address(AF_INET6, (struct str){host.data + 1, end - 1}))
            return false;
        host_size = end + 1;
    } else {
        host_size = size_until(host, ":");
        if (!is_uri_text((struct str){host.data, host_size}, "") || (host_required && host_size == 0))
            return false;
    }
    struct str port = after(host, host_size);
    for (size_t i = 1; i < port.size; i++)
        if (!is_digit(port.data[i]))
            return false;
    return port.size == 0 || port.data[0] == ':';
}

static bool is_uri(struct str text)
{
    size_t scheme = size_until(text, ":");

    if (scheme == text.size || scheme == 0 || !is_alpha(text.data[0]))
        return false;
    for (size_t i = 1; i < scheme; i++)
        if (!is_alpha(text.data[i]) && !is_digit(text.data[i]) && !is_one_of(text.data[i], "+-."))
            return false;
    bool web = (scheme == 4 && strncasecmp(text.data, "http", 4) == 0) ||
               (scheme == 5 && strncasecmp(text.data, "https", 5) == 0);
    struct str rest = after(text, scheme + 1);
    size_t fragment = size_until(rest, "#");
    if (fragment < rest.size && !is_uri_text(after(rest, fragment + 1), ":@/?"))
        return false;
    rest.size = fragment;
    if (rest.size >= 2 && rest.data[0] == '/' && rest.data[1] == '/') {
        rest = after(rest, 2);
        size_t authority = size_until(rest, "/?");
        if (!is_authority((struct str){rest.data, authority}, web))
            return false;
        rest = after(rest, authority);
    } else if (web) {
        return false;
    }
    return is_uri_text(rest, ":@/?");
}

/* ---- date-time ---- */

/* Reads exactly `count` digits; -1 when they are none. */
static int digits(struct str *text, size_t count)
{
    int number = 0;

    if (text->size < count)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (!is_digit(text->data[i]))
            return -1;
        number = number * 10 + (text->data[i] - '0');
    }
    *text = after(*text, count);
    return number;
}

static bool skip(struct str *text, const char *set)
{
    if (text->size == 0 || !is_one_of(text->data[0], set))
        return false;
    *text = after(*text, 1);
    return true;
}

static bool is_date(struct str *text)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = digits(text, 4);
    int month = year >= 0 && skip(text, "-") ? digits(text, 2) : -1;
    int day = month >= 1 && month <= 12 && skip(text, "-") ? digits(text, 2) : -1;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return day >= 1 && day <= days[month - 1] + (month == 2 && leap);
}

/* "Z" or "+01:30", as minutes east of UTC. */
static bool is_offset(struct str *text, int *minutes)
{
    *minutes = 0;
    if (skip(text, "Zz"))
        return true;
    int sign = text->size > 0 && text->data[0] == '-' ? -1 : 1;
    int hour = skip(text, "+-") ? digits(text, 2) : -1;
    int minute = hour >= 0 && hour <= 23 && skip(text, ":") ? digits(text, 2) : -1;
    *minutes = sign * (hour * 60 + minute);
    return minute >= 0 && minute <= 59;
}

static bool is_date_time(struct str text)
{
    int offset;

    if (!is_date(&text) || !skip(&text, "Tt"))
        return false;
    int hour = digits(&text, 2);
    int minute = hour >= 0 && hour <= 23 && skip(&text, ":") ? digits(&text, 2) : -1;
    int second = minute >= 0 && minute <= 59 && skip(&text, ":") ? digits(&text, 2) : -1;
    if (second < 0 || second > 60 || (skip(&text, ".") && digits(&text, 1) < 0))
        return false;
    while (text.size > 0 && is_digit(text.data[0]))
        text = after(text, 1);
    if (!is_offset(&text, &offset) || text.size > 0)
        return false;
    return second < 60 || (hour * 60 + minute - offset + 2 * 1440) % 1440 == 1439;
}

bool schema_format_parse(struct str name, enum schema_format *format)
{
    if (str_is(name, "email"))
        *format = SCHEMA_FORMAT_EMAIL;
    else if (str_is(name, "uri"))
        *format = SCHEMA_FORMAT_URI;
    else if (str_is(name, "date-time"))
        *format = SCHEMA_FORMAT_DATE_TIME;
    else
        return false;
    return true;
}

bool schema_format_fits(enum schema_format format, struct str text)
{
    switch (format) {
    case SCHEMA_FORMAT_EMAIL:
        return is_email(text);
    case SCHEMA_FORMAT_URI:
        return is_uri(text);
    case SCHEMA_FORMAT_DATE_TIME:
        return is_date_time(text);
    default:
        return true;
    }
}

const char *schema_format_wants(enum schema_format format)
{
    switch (format) {
    case SCHEMA_FORMAT_EMAIL:
        return "an e-mail address, for example name@example.com";
    case SCHEMA_FORMAT_URI:
        return "a URI with its scheme, for example https://example.com/page";
    case SCHEMA_FORMAT_DATE_TIME:
        return "a date-time of RFC 3339, for example 2026-11-22T17:40:00Z";
    default:
        return "any text";
    }
}
