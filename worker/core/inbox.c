#include "worker/core/inbox.h"

#include <assert.h>

const char *waits_for_name(enum waits_for what)
{
    static const char *const names[] = {"timer", "approval", "resolution"};
    assert((size_t)what < sizeof(names) / sizeof(names[0]));
    return names[what];
}
