#include "worker/io/ledger_link.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/base/logline.h"
#include "worker/base/mem.h"
#include "worker/io/clock.h"
#include "worker/io/ledger_address.h"
#include "worker/io/ledger_epoll.h"
#include "worker/io/ledger_info.h"
#include "worker/io/ledger_resp.h"

#define RECONNECT_MS_MIN 50
#define RECONNECT_MS_MAX_DEFAULT 2000
#define RESOLVE_POLL_MS 10
#define HEALTH_MS 1000                     /* between two looks at the incarnation */
#define INFO_EVERY 5                       /* looks at the incarnation for one look at INFO */
#define COMMAND_SIZE_MAX ((size_t)4 << 20) /* a stored answer is at most 1 MiB */

enum state { LINK_DOWN, LINK_RESOLVING, LINK_GREETING, LINK_UP };

/* One command in flight. Redis answers in order, so these are a queue. */
struct command {
    struct ledger_link *link;
    struct command *next;
    ledger_link_done *done;
    void *context;
    enum ledger_script script;
    int64_t sent_ms; /* 0: not yet, that is ledger_link_flush's */
    struct buf text; /* RESP, by the script's hash; kept until the answer, for the case that Redis forgot the script */
    size_t count;    /* of its words */
    size_t tail;     /* where what follows the script begins */
};

struct ledger_link {
    struct ledger_settings settings; /* texts: owned copies below */
    struct arena *arena;
    struct ledger_address address;
    struct ledger_epoll epoll;
    int wake_fd;
    enum state state;
    redisAsyncContext *redis; /* NULL while down */
    struct command *first, **last;
    struct command *unsent; /* the first of them that is */
    int64_t due_ms;         /* of the state: next try, give up connecting, next look */
    unsigned failures;      /* in a row */
    unsigned health;        /* looks since the last INFO */
    char shas[LEDGER_SCRIPTS_COUNT][41];
    unsigned shas_count;
    struct ledger_info info;
    char value[40], known[40], random[LEDGER_INFO_RANDOM_SIZE + 1];
    char incarnation[LEDGER_INFO_RUN_ID_SIZE + 48];
    char reason[256];         /* why it is down */
    char writes_refused[200]; /* "" = allowed */
    bool said_down;           /* in the log, since it was last up */
};

static void greet(struct ledger_link *link);

/* ---- state ---- */

static void set_incarnation(struct ledger_link *link)
{
    if (link->state == LINK_UP)
        (void)snprintf(link->incarnation, sizeof link->incarnation, "%s-%s", link->value, link->info.run_id);
    else
        link->incarnation[0] = '\0';
}

/* Back-off doubles from RECONNECT_MS_MIN; jitter takes up to half of it away, so that workers do not come back as one. */
static int64_t back_off_ms(struct ledger_link *link)
{
    int64_t delay_ms = RECONNECT_MS_MIN;

    for (unsigned i = 0; i < link->failures && delay_ms < link->settings.reconnect_ms_max; i++)
        delay_ms *= 2;
    if (delay_ms > link->settings.reconnect_ms_max)
        delay_ms = link->settings.reconnect_ms_max;
    ledger_info_random(link->random);
    return delay_ms - delay_ms / 2 * strtol((char[]){link->random[0], link->random[1], '\0'}, NULL, 16) / 255;
}

/* Gives the connection up. hiredis answers what is in flight with NULL from within redisAsyncFree. */
static void go_down(struct ledger_link *link, const char *reason)
{
    redisAsyncContext *redis = link->redis;

    if (!link->said_down)
        LOG_WARN("redis.down", LOG_S("address", link->settings.address), LOG_S("reason", reason));
    link->said_down = true;
    link->state = LINK_DOWN;
    link->redis = NULL;
    (void)snprintf(link->reason, sizeof link->reason, "Redis at %s: %s", link->settings.address, reason);
    set_incarnation(link);
    link->due_ms = clock_mono_us() / 1000 + back_off_ms(link);
    link->failures++;
    if (redis != NULL)
        redisAsyncFree(redis);
}

static void go_up(struct ledger_link *link)
{
    link->state = LINK_UP;
    link->failures = 0;
    link->health = 0;
    link->said_down = false;
    link->reason[0] = '\0';
    link->due_ms = clock_mono_us() / 1000 + HEALTH_MS;
    set_incarnation(link);
    LOG_INFO("redis.up", LOG_S("address", link->settings.address), LOG_S("incarnation", link->incarnation),
             LOG_S("writes", link->writes_refused[0] == '\0' ? "allowed" : link->writes_refused));
}

/* ---- connecting ---- */

static void on_connect(const redisAsyncContext *redis, int status)
{
    struct ledger_link *link = redis->data;

    if (link->redis != redis)
        return;
    if (status == REDIS_OK) {
        greet(link);
        return;
    }
    link->redis = NULL; /* hiredis frees it */
    go_down(link, redis->errstr);
}

static void on_disconnect(const redisAsyncContext *redis, int status)
{
    struct ledger_link *link = redis->data;

    (void)status;
    if (link->redis != redis)
        return;
    link->redis = NULL; /* hiredis frees it */
    go_down(link, redis->errstr != NULL && redis->errstr[0] != '\0' ? redis->errstr : "connection closed");
}

static void connect_to(struct ledger_link *link, const char *ip, int port)
{
    redisAsyncContext *redis = redisAsyncConnect(ip, port);

    link->state = LINK_GREETING;
    link->due_ms = clock_mono_us() / 1000 + LEDGER_GREETING_TIMEOUT_MS;
    if (redis == NULL || redis->err != 0) {
        char reason[128];

        (void)snprintf(reason, sizeof reason, "%s", redis == NULL ? "no memory" : redis->errstr);
        if (redis != NULL)
            redisAsyncFree(redis);
        go_down(link, reason);
        return;
    }
    link->redis = redis;
    redis->data = link;
    ledger_epoll_attach(&link->epoll, redis);
    (void)redisAsyncSetConnectCallback(redis, on_connect);
    (void)redisAsyncSetDisconnectCallback(redis, on_disconnect);
}

static void resolve(struct ledger_link *link)
{
    struct error error = {.class = ERROR_NONE};
    char ip[64];
    int port;

    switch (ledger_address_find(&link->address, link->failures, ip, &port, &error)) {
    case ADDRESS_FOUND:
        connect_to(link, ip, port);
        break;
    case ADDRESS_WAIT:
        link->state = LINK_RESOLVING;
        link->due_ms = clock_mono_us() / 1000 + RESOLVE_POLL_MS;
        break;
    case ADDRESS_FAILED:
        go_down(link, error.text);
        break;
    }
}

/* ---- commands ---- */

static void on_reply(redisAsyncContext *redis, void *answer, void *context);

static bool send_command(struct command *command, const struct buf *text)
{
    struct ledger_link *link = command->link;

    assert(!text->overflow);
    if (link->redis == NULL ||
        redisAsyncFormattedCommand(link->redis, on_reply, command, text->data, text->size) != REDIS_OK)
        return false;
    command->sent_ms = 0;
    command->next = NULL;
    if (link->unsent == NULL)
        link->unsent = command;
    *link->last = command;
    link->last = &command->next;
    return true;
}

/* Somebody flushed the scripts; with its text it is there again for the next ones. */
static bool send_with_script(struct command *command)
{
    struct buf text;
    bool sent;

    buf_init(&text, COMMAND_SIZE_MAX);
    ledger_resp_head(&text, command->count, "EVAL", ledger_script_text(command->script));
    (void)buf_put(&text, command->text.data + command->tail, command->text.size - command->tail);
    sent = send_command(command, &text);
    buf_free(&text);
    return sent;
}

/* A command's bytes are kept until its answer, and lie once more in hiredis' buffer. */
static size_t weight(const struct command *command)
{
    return sizeof *command + 2 * command->text.size;
}

static void free_command(struct command *command)
{
    budget_give(BUDGET_LEDGER, weight(command));
    buf_free(&command->text);
    mem_free(command);
}

static void unqueue(struct ledger_link *link, const struct command *command)
{
    assert(link->first == command); /* answers come in order, also the NULLs of a lost connection */
    link->first = command->next;
    if (link->unsent == command)
        link->unsent = command->next;
    if (link->first == NULL)
        link->last = &link->first;
}

/* Errors after which this server is of no use: it is left, and found again or not. */
static bool is_unusable(const char *text)
{
    static const char *const words[] = {"LOADING",     "READONLY", "NOAUTH", "MASTERDOWN",
                                        "CLUSTERDOWN", "NOPERM",   "MOVED"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strncmp(text, words[i], strlen(words[i])) == 0)
            return true;
    }
    return false;
}

static void on_reply(redisAsyncContext *redis, void *answer, void *context)
{
    struct command *command = context;
    struct ledger_link *link = command->link;
    const redisReply *reply = answer;
    bool unusable = false;

    unqueue(link, command);
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR) {
        if (strncmp(reply->str, "NOSCRIPT", 8) == 0 && send_with_script(command))
            return;
        unusable = is_unusable(reply->str);
    }
    command->done(command->context, reply);
    if (unusable && link->redis == redis)
        go_down(link, reply->str);
    free_command(command);
}

bool ledger_link_call(struct ledger_link *link, enum ledger_script script, const struct str *keys, size_t keys_count,
                      const struct str *arguments, size_t arguments_count, ledger_link_done *done, void *context)
{
    struct command *command;
    char count[16];

    assert(keys_count + arguments_count <= LEDGER_ARGUMENTS_MAX);
    if (link->state != LINK_UP)
        return false;
    command = mem_new(sizeof *command);
    *command = (struct command){.link = link, .done = done, .context = context, .script = script};
    command->count = 3 + keys_count + arguments_count;
    buf_init(&command->text, COMMAND_SIZE_MAX);
    (void)buf_reserve(&command->text, LEDGER_RESP_HEAD_SIZE + ledger_resp_size(keys, keys_count) +
                                          ledger_resp_size(arguments, arguments_count));
    ledger_resp_head(&command->text, command->count, "EVALSHA", link->shas[script]);
    command->tail = command->text.size;
    (void)snprintf(count, sizeof count, "%zu", keys_count);
    ledger_resp_bulks(&command->text, &(struct str){count, strlen(count)}, 1);
    ledger_resp_bulks(&command->text, keys, keys_count);
    ledger_resp_bulks(&command->text, arguments, arguments_count);
    budget_take(BUDGET_LEDGER, weight(command));
    if (send_command(command, &command->text))
        return true;
    free_command(command);
    return false;
}

/* ---- greeting: who is there? ---- */

static bool greeting_failed(struct ledger_link *link, const redisAsyncContext *redis, const redisReply *reply,
                            const char *what)
{
    char reason[200];

    if (link->redis != redis || reply == NULL) /* it is going down already, with its own reason */
        return true;
    if (reply->type != REDIS_REPLY_ERROR)
        return false;
    (void)snprintf(reason, sizeof reason, "%s: %s", what, reply->str);
    go_down(link, reason);
    return true;
}

static void on_auth(redisAsyncContext *redis, void *reply, void *context)
{
    (void)greeting_failed(context, redis, reply, "AUTH");
}

static void on_info(redisAsyncContext *redis, void *answer, void *context)
{
    struct ledger_link *link = context;
    const redisReply *reply = answer;
    char unusable[100], refused[200];

    if (greeting_failed(link, redis, reply, "INFO"))
        return;
    ledger_info_read(&link->info, reply->type == REDIS_REPLY_STRING ? (struct str){reply->str, reply->len} : STR(""));
    if (!ledger_info_usable(&link->info, unusable, sizeof unusable)) {
        go_down(link, unusable);
        return;
    }
    ledger_info_writes(&link->info, refused, sizeof refused);
    if (link->state == LINK_UP && strcmp(refused, link->writes_refused) != 0)
        LOG_WARN("redis.writes", LOG_S("address", link->settings.address),
                 LOG_S("writes", refused[0] == '\0' ? "allowed" : refused));
    (void)snprintf(link->writes_refused, sizeof link->writes_refused, "%s", refused);
}

static void on_load(redisAsyncContext *redis, void *answer, void *context)
{
    struct ledger_link *link = context;
    const redisReply *reply = answer;

    if (greeting_failed(link, redis, reply, "SCRIPT LOAD"))
        return;
    (void)snprintf(link->shas[link->shas_count++], sizeof link->shas[0], "%.40s",
                   reply->type == REDIS_REPLY_STRING ? reply->str : "");
}

static void take_value(struct ledger_link *link, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_STRING)
        ledger_link_saw(link, (struct str){reply->str, reply->len});
}

static void on_hello(redisAsyncContext *redis, void *answer, void *context)
{
    struct ledger_link *link = context;
    const redisReply *reply = answer;

    if (greeting_failed(link, redis, reply, "EVAL"))
        return;
    take_value(link, reply);
    go_up(link);
}

static void hello_key(const struct ledger_link *link, char *key, size_t size)
{
    (void)snprintf(key, size, "{%s}:incarnation", link->settings.name_space);
}

static void greet(struct ledger_link *link)
{
    const struct ledger_settings *settings = &link->settings;
    char key[200];
    int failed = 0;

    link->shas_count = 0;
    hello_key(link, key, sizeof key);
    (void)redisEnableKeepAlive(&link->redis->c);
    if (settings->password != NULL && settings->username != NULL)
        failed |= redisAsyncCommand(link->redis, on_auth, link, "AUTH %s %s", settings->username, settings->password);
    else if (settings->password != NULL)
        failed |= redisAsyncCommand(link->redis, on_auth, link, "AUTH %s", settings->password);
    failed |= redisAsyncCommand(link->redis, on_info, link, "INFO");
    for (unsigned i = 0; i < LEDGER_SCRIPTS_COUNT; i++)
        failed |= redisAsyncCommand(link->redis, on_load, link, "SCRIPT LOAD %s", ledger_script_text(i));
    failed |= redisAsyncCommand(link->redis, on_hello, link, "EVAL %s 1 %s %s", ledger_script_text(LEDGER_SCRIPT_HELLO),
                                key, ledger_link_random(link));
    if (failed != 0)
        link->due_ms = 0; /* the next tick gives up; not here, hiredis is not done with this connection */
}

/* ---- while it is up ---- */

static void on_look(void *context, const redisReply *reply)
{
    if (reply != NULL)
        take_value(context, reply);
}

/* Is it still there, with the same data and the same rules? Also what makes a dead connection known. */
static void look(struct ledger_link *link)
{
    char key[200];
    struct str keys[1], arguments[1];

    hello_key(link, key, sizeof key);
    keys[0] = str_of(key);
    arguments[0] = str_of(ledger_link_random(link));
    link->due_ms = clock_mono_us() / 1000 + HEALTH_MS;
    (void)ledger_link_call(link, LEDGER_SCRIPT_HELLO, keys, 1, arguments, 1, on_look, link);
    link->health++;
    if (link->health % INFO_EVERY == 0 && link->redis != NULL)
        (void)redisAsyncCommand(link->redis, on_info, link, "INFO");
}

static void check_timeout(struct ledger_link *link, int64_t now_ms)
{
    if (link->first == link->unsent || now_ms - link->first->sent_ms < LEDGER_COMMAND_TIMEOUT_MS)
        return;
    /* This process itself may have stood still (SIGSTOP, a long evaluation): the answer may be in the socket. */
    redisAsyncHandleRead(link->redis);
    if (link->first != link->unsent && now_ms - link->first->sent_ms >= LEDGER_COMMAND_TIMEOUT_MS)
        go_down(link, "no answer in time");
}

int64_t ledger_link_tick(struct ledger_link *link, int64_t now_mono_ms)
{
    int64_t due_ms;

    if (link->state == LINK_UP)
        check_timeout(link, now_mono_ms);
    if (now_mono_ms >= link->due_ms) {
        if (link->state == LINK_DOWN || link->state == LINK_RESOLVING)
            resolve(link);
        else if (link->state == LINK_GREETING)
            go_down(link, "no answer in time");
        else
            look(link);
    }
    due_ms = link->due_ms;
    if (link->state == LINK_UP && link->first != link->unsent &&
        link->first->sent_ms + LEDGER_COMMAND_TIMEOUT_MS < due_ms)
        due_ms = link->first->sent_ms + LEDGER_COMMAND_TIMEOUT_MS;
    return due_ms;
}

void ledger_link_ready(struct ledger_link *link, int fd, uint32_t epoll_events)
{
    uint32_t broken = epoll_events & (EPOLLERR | EPOLLHUP);
    uint64_t count;

    if (fd == link->wake_fd)
        (void)!read(fd, &count, sizeof count);
    if (link->redis != NULL && fd == link->epoll.fd && (broken != 0 || (epoll_events & EPOLLIN) != 0))
        redisAsyncHandleRead(link->redis);
    if (link->redis != NULL && fd == link->epoll.fd && (broken != 0 || (epoll_events & EPOLLOUT) != 0))
        redisAsyncHandleWrite(link->redis);
}

/* Their time runs from here: a loop that was busy for long must not take that for Redis' silence. */
void ledger_link_flush(struct ledger_link *link)
{
    for (; link->unsent != NULL; link->unsent = link->unsent->next)
        link->unsent->sent_ms = clock_mono_us() / 1000;
    if (link->redis != NULL)
        ledger_epoll_flush(&link->epoll, link->redis);
}

/* ---- small things ---- */

void ledger_link_wake(struct ledger_link *link)
{
    uint64_t one = 1;

    (void)!write(link->wake_fd, &one, sizeof one); /* fails only when it is readable already */
}

bool ledger_link_up(const struct ledger_link *link)
{
    return link->state == LINK_UP;
}

const char *ledger_link_reason(const struct ledger_link *link)
{
    return link->reason;
}

const char *ledger_link_incarnation(const struct ledger_link *link)
{
    return link->incarnation;
}

const char *ledger_link_run_id(const struct ledger_link *link)
{
    return link->info.run_id;
}

const char *ledger_link_writes_refused(const struct ledger_link *link)
{
    if (link->state != LINK_UP)
        return link->reason;
    return link->writes_refused[0] == '\0' ? NULL : link->writes_refused;
}

void ledger_link_saw(struct ledger_link *link, struct str value)
{
    if (value.size == 0 || value.size >= sizeof link->value || str_equal(value, str_of(link->value)))
        return;
    if (link->state == LINK_UP)
        LOG_WARN("redis.wiped", LOG_S("address", link->settings.address), LOG_S("was", link->value),
                 LOG_STR("is", value));
    (void)snprintf(link->value, sizeof link->value, "%.*s", STR_ARG(value));
    set_incarnation(link);
}

const char *ledger_link_known(struct ledger_link *link, struct str incarnation)
{
    ledger_info_known(&link->info, incarnation, link->known, sizeof link->known);
    return link->known;
}

const char *ledger_link_random(struct ledger_link *link)
{
    ledger_info_random(link->random);
    return link->random;
}

/* ---- life ---- */

static const char *copy(struct arena *arena, const char *text)
{
    return arena_str(arena, str_of(text)).data;
}

struct ledger_link *ledger_link_open(const struct ledger_settings *settings, int epoll_fd, uint32_t tag,
                                     struct error *error)
{
    struct ledger_link *link = mem_new(sizeof *link);
    struct epoll_event event = {.events = EPOLLIN};

    /* hiredis writes to sockets that the other side may have closed. */
    (void)sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    *link = (struct ledger_link){.settings = *settings, .arena = arena_new(), .state = LINK_DOWN};
    link->epoll = (struct ledger_epoll){.epoll_fd = epoll_fd, .tag = tag, .fd = -1};
    link->last = &link->first;
    link->settings.address = copy(link->arena, settings->address);
    link->settings.username = copy(link->arena, settings->username);
    link->settings.password = copy(link->arena, settings->password);
    link->settings.name_space = copy(link->arena, settings->name_space);
    if (link->settings.reconnect_ms_max <= 0)
        link->settings.reconnect_ms_max = RECONNECT_MS_MAX_DEFAULT;
    (void)snprintf(link->reason, sizeof link->reason, "Redis at %s: connecting", settings->address);
    link->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    event.data.u64 = (uint64_t)tag << 32 | (uint32_t)link->wake_fd;
    if (!ledger_address_parse(&link->address, settings->address, error)) {
        ledger_link_close(link);
        return NULL;
    }
    if (link->wake_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, link->wake_fd, &event) != 0) {
        (void)error_set(error, ERROR_FATAL, "epoll: %s", strerrordesc_np(errno));
        ledger_link_close(link);
        return NULL;
    }
    return link;
}

bool ledger_link_idle(const struct ledger_link *link)
{
    return link->first == NULL;
}

void ledger_link_close(struct ledger_link *link)
{
    redisAsyncContext *redis = link->redis;

    link->redis = NULL;
    if (redis != NULL)
        redisAsyncFree(redis);
    ledger_address_free(&link->address);
    if (link->wake_fd >= 0)
        (void)close(link->wake_fd);
    arena_free(link->arena);
    mem_free(link);
}
