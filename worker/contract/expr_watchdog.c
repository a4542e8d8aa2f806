#include "worker/contract/expr_watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "worker/base/logline.h"
#include "worker/contract/expr.h"

#define TICK_IDLE_NS (100 * 1000000L)
#define TICK_BUSY_NS (10 * 1000000L)

#define IDLE 0
#define GIVEN_UP UINT64_MAX /* the watchdog took it; the evaluating thread must not go on */

struct expr_watch {
    _Atomic uint64_t running;   /* IDLE, GIVEN_UP, or the number of the evaluation that runs */
    uint64_t number;            /* of the last evaluation; the evaluating thread's own */
    struct str run, step, text; /* valid while `running` is neither IDLE nor changed */
    clockid_t cpu;              /* the evaluating thread's CPU clock */
    /* The watchdog's own: */
    uint64_t seen;          /* what `running` was at the last tick */
    int64_t cpu_start_ns;   /* when that was seen for the first time */
    int64_t resident_start; /* bytes; likewise, or at the tick before when that was less */
    struct expr_watch *next;
};

static struct {
    pthread_mutex_t life;  /* one thread at a time starts or stops the watchdog; taken before `mutex` */
    pthread_mutex_t mutex; /* the list and `stop` */
    pthread_cond_t stopping;
    struct expr_watch *list;
    pthread_t thread;
    bool stop;
    int statm; /* /proc/self/statm, -1 where there is none: then only time is bounded */
} watchdog = {.life = PTHREAD_MUTEX_INITIALIZER, .mutex = PTHREAD_MUTEX_INITIALIZER, .statm = -1};

static int64_t nanoseconds(const struct timespec *time)
{
    return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

static int64_t resident(void)
{
    char text[128], *second;
    ssize_t size = watchdog.statm >= 0 ? pread(watchdog.statm, text, sizeof text - 1, 0) : -1;

    if (size <= 0)
        return 0;
    text[size] = '\0';
    second = strchr(text, ' '); /* "size resident ...", in pages */
    return second != NULL ? (int64_t)strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE) : 0;
}

_Noreturn void expr_watch_exit(const struct expr_watch *watch, const char *limit, long long limit_value)
{
    LOG_ERROR("expr.watchdog", LOG_STR("run", watch->run), LOG_STR("step", watch->step), LOG_S("limit", limit),
              LOG_I("limit_value", limit_value), LOG_STR("expr", watch->text));
    _exit(EXPR_EXIT_CODE);
}

/* Returns true while an evaluation goes on that was there at the last tick too. */
static bool look(struct expr_watch *watch, int64_t resident_now, int64_t resident_before)
{
    uint64_t running = atomic_load_explicit(&watch->running, memory_order_acquire);
    struct timespec now;

    if (running == IDLE || clock_gettime(watch->cpu, &now) != 0) {
        watch->seen = IDLE;
        return false;
    }
    if (running != watch->seen) {
        watch->seen = running;
        watch->cpu_start_ns = nanoseconds(&now);
        watch->resident_start = resident_before < resident_now ? resident_before : resident_now;
        return true;
    }
    bool slow = nanoseconds(&now) - watch->cpu_start_ns > (int64_t)EXPR_TIME_MAX_MS * 1000000;
    bool big = resident_now - watch->resident_start > (int64_t)EXPR_MEMORY_MAX;
    /* Only who takes the number away may read the texts: the other side frees them. */
    if ((slow || big) && atomic_compare_exchange_strong(&watch->running, &running, GIVEN_UP)) {
        if (slow)
            expr_watch_exit(watch, "time_ms", EXPR_TIME_MAX_MS);
        expr_watch_exit(watch, "memory_size", (long long)EXPR_MEMORY_MAX);
    }
    return true;
}

static void *look_on(void *unused)
{
    int64_t resident_before = resident();

    (void)unused;
    pthread_mutex_lock(&watchdog.mutex);
    while (!watchdog.stop) {
        bool busy = false;
        int64_t resident_now = resident();
        struct timespec until;
        for (struct expr_watch *watch = watchdog.list; watch != NULL; watch = watch->next)
            busy = look(watch, resident_now, resident_before) || busy;
        resident_before = resident_now;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += busy ? TICK_BUSY_NS : TICK_IDLE_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&watchdog.stopping, &watchdog.mutex, &until);
    }
    pthread_mutex_unlock(&watchdog.mutex);
    return NULL;
}

/* Under `life`. The thread takes no signals: those are for the program's own threads. */
static int start(void)
{
    pthread_condattr_t attributes;
    sigset_t all, before;
    int failed;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watchdog.stopping, &attributes);
    pthread_condattr_destroy(&attributes);
    watchdog.stop = false;
    watchdog.statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&watchdog.thread, NULL, look_on, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        pthread_cond_destroy(&watchdog.stopping);
        if (watchdog.statm >= 0)
            close(watchdog.statm);
    }
    return failed;
}

struct expr_watch *expr_watch_new(struct error *error)
{
    struct expr_watch *watch = calloc(1, sizeof *watch);
    int failed = watch == NULL ? ENOMEM : pthread_getcpuclockid(pthread_self(), &watch->cpu);

    pthread_mutex_lock(&watchdog.life);
    if (failed == 0 && watchdog.list == NULL)
        failed = start();
    if (failed == 0) {
        pthread_mutex_lock(&watchdog.mutex);
        watch->next = watchdog.list;
        watchdog.list = watch;
        pthread_mutex_unlock(&watchdog.mutex);
    }
    pthread_mutex_unlock(&watchdog.life);
    if (failed != 0) {
        free(watch);
        error_set(error, ERROR_RETRY, "the watchdog of expressions cannot start: error %d", failed);
        return NULL;
    }
    return watch;
}

static void stop(void)
{
    pthread_join(watchdog.thread, NULL);
    pthread_cond_destroy(&watchdog.stopping);
    if (watchdog.statm >= 0)
        close(watchdog.statm);
    watchdog.statm = -1;
}

void expr_watch_free(struct expr_watch *watch)
{
    if (watch == NULL)
        return;
    pthread_mutex_lock(&watchdog.life);
    pthread_mutex_lock(&watchdog.mutex);
    struct expr_watch **link = &watchdog.list;
    while (*link != watch)
        link = &(*link)->next;
    *link = watch->next;
    watchdog.stop = watchdog.list == NULL;
    bool last = watchdog.stop;
    if (last)
        pthread_cond_signal(&watchdog.stopping);
    pthread_mutex_unlock(&watchdog.mutex);
    if (last)
        stop();
    pthread_mutex_unlock(&watchdog.life);
    free(watch);
}

void expr_watch_begin(struct expr_watch *watch, struct str run, struct str step, struct str text)
{
    watch->run = run;
    watch->step = step;
    watch->text = text;
    atomic_store_explicit(&watch->running, ++watch->number, memory_order_release);
}

void expr_watch_end(struct expr_watch *watch)
{
    uint64_t running = watch->number;

    if (atomic_compare_exchange_strong(&watch->running, &running, IDLE))
        return;
    for (;;)
        pause();
}
