#include "tests/unit/redis_server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

#define TRIES_MAX 500 /* 20 ms each */

static char folder[64], address[32];
static int port;
static pid_t pid = -1;

static int free_port(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof any;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert(fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any) == 0);
    assert(getsockname(fd, (struct sockaddr *)&any, &size) == 0);
    (void)close(fd);
    return ntohs(any.sin_port);
}

static redisContext *connected(void)
{
    redisContext *redis = redisConnect("127.0.0.1", port);

    if (redis != NULL && redis->err == 0)
        return redis;
    if (redis != NULL)
        redisFree(redis);
    return NULL;
}

static bool run(void)
{
    char port_text[8];
    const char *const arguments[] = {"redis-server",
                                     "--bind",
                                     "127.0.0.1",
                                     "--port",
                                     port_text,
                                     "--dir",
                                     folder,
                                     "--appendonly",
                                     "yes",
                                     "--appendfsync",
                                     "always",
                                     "--save",
                                     "",
                                     "--maxmemory-policy",
                                     "noeviction",
                                     "--daemonize",
                                     "no",
                                     NULL};
    posix_spawn_file_actions_t quiet;
    redisContext *redis = NULL;
    int failed;

    (void)snprintf(port_text, sizeof port_text, "%d", port);
    (void)posix_spawn_file_actions_init(&quiet);
    for (int fd = 0; fd < 3; fd++)
        (void)posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_RDWR, 0);
    failed = posix_spawnp(&pid, "redis-server", &quiet, NULL, (char *const *)arguments, environ);
    (void)posix_spawn_file_actions_destroy(&quiet);
    for (int i = 0; i < TRIES_MAX && failed == 0 && redis == NULL; i++) {
        (void)usleep(20000);
        if (waitpid(pid, NULL, WNOHANG) == pid) /* no such program, or the port was taken meanwhile */
            failed = 1;
        else
            redis = connected();
    }
    if (redis != NULL)
        redisFree(redis);
    if (failed != 0)
        pid = -1;
    return redis != NULL;
}

bool redis_server_start(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/test_ledger.XXXXXX");
    assert(mkdtemp(folder) != NULL);
    for (int i = 0; i < 3; i++) {
        port = free_port();
        (void)snprintf(address, sizeof address, "127.0.0.1:%d", port);
        if (run())
            return true;
    }
    (void)rmdir(folder);
    return false;
}

void redis_server_kill(void)
{
    if (pid <= 0)
        return;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    pid = -1;
}

void redis_server_again(void)
{
    assert(run());
}

void redis_server_pause(void)
{
    assert(kill(pid, SIGSTOP) == 0);
}

void redis_server_go_on(void)
{
    assert(kill(pid, SIGCONT) == 0);
}

void redis_server_end(void)
{
    const char *const arguments[] = {"rm", "-rf", folder, NULL};
    pid_t remover;

    redis_server_kill();
    if (posix_spawnp(&remover, "rm", NULL, NULL, (char *const *)arguments, environ) == 0)
        (void)waitpid(remover, NULL, 0);
}

const char *redis_server_address(void)
{
    return address;
}

int redis_server_port(void)
{
    return port;
}

const char *redis_server_ask(const char *format, ...)
{
    static char answer[4096];
    char command[1024];
    redisContext *redis = connected();
    const redisReply *shown;
    redisReply *reply;
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    assert(redis != NULL);
    reply = redisCommand(redis, command);
    assert(reply != NULL);
    shown = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 ? reply->element[0] : reply;
    if (shown->type == REDIS_REPLY_INTEGER)
        (void)snprintf(answer, sizeof answer, "%lld", shown->integer);
    else
        (void)snprintf(answer, sizeof answer, "%s", shown->str == NULL ? "nil" : shown->str);
    freeReplyObject(reply);
    redisFree(redis);
    return answer;
}
