#include "worker/io/look.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/io/clock.h"
#include "worker/io/kafka_config.h"
#include "worker/io/ledger_address.h"

/* ---- Kafka ---- */

static const struct kafka_property none[] = {{NULL, NULL}};

/* No request tells a broker's release. What versions of requests it takes does, as a lower bound, and librdkafka tells those
 * in its debug log, from a thread of its own. */
struct spoken {
    _Atomic int fetch, txn_offset_commit; /* latest version; -1 = not known */
};

/* The latest version in "ApiKey Fetch (1) Versions 4..18"; -1 = another line. */
static int version_of(const char *line, const char *request)
{
    const char *at = strstr(line, request);
    const char *dots = at != NULL ? strstr(at, "..") : NULL;
    int version = dots != NULL && dots[2] >= '0' && dots[2] <= '9' ? 0 : -1;
    for (const char *c = dots + 2; version >= 0 && *c >= '0' && *c <= '9' && version < 1000; c++)
        version = version * 10 + (*c - '0');
    return version;
}

static void hear(const rd_kafka_t *client, int level, const char *facility, const char *line)
{
    struct spoken *spoken = rd_kafka_opaque(client);
    int fetch = version_of(line, "ApiKey Fetch (1) "), commit = version_of(line, "ApiKey TxnOffsetCommit (28) ");
    (void)level;
    (void)facility;
    if (fetch >= 0)
        spoken->fetch = fetch;
    if (commit >= 0)
        spoken->txn_offset_commit = commit;
}

/* Source: FetchRequest.json of each release of Apache Kafka. */
static const char *release_of(int fetch)
{
    static const struct {
        int fetch;
        const char *release;
    } releases[] = {{18, "4.1"}, {17, "3.9"}, {16, "3.7"}, {15, "3.5"}, {13, "3.1"}, {12, "2.7"}, {11, "2.3"}};
    for (size_t i = 0; i < sizeof(releases) / sizeof(releases[0]); i++)
        if (fetch >= releases[i].fetch)
            return releases[i].release;
    return "";
}

static rd_kafka_t *open_listening(const char *const *properties, size_t count, struct spoken *spoken,
                                  struct error *error)
{
    rd_kafka_conf_t *config = kafka_config(none, properties, count, none, error);
    if (config == NULL)
        return NULL;
    rd_kafka_conf_set(config, "debug", "feature", NULL, 0);
    rd_kafka_conf_set_opaque(config, spoken);
    rd_kafka_conf_set_log_cb(config, hear);
    return kafka_open(RD_KAFKA_PRODUCER, config, error);
}

bool look_kafka(const char *const *properties, size_t count, int64_t timeout_ms, struct arena *arena,
                struct look_kafka *look, struct error *error)
{
    struct spoken spoken = {.fetch = -1, .txn_offset_commit = -1};
    rd_kafka_t *client = open_listening(properties, count, &spoken, error);
    const struct rd_kafka_metadata *metadata = client != NULL ? kafka_metadata(client, timeout_ms, error) : NULL;
    if (metadata != NULL) {
        struct str names = STR("");
        for (int i = 0; i < metadata->broker_cnt; i++)
            names = arena_printf(arena, "%s%s%s:%d (%d)", names.data, i > 0 ? ", " : "", metadata->brokers[i].host,
                                 metadata->brokers[i].port, (int)metadata->brokers[i].id);
        char *cluster = rd_kafka_clusterid(client, (int)timeout_ms);
        *look = (struct look_kafka){
            .brokers = metadata->broker_cnt,
            .names = names.data,
            .cluster = cluster != NULL ? arena_copy(arena, cluster, strlen(cluster)).data : "",
            .library = rd_kafka_version_str(),
            .release = release_of(spoken.fetch),
            .transactions = spoken.txn_offset_commit < 0 || spoken.txn_offset_commit >= 3,
        };
        if (cluster != NULL)
            rd_kafka_mem_free(client, cluster);
        rd_kafka_metadata_destroy(metadata);
    }
    if (client != NULL)
        rd_kafka_destroy(client);
    return metadata != NULL;
}

static struct str member_names(struct arena *arena, const struct rd_kafka_group_info *group)
{
    struct str clients = STR("");
    for (int i = 0; i < group->member_cnt; i++)
        clients = arena_printf(arena, "%s%s%s %s", clients.data, i > 0 ? ", " : "", group->members[i].client_id,
                               group->members[i].client_host);
    return clients;
}

bool look_group(const char *const *properties, size_t count, const char *group, int64_t timeout_ms, struct arena *arena,
                struct look_group *look, struct error *error)
{
    rd_kafka_t *client = kafka_client(RD_KAFKA_PRODUCER, none, properties, count, none, error);
    if (client == NULL)
        return false;
    const struct rd_kafka_group_list *list = NULL;
    rd_kafka_resp_err_t failed = rd_kafka_list_groups(client, group, &list, (int)timeout_ms);
    *look = (struct look_group){.state = "Dead", .clients = ""};
    if (failed && failed != RD_KAFKA_RESP_ERR__PARTIAL)
        error_set(error, ERROR_FATAL, "the group %s cannot be asked for: %s", group, rd_kafka_err2str(failed));
    else
        failed = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (!failed && list->group_cnt > 0) {
        const char *state = list->groups[0].state;
        look->state = arena_copy(arena, state, strlen(state)).data;
        look->members = list->groups[0].member_cnt;
        look->clients = member_names(arena, &list->groups[0]).data;
    }
    if (list != NULL)
        rd_kafka_group_list_destroy(list);
    rd_kafka_destroy(client);
    return failed == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ---- Redis ---- */

static struct timeval timeval_of(int64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

static redisContext *connect_redis(const char *address, int64_t timeout_ms, struct error *error)
{
    struct ledger_address place;
    if (!ledger_address_parse(&place, address, error))
        return NULL;
    redisContext *context = redisConnectWithTimeout(place.host, (int)strtol(place.port, NULL, 10),
                                                    timeval_of(timeout_ms));
    if (context == NULL || context->err != 0) {
        error_set(error, ERROR_FATAL, "cannot reach Redis at %s: %s", address,
                  context != NULL ? context->errstr : "no memory");
        if (context != NULL)
            redisFree(context);
        return NULL;
    }
    redisSetTimeout(context, timeval_of(timeout_ms));
    return context;
}

/* The reply, or NULL with `error`. */
static redisReply *ask_redis(redisContext *context, const char *address, int argc, const char **argv,
                             struct error *error)
{
    redisReply *reply = redisCommandArgv(context, argc, argv, NULL);
    if (reply == NULL)
        error_set(error, ERROR_FATAL, "Redis at %s does not answer %s: %s", address, argv[0], context->errstr);
    else if (reply->type == REDIS_REPLY_ERROR)
        error_set(error, ERROR_FATAL, "Redis at %s answers %s with: %s", address, argv[0], reply->str);
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR) {
        freeReplyObject(reply);
        return NULL;
    }
    return reply;
}

/* The value of "name:" in the answer to INFO, or "". */
static const char *info_value(struct arena *arena, const char *info, const char *name)
{
    size_t size = strlen(name);
    for (const char *line = info; line != NULL && *line != '\0'; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, name, size) == 0 && line[size] == ':')
            return arena_copy(arena, line + size + 1, strcspn(line + size + 1, "\r\n")).data;
    return "";
}

static bool log_in(redisContext *context, const char *address, const char *username, const char *password,
                   struct error *error)
{
    const char *with_name[] = {"AUTH", username, password}, *without[] = {"AUTH", password};
    if (password == NULL)
        return true;
    redisReply *reply = username != NULL ? ask_redis(context, address, 3, with_name, error)
                                         : ask_redis(context, address, 2, without, error);
    if (reply != NULL)
        freeReplyObject(reply);
    return reply != NULL;
}

bool look_redis(const char *address, const char *username, const char *password, int64_t timeout_ms,
                struct arena *arena, struct look_redis *look, struct error *error)
{
    redisContext *context = connect_redis(address, timeout_ms, error);
    if (context == NULL)
        return false;
    const char *info[] = {"INFO"}, *ping[] = {"PING"}, *fsync_of[] = {"CONFIG", "GET", "appendfsync"};
    bool ok = log_in(context, address, username, password, error);
    redisReply *reply = ok ? ask_redis(context, address, 1, info, error) : NULL;
    ok = reply != NULL && reply->type == REDIS_REPLY_STRING;
    if (ok)
        *look = (struct look_redis){
            .version = info_value(arena, reply->str, "redis_version"),
            .run_id = info_value(arena, reply->str, "run_id"),
            .role = info_value(arena, reply->str, "role"),
            .maxmemory_policy = info_value(arena, reply->str, "maxmemory_policy"),
            .append_only = strcmp(info_value(arena, reply->str, "aof_enabled"), "1") == 0,
            .fsync = "",
        };
    if (reply != NULL)
        freeReplyObject(reply);
    int64_t from_us = clock_mono_us();
    reply = ok ? ask_redis(context, address, 1, ping, error) : NULL;
    if (reply != NULL)
        freeReplyObject(reply);
    ok = ok && reply != NULL;
    if (ok) {
        look->ping_us = clock_mono_us() - from_us;
        reply = ask_redis(context, address, 3, fsync_of, NULL); /* CONFIG may be forbidden: then it stays unknown */
        if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2)
            look->fsync = arena_copy(arena, reply->element[1]->str, (size_t)reply->element[1]->len).data;
        if (reply != NULL)
            freeReplyObject(reply);
    }
    redisFree(context);
    return ok;
}

/* ---- TCP ---- */

/* 0 = connected, else an errno. */
static int try_address(const struct addrinfo *address, int64_t timeout_ms)
{
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, address->ai_protocol);
    if (fd < 0)
        return errno;
    int failed = connect(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
    if (failed == EINPROGRESS) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        socklen_t size = sizeof(failed);
        failed = poll(&wait, 1, (int)timeout_ms) == 1 ? 0 : ETIMEDOUT;
        if (failed == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) != 0)
            failed = errno;
    }
    close(fd);
    return failed;
}

bool look_tcp(const char *host, const char *port, int64_t timeout_ms, struct error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int failed = getaddrinfo(host, port, &hints, &list);
    if (failed != 0)
        return error_set(error, ERROR_RETRY, "%s cannot be resolved: %s", host, gai_strerror(failed));
    failed = EADDRNOTAVAIL;
    for (const struct addrinfo *address = list; address != NULL && failed != 0; address = address->ai_next)
        failed = try_address(address, timeout_ms);
    freeaddrinfo(list);
    return failed == 0 ||
           error_set(error, ERROR_RETRY, "%s:%s does not accept a connection: %s", host, port, strerrordesc_np(failed));
}
