#include "tests/doubles/common_demo.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *asked_company(const json_t *args)
{
    const char *company = json_string_value(json_object_get(args, "company"));
    const char *query = json_string_value(json_object_get(args, "query"));
    return company ? company : query ? query : "Example";
}

/* "Acme GmbH" -> "acme-gmbh": lower case, one dash for each run of other characters. */
static void slug(const char *name, char *out, size_t room)
{
    size_t size = 0;
    for (; *name && size + 1 < room; name++) {
        unsigned char c = (unsigned char)*name;
        if (c < 128 && isalnum(c))
            out[size++] = (char)tolower(c);
        else if (size && out[size - 1] != '-')
            out[size++] = '-';
    }
    while (size && out[size - 1] == '-')
        size--;
    out[size] = '\0';
}

static json_t *search(const json_t *args)
{
    static const struct {
        const char *path, *title, *text;
    } pages[] = {
        {"about", "About", "makes packaging machines in Ulm and employs 420 people."},
        {"news/q3-rollout", "Rollout in the third quarter",
         "moves its service planning to a new system in the third quarter, plant by plant."},
        {"careers", "Careers", "looks for six field engineers and a head of service."},
        {"press/2026-results", "Results", "grew by 11 percent to 96 million euros."},
    };
    const char *company = asked_company(args);
    char host[64];
    slug(company, host, sizeof host);
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "url",
                                              json_sprintf("https://%s.example/%s", host, pages[i].path), "title",
                                              json_sprintf("%s: %s", company, pages[i].title), "text",
                                              json_sprintf("%s %s", company, pages[i].text)));
    return json_pack("{s:o}", "pages", list);
}

static json_t *crm(const json_t *args)
{
    const char *company = asked_company(args);
    char host[64];
    slug(company, host, sizeof host);
    return json_pack("{s:s, s:s, s:s, s:s, s:[{s:s, s:s, s:o}]}", "company", company, "stage", "customer", "owner",
                     "sam", "last_contact", "2026-09-18", "contacts", "name", "Jane Doe", "role", "Head of Operations",
                     "email", json_sprintf("jane@%s.example", host));
}

json_t *demo_result(const char *tool, const json_t *args, json_int_t nth)
{
    if (strcmp(tool, "search") == 0)
        return search(args);
    if (strcmp(tool, "crm") == 0)
        return crm(args);
    if (strcmp(tool, "send") == 0)
        return json_pack("{s:s, s:o}", "status", "sent", "id", json_sprintf("msg-%lld", (long long)nth));
    return NULL;
}
