/*
 * main.c: the worker daemon: settings, ports, signals, the epoll loop.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
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
#include "worker/io/ledger_slot.h"
#include "worker/io/metrics.h"
#include "worker/worker.h"

enum source { SOURCE_LOG, SOURCE_SIGNAL, SOURCE_LEDGER, SOURCE_CALLER, SOURCE_ADMIN, SOURCE_READBACK };

#define EVENTS_MAX 64
#define RECORDS_MAX 256     /* log events in one go, so that sockets and timers get their turn */
#define CONNECTIONS_KEPT 64 /* above the calls in flight: idle ones, for the next */
#define FILES_OTHER 256     /* open files that are no calls: Kafka, Redis, the admin port */
#define WAIT_MAX_MS 60000
#define GREET_MAX_MS 1000
#define RELEASE_MAX_MS 500
#define LOG_OPEN_MAX_MS 30000 /* the loop does not turn meanwhile */
/* Buffers of this size (answers, results) come from the system, and go back to it when they are freed. By default glibc begins to
 * keep them after the first, and what is resident is twice what is in use. */
#define LARGE_SIZE (256 << 10)

static const char help[] =
    "Usage: myelin-worker [--config FILE] [--slot NAME]\n"
    "\n"
    "Takes step events from Kafka, makes the model and tool calls, commits what follows exactly once.\n"
    "Run as many as there is work for; SIGTERM commits what is done and leaves.\n"
    "\n"
    "  --config FILE   settings (else MYELIN_CONFIG, ./config/worker.cfg, /etc/myelin/worker.cfg)\n"
    "  --slot NAME     this worker's stable name (else the setting slot, MYELIN_SLOT, one that is free)\n"
    "  --help          this text, and every setting\n"
    "\n"
    "Exit: 0 stopped on request, 64 wrong use, 69 Kafka cannot be used, a port cannot\n"
    "be opened or the slot is another's, 70 internal error, 78 settings are wrong.\n"
    "\n"
    "Settings:\n";

static void tell_help(void)
{
    struct arena *arena = arena_new();
    struct str settings = settings_help(arena);
    printf("%s%.*s", help, STR_ARG(settings));
    arena_free(arena);
}

static void stop(struct worker *worker)
{
    LOG_INFO("stop", LOG_I("in_flight", worker->deliveries_count), LOG_I("grace_ms", worker->settings->grace_ms));
    worker->stopping = true;
    worker->stop_by_ms = clock_mono_us() / 1000 + worker->settings->grace_ms;
    if (worker->log != NULL)
        log_stop(worker->log);
}

static void on_signal(struct worker *worker)
{
    struct signalfd_siginfo info;
    if (read(worker->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (worker->stopping) {
        LOG_WARN("stop.now", LOG_S("reason", "second signal"));
        _exit(EX_OK); /* safe: what is not committed is delivered again, writes are reserved in Redis */
    }
    stop(worker);
}

/* What Kafka would tell with the next commit: whatever is begun now could not be committed. */
static void look_at_slot(struct worker *worker)
{
    if (worker->slot_lost || !ledger_slot_lost(ledger_slot(worker->ledger)))
        return;
    worker->slot_lost = true;
    if (!worker->stopping)
        stop(worker);
}

static int wait_ms(struct worker *worker)
{
    int64_t now_ms = clock_mono_us() / 1000, wall_ms = clock_wall_ms();
    int64_t next = WAIT_MAX_MS;
    int64_t wanted[] = {
        ledger_tick(worker->ledger, now_ms) - now_ms, caller_tick(worker->caller, now_ms) - now_ms,
        loop_tick(worker, now_ms) - now_ms,           keep_tick(worker, wall_ms) - wall_ms,
        admin_tick(worker->admin, now_ms) - now_ms,   worker->log_stopped ? worker->stop_by_ms - now_ms : WAIT_MAX_MS,
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        next = wanted[i] < next ? wanted[i] : next;
    ledger_flush(worker->ledger);
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

static void turn(struct worker *worker, int64_t wait_ms_max)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(worker->epoll_fd, events, EVENTS_MAX, (int)wait_ms_max);
    caller_awake(worker->caller);
    for (int i = 0; i < count; i++) {
        enum source source = (enum source)(events[i].data.u64 >> 32);
        int fd = (int)(events[i].data.u64 & 0xffffffff);
        if (source == SOURCE_SIGNAL)
            on_signal(worker);
        else if (source == SOURCE_LEDGER)
            ledger_ready(worker->ledger, fd, events[i].events);
        else if (source == SOURCE_CALLER)
            caller_ready(worker->caller, fd, events[i].events);
        else if (source == SOURCE_ADMIN)
            admin_ready(worker->admin);
        else if (source == SOURCE_READBACK)
            event_read(worker);
    }
}

static void run(struct worker *worker)
{
    while (!over(worker)) {
        turn(worker, wait_ms(worker));
        struct log_event event;
        for (int i = 0; i < RECORDS_MAX && log_next(worker->log, &event); i++)
            event_take(worker, &event);
        look_at_slot(worker);
    }
}

static void watch(const struct worker *worker, int fd, enum source source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)source << 32 | (uint32_t)fd};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        LOG_ERROR("epoll.failed", LOG_I("errno", errno));
        exit(EX_OSERR);
    }
}

static struct log *open_log(const struct worker *worker, struct error *error)
{
    const struct settings *settings = worker->settings;
    struct log_settings wanted = {
        .name_space = settings->name_space.data,
        .slot = worker->slot,
        .slot_pinned = settings->slot != NULL,
        .pools = (const char *const *)settings->pools,
        .pools_count = settings->pools_count,
        .serve_inbox = settings->serve_inbox,
        .properties = (const char *const *)settings->kafka,
        .properties_count = settings->kafka_count,
        .in_flight_max = settings->in_flight_max,
        .trim_every_ms = settings->trim_every_ms,
        .control_ready_ms = LOG_OPEN_MAX_MS,
    };
    return log_open(&wanted, error);
}

static struct readback *open_readback(const struct settings *settings, struct error *error)
{
    char history[300], waiting[300];
    const char *const topics[READ_TOPICS] = {[READ_HISTORY] = history, [READ_WAITING] = waiting};
    snprintf(history, sizeof(history), "%s.history", settings->name_space.data);
    snprintf(waiting, sizeof(waiting), "%s.waiting", settings->name_space.data);
    return readback_open(topics, READ_TOPICS, (const char *const *)settings->kafka, settings->kafka_count, error);
}

/* Turns for the ledger alone. */
static void await_ledger(struct worker *worker, bool (*reached)(const struct ledger *ledger), int64_t wait_max_ms)
{
    int64_t until_ms = clock_mono_us() / 1000 + wait_max_ms;
    struct epoll_event event;
    for (int64_t now_ms; !reached(worker->ledger) && (now_ms = clock_mono_us() / 1000) < until_ms;) {
        int64_t due_ms = ledger_tick(worker->ledger, now_ms);
        ledger_flush(worker->ledger);
        int left_ms = (int)((due_ms < until_ms ? due_ms : until_ms) - now_ms);
        if (epoll_wait(worker->epoll_fd, &event, 1, left_ms > 0 ? left_ms : 0) == 1 &&
            event.data.u64 >> 32 == SOURCE_LEDGER)
            ledger_ready(worker->ledger, (int)(event.data.u64 & 0xffffffff), event.events);
    }
}

static void name_worker(struct worker *worker, const char *slot)
{
    snprintf(worker->slot, sizeof(worker->slot), "%s", slot);
    snprintf(worker->name, sizeof(worker->name), "%s:%lld", slot, (long long)clock_wall_ms());
    ledger_name(worker->ledger, worker->slot, worker->name);
    meter_name(worker->metrics, worker->settings->name_space, worker->slot);
}

/* The settings name no slot: the lowest free one, under a name that settings cannot give. False: stopped before there was one. */
static bool claim_slot(struct worker *worker)
{
    struct ledger_slot *slot = ledger_slot(worker->ledger);
    char name[16];
    ledger_slot_claim(slot, worker->settings->slot_lease_ms, LOG_OPEN_MAX_MS);
    while (!worker->stopping && ledger_slot_number(slot) == 0)
        turn(worker, wait_ms(worker));
    if (worker->stopping)
        return false;
    snprintf(name, sizeof(name), "_%d", (int)ledger_slot_number(slot));
    name_worker(worker, name);
    return true;
}

/* The first reads are to be asked for in Redis, not made again because it was not greeted yet; one that is down is not awaited. */
static bool take_slot(struct worker *worker)
{
    if (worker->settings->slot == NULL)
        return claim_slot(worker);
    name_worker(worker, worker->settings->slot);
    await_ledger(worker, ledger_up, GREET_MAX_MS);
    return true;
}

/* The next worker has it at once. */
static void release_slot(struct worker *worker)
{
    ledger_slot_release(ledger_slot(worker->ledger));
    await_ledger(worker, ledger_idle, RELEASE_MAX_MS);
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

static bool open_ports(struct worker *worker, struct error *error)
{
    const struct settings *settings = worker->settings;
    struct ledger_settings ledger = {
        .address = settings->redis,
        .username = settings->redis_username,
        .password = settings->redis_password,
        .name_space = settings->name_space.data,
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
        worker->admin = admin_open(settings->admin, worker->epoll_fd, SOURCE_ADMIN, meter_page, worker, error);
        if (worker->admin == NULL)
            return false;
    }
    worker->contracts = contracts_new();
    worker->credits = credits_new();
    worker->ledger = ledger_open(&ledger, worker->epoll_fd, SOURCE_LEDGER, error);
    worker->caller = worker->ledger != NULL ? caller_open(&caller, worker->epoll_fd, SOURCE_CALLER, error) : NULL;
    worker->readback = worker->caller != NULL ? open_readback(settings, error) : NULL;
    if (worker->readback == NULL)
        return false;
    worker->payloads = payload_open(worker->readback);
    keep_open(worker);
    worker->log = take_slot(worker) ? open_log(worker, error) : NULL;
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
    struct worker worker = {.settings = settings, .signal_fd = signal_fd};
    struct error error = {.class = ERROR_NONE};
    worker.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(&worker, signal_fd, SOURCE_SIGNAL);
    bool opened = record_open(&error) && open_ports(&worker, &error);
    if (opened) {
        watch(&worker, log_fd(worker.log), SOURCE_LOG);
        watch(&worker, readback_fd(worker.readback), SOURCE_READBACK);
        LOG_INFO("ready", LOG_S("worker", worker.name), LOG_STR("namespace", settings->name_space));
        run(&worker);
        LOG_INFO("stopped", LOG_S("worker", worker.name), LOG_I("left_in_flight", worker.deliveries_count));
    } else if (!worker.stopping) {
        LOG_ERROR("start.failed", LOG_S("reason", error.text));
    }
    admin_close(worker.admin);
    keep_free(&worker);
    if (worker.ledger != NULL)
        release_slot(&worker);
    ledger_close(worker.ledger);
    caller_close(worker.caller); /* what Redis still answered may have begun a call, which nobody sends any more */
    loop_free(&worker);
    readback_close(worker.readback);
    payload_close(worker.payloads); /* who waited for it is gone */
    credits_free(worker.credits);
    log_close(worker.log);
    contracts_free(worker.contracts);
    metrics_free(worker.metrics);
    record_close();
    expr_cache_free();
    close(worker.epoll_fd);
    return (opened || worker.stopping) && !worker.failed && !worker.slot_lost ? EX_OK : EX_UNAVAILABLE;
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
    mallopt(M_MMAP_THRESHOLD, LARGE_SIZE);
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
