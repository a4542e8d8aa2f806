/*
 * main.c: the worker daemon: settings, ports, signals, the epoll loop.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "worker/base/budget.h"
#include "worker/base/logline.h"
#include "worker/io/admin.h"
#include "worker/io/clock.h"
#include "worker/io/metrics.h"
#include "worker/worker.h"

enum source { SOURCE_LOG, SOURCE_SIGNAL, SOURCE_LEDGER, SOURCE_CALLER, SOURCE_ADMIN, SOURCE_PAYLOADS };

#define EVENTS_MAX 64
#define RECORDS_MAX 256     /* log events in one go, so that sockets and timers get their turn */
#define CONNECTIONS_KEPT 64 /* above the calls in flight: idle ones, for the next */
#define FILES_OTHER 256     /* open files that are no calls: Kafka, Redis, the admin port */
#define WAIT_MAX_MS 60000
#define GREET_MAX_MS 1000

static const char help[] =
    "Usage: myelin-worker [--config FILE] [--slot NAME]\n"
    "\n"
    "Takes step events from Kafka, makes the model and tool calls, commits what follows exactly once.\n"
    "Run as many as there is work for; SIGTERM commits what is done and leaves.\n"
    "\n"
    "  --config FILE   settings (else MYELIN_CONFIG, ./config/worker.cfg, /etc/myelin/worker.cfg)\n"
    "  --slot NAME     this worker's stable name (else the setting slot, MYELIN_SLOT, the host's name)\n"
    "  --help          this text, and every setting\n"
    "\n"
    "Exit: 0 stopped on request, 64 wrong use, 69 Kafka cannot be used, 70 internal error, 78 settings are wrong.\n"
    "\n"
    "Settings:\n";

static void tell_help(void)
{
    struct arena *arena = arena_new();
    struct str settings = settings_help(arena);
    printf("%s%.*s", help, STR_ARG(settings));
    arena_free(arena);
}

static void on_signal(struct worker *worker, int fd)
{
    struct signalfd_siginfo info;
    if (read(fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (worker->stopping) {
        LOG_WARN("stop.now", LOG_S("reason", "second signal"));
        _exit(EX_OK); /* safe: what is not committed is delivered again, writes are reserved in Redis */
    }
    LOG_INFO("stop", LOG_I("in_flight", worker->deliveries_count), LOG_I("grace_ms", worker->settings->grace_ms));
    worker->stopping = true;
    worker->stop_by_ms = clock_mono_us() / 1000 + worker->settings->grace_ms;
    log_stop(worker->log);
}

static int wait_ms(struct worker *worker)
{
    int64_t now_ms = clock_mono_us() / 1000, wall_ms = clock_wall_ms();
    int64_t next = WAIT_MAX_MS;
    int64_t wanted[] = {
        ledger_tick(worker->ledger, now_ms) - now_ms, caller_tick(worker->caller, now_ms) - now_ms,
        loop_tick(worker, now_ms) - now_ms,           inbox_tick(worker, wall_ms) - wall_ms,
        admin_tick(worker->admin, now_ms) - now_ms,   worker->log_stopped ? worker->stop_by_ms - now_ms : WAIT_MAX_MS,
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        next = wanted[i] < next ? wanted[i] : next;
    return next < 0 ? 0 : (int)next;
}

/* Stopped: everything is committed that could be, and the calls in flight have stored their results or had their time. */
static bool over(const struct worker *worker)
{
    if (!worker->log_stopped)
        return false;
    bool stored = worker->deliveries_count == 0 && ledger_idle(worker->ledger);
    return worker->failed || stored || clock_mono_us() / 1000 >= worker->stop_by_ms;
}

static void run(struct worker *worker, int epoll_fd, int signal_fd)
{
    struct epoll_event events[EVENTS_MAX];
    while (!over(worker)) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, wait_ms(worker));
        for (int i = 0; i < count; i++) {
            enum source source = (enum source)(events[i].data.u64 >> 32);
            int fd = (int)(events[i].data.u64 & 0xffffffff);
            if (source == SOURCE_SIGNAL)
                on_signal(worker, signal_fd);
            else if (source == SOURCE_LEDGER)
                ledger_ready(worker->ledger, fd, events[i].events);
            else if (source == SOURCE_CALLER)
                caller_ready(worker->caller, fd, events[i].events);
            else if (source == SOURCE_ADMIN)
                admin_ready(worker->admin);
            else if (source == SOURCE_PAYLOADS)
                payload_ready(worker->payloads);
        }
        struct log_event event;
        for (int i = 0; i < RECORDS_MAX && log_next(worker->log, &event); i++)
            event_take(worker, &event);
    }
}

static void watch(int epoll_fd, int fd, enum source source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)source << 32 | (uint32_t)fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        LOG_ERROR("epoll.failed", LOG_I("errno", errno));
        exit(EX_OSERR);
    }
}

static struct log *open_log(const struct settings *settings, struct error *error)
{
    struct log_settings wanted = {
        .name_space = settings->name_space.data,
        .slot = settings->slot,
        .slot_pinned = settings->slot_pinned,
        .pools = (const char *const *)settings->pools,
        .pools_count = settings->pools_count,
        .serve_inbox = settings->serve_inbox,
        .properties = (const char *const *)settings->kafka,
        .properties_count = settings->kafka_count,
        .in_flight_max = settings->in_flight_max,
        .control_ready_ms = 30000,
    };
    return log_open(&wanted, error);
}

/* The first reads are to be asked for in Redis, not made again because it was not greeted yet; one that is down is not awaited. */
static void greet_ledger(struct ledger *ledger, int epoll_fd)
{
    int64_t until_ms = clock_mono_us() / 1000 + GREET_MAX_MS;
    struct epoll_event event;
    for (int64_t now_ms; !ledger_up(ledger) && (now_ms = clock_mono_us() / 1000) < until_ms;) {
        int64_t due_ms = ledger_tick(ledger, now_ms);
        int wait_ms = (int)((due_ms < until_ms ? due_ms : until_ms) - now_ms);
        if (epoll_wait(epoll_fd, &event, 1, wait_ms > 0 ? wait_ms : 0) == 1)
            ledger_ready(ledger, (int)(event.data.u64 & 0xffffffff), event.events);
    }
}

/* Each call in flight is a socket: as many as the system lets us, and a word when that is too few. */
static void raise_files_max(int32_t connections_max)
{
    struct rlimit files;
    rlim_t wanted = (rlim_t)connections_max + FILES_OTHER;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= wanted)
        return;
    files.rlim_cur = wanted < files.rlim_max ? wanted : files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur < wanted)
        LOG_WARN("files.few", LOG_I("open_files_max", (int64_t)files.rlim_cur), LOG_I("wanted", (int64_t)wanted),
                 LOG_S("reason", "in_flight_max calls may need more sockets than the system allows: raise ulimit -n"));
}

static bool open_ports(struct worker *worker, int epoll_fd, struct error *error)
{
    const struct settings *settings = worker->settings;
    struct ledger_settings ledger = {
        .address = settings->redis,
        .username = settings->redis_username,
        .password = settings->redis_password,
        .name_space = settings->name_space.data,
        .holder = worker->name,
        .slot = settings->slot,
        .settle_ms = settings->settle_ms,
        .read_keep_ms = 24LL * 3600 * 1000,
        .lease_ms = settings->lease_ms,
        .reconnect_ms_max = 2000,
    };
    struct caller_settings caller = {.connections_max = settings->in_flight_max + CONNECTIONS_KEPT,
                                     .connections_per_host_max = settings->calls_per_endpoint,
                                     .connect_timeout_ms = 5000};
    raise_files_max(caller.connections_max);
    budget_open(settings->memory_max);
    worker->metrics = meter_new(settings);
    if (settings->admin != NULL) {
        worker->admin = admin_open(settings->admin, epoll_fd, SOURCE_ADMIN, meter_page, worker, error);
        if (worker->admin == NULL)
            return false;
    }
    worker->contracts = contracts_new();
    worker->ledger = ledger_open(&ledger, epoll_fd, SOURCE_LEDGER, error);
    if (worker->ledger != NULL)
        greet_ledger(worker->ledger, epoll_fd);
    worker->caller = worker->ledger != NULL ? caller_open(&caller, epoll_fd, SOURCE_CALLER, error) : NULL;
    worker->payloads = worker->caller != NULL ? payload_open(settings, error) : NULL;
    worker->log = worker->payloads != NULL ? open_log(settings, error) : NULL;
    return worker->log != NULL;
}

static enum logline_level level_of(struct str name)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    size_t level = LOGLINE_DEBUG;
    while (level < LOGLINE_ERROR && !str_is(name, names[level]))
        level++;
    return (enum logline_level)level;
}

static int serve(const struct settings *settings, int signal_fd)
{
    struct worker worker = {.settings = settings};
    struct error error = {.class = ERROR_NONE};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    snprintf(worker.name, sizeof(worker.name), "%s:%lld", settings->slot, (long long)clock_wall_ms());
    bool opened = record_open(&error) && open_ports(&worker, epoll_fd, &error);
    if (opened) {
        watch(epoll_fd, signal_fd, SOURCE_SIGNAL);
        watch(epoll_fd, log_fd(worker.log), SOURCE_LOG);
        watch(epoll_fd, payload_fd(worker.payloads), SOURCE_PAYLOADS);
        LOG_INFO("ready", LOG_S("worker", worker.name), LOG_STR("namespace", settings->name_space));
        run(&worker, epoll_fd, signal_fd);
        LOG_INFO("stopped", LOG_S("worker", worker.name), LOG_I("left_in_flight", worker.deliveries_count));
    } else {
        LOG_ERROR("start.failed", LOG_S("reason", error.text));
    }
    admin_close(worker.admin);
    caller_close(worker.caller);
    payload_close(worker.payloads);
    inbox_free(&worker); /* before the ledger, of which it waits for answers */
    ledger_close(worker.ledger);
    loop_free(&worker);
    log_close(worker.log);
    contracts_free(worker.contracts);
    metrics_free(worker.metrics);
    record_close();
    expr_cache_free();
    close(epoll_fd);
    return opened && !worker.failed ? EX_OK : EX_UNAVAILABLE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"slot", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const char *config = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h') {
            tell_help();
            return EX_OK;
        }
        if (option == 'c')
            config = optarg;
        else if (option == 's')
            setenv("MYELIN_SLOT", optarg, 1);
        else
            return EX_USAGE;
    }
    if (optind < argc) {
        fprintf(stderr, "%s: takes no argument \"%s\"; see: %s --help\n", argv[0], argv[optind], argv[0]);
        return EX_USAGE;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGPIPE);           /* a peer that went away is an error of its write, not the end of us */
    sigprocmask(SIG_BLOCK, &signals, NULL); /* before any thread starts */
    sigdelset(&signals, SIGPIPE);
    int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);

    struct error error;
    struct arena *arena = arena_new();
    struct settings *settings = settings_read(settings_find(config, "worker.cfg", arena), &error);
    arena_free(arena);
    if (settings == NULL) {
        LOG_ERROR("settings.wrong", LOG_S("reason", error.text));
        return EX_CONFIG;
    }
    logline_level(level_of(settings->log_level));
    int status = serve(settings, signal_fd);
    settings_free(settings);
    close(signal_fd);
    return status;
}
