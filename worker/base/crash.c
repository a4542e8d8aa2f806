#include "worker/base/crash.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef MYELIN_CRASH_POINTS
void crash_point(const char *name)
{
    static atomic_long reached; /* of the one point that the environment names, from any thread */
    const char *wanted = getenv("MYELIN_CRASH_AT");
    size_t size = strlen(name);
    if (wanted == NULL || strncmp(wanted, name, size) != 0)
        return;
    if (wanted[size] != '\0' && wanted[size] != ':')
        return;
    long at = wanted[size] == ':' ? strtol(wanted + size + 1, NULL, 10) : 1;
    if (atomic_fetch_add(&reached, 1) + 1 == at)
        kill(getpid(), SIGKILL);
}
#endif
