/* The partitions that no worker serves, and their repair. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "producer/doctor.h"
#include "worker/io/adopt.h"

static struct adopt_place place_of(const struct doctor *doctor, int64_t timeout_ms)
{
    const struct settings *settings = doctor->cmd->settings;
    return (struct adopt_place){.name_space = settings->name_space.data,
                                .properties = settings->kafka,
                                .properties_count = settings->kafka_count,
                                .pools = settings->pools,
                                .pools_count = settings->pools_count,
                                .timeout_ms = (int)timeout_ms};
}

/* "steps.default 3", as the command takes it. */
static const char *name_of(const struct doctor *doctor, const struct adopt_partition *one)
{
    size_t skip = doctor->cmd->settings->name_space.size + 1;
    return arena_printf(doctor->cmd->arena, "%s %" PRId32, one->topic + skip, one->partition).data;
}

void doctor_partitions(struct doctor *doctor, int64_t timeout_ms)
{
    struct adopt_place place = place_of(doctor, timeout_ms);
    struct adopt_partition *found;
    struct error error;
    size_t count;
    if (!adopt_find(&place, doctor->cmd->arena, &found, &count, &error))
        doctor_say(doctor, DOCTOR_WARN, "partitions", "%s", error.text);
    for (size_t i = 0; i < count; i++)
        doctor_say(doctor, DOCTOR_FAIL, "partition", "%s is not served: %s", name_of(doctor, &found[i]), found[i].why);
}

/* What adopting it loses, and what it does again. */
static const char *consequence(const struct doctor *doctor, const struct adopt_partition *one)
{
    struct arena *arena = doctor->cmd->arena;
    int64_t committed = one->offsets.committed;
    if (committed >= 0 && committed < one->to)
        return arena_printf(arena, "served from %" PRId64 " on; SKIPPED for ever: %" PRId64 " to %" PRId64, one->to,
                            committed, one->to - 1)
            .data;
    return arena_printf(arena,
                        "served from %" PRId64 " to its end %" PRId64
                        " and on; what of that is done already is done again",
                        one->to, one->offsets.end)
        .data;
}

/* Of `found`, the one that is asked for; all, when none is. */
static size_t choose(struct adopt_partition *found, size_t count, const struct doctor *doctor)
{
    const struct cmd *cmd = doctor->cmd;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = cmd->arguments_count < 2
                               ? NULL
                               : arena_printf(cmd->arena, "%s %s", cmd->arguments[0], cmd->arguments[1]).data;
        if (name == NULL || strcmp(name, name_of(doctor, &found[i])) == 0)
            found[kept++] = found[i];
    }
    return kept;
}

int doctor_adopt(struct doctor *doctor, bool yes, int64_t timeout_ms)
{
    struct cmd *cmd = doctor->cmd;
    struct adopt_place place = place_of(doctor, timeout_ms);
    struct adopt_partition *found;
    struct error error;
    size_t count;
    if (!adopt_find(&place, cmd->arena, &found, &count, &error))
        return cmd_error(cmd, CMD_UNAVAILABLE, &error);
    count = choose(found, count, doctor);
    if (count == 0)
        return cmd_fail(cmd, CMD_NO_INPUT, "there is no such partition that is not served");
    if (yes && !adopt_commit(&place, found, count, &error))
        return cmd_error(cmd, CMD_NO, &error);
    for (size_t i = 0; i < count; i++)
        doctor_say(doctor, yes ? DOCTOR_OK : DOCTOR_WARN, yes ? "adopted" : "partition", "%s: %s. Before: %s",
                   name_of(doctor, &found[i]), consequence(doctor, &found[i]), found[i].why);
    if (!yes)
        return cmd_fail(cmd, CMD_NO, "nothing was changed; stop all workers, then say it again with --yes");
    return CMD_OK;
}
