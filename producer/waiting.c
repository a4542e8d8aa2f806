#include "producer/waiting.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "producer/control.h"
#include "producer/remote.h"
#include "producer/uuid.h"

#define READ_TIMEOUT_MS 15000

/* The latest record of a key; those before it are forgotten while reading. */
struct latest {
    struct str value; /* owned: malloc */
    int32_t partition;
    int64_t offset;
};
struct table {
    json_t *index; /* key → place in `list` */
    struct latest *list;
    size_t count, capacity;
};

static void take(struct table *table, const struct reader_record *read)
{
    char *key = strndup(read->key.data, read->key.size);
    json_t *place = json_object_get(table->index, key);
    size_t i = place != NULL ? (size_t)json_integer_value(place) : table->count;
    if (place == NULL) {
        if (table->count == table->capacity) {
            table->capacity = table->capacity == 0 ? 64 : table->capacity * 2;
            table->list = reallocarray(table->list, table->capacity, sizeof(table->list[0]));
            if (table->list == NULL)
                abort();
        }
        table->list[table->count++] = (struct latest){.value = STR_NONE};
        json_object_set_new(table->index, key, json_integer((json_int_t)i));
    }
    free(key);
    assert(table->list != NULL && i < table->count);
    struct latest *latest = &table->list[i];
    free((char *)latest->value.data);
    *latest = (struct latest){.value = STR_NONE, .partition = read->partition, .offset = read->offset};
    if (read->value.data != NULL) {
        char *copy = malloc(read->value.size + 1);
        if (copy == NULL)
            abort();
        memcpy(copy, read->value.data, read->value.size + 1);
        latest->value = (struct str){copy, read->value.size};
    }
}

static void table_free(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free((char *)table->list[i].value.data);
    free(table->list);
    json_decref(table->index);
}

static int by_start(const void *a, const void *b)
{
    int64_t left = ((const struct waiting_run *)a)->row.started_at_ms,
            right = ((const struct waiting_run *)b)->row.started_at_ms;
    return (left > right) - (left < right);
}

static int by_parking(const void *a, const void *b)
{
    int64_t left = ((const struct waiting_step *)a)->parked.parked_at_ms;
    int64_t right = ((const struct waiting_step *)b)->parked.parked_at_ms;
    return (left > right) - (left < right);
}

static void decode(struct cmd *cmd, const struct table *table, struct waiting *waiting)
{
    waiting->runs = ARENA_ARRAY(cmd->arena, table->count + 1, struct waiting_run);
    waiting->steps = ARENA_ARRAY(cmd->arena, table->count + 1, struct waiting_step);
    for (size_t i = 0; i < table->count; i++) {
        const struct latest *latest = &table->list[i];
        struct record record;
        struct error error;
        if (latest->value.data == NULL)
            continue;
        if (!record_decode(latest->value, cmd->arena, &record, &error))
            cmd_warn(cmd, "waiting %d@%" PRId64 " cannot be read and is left out: %s", (int)latest->partition,
                     latest->offset, error.text);
        else if (record.type == RECORD_RUN_ROW)
            waiting->runs[waiting->runs_count++] = (struct waiting_run){record.is.run_row, latest->partition,
                                                                        latest->offset};
        else if (record.type == RECORD_STEP_PARKED)
            waiting->steps[waiting->steps_count++] = (struct waiting_step){record.is.step_parked, latest->partition,
                                                                           latest->offset};
    }
    qsort(waiting->runs, waiting->runs_count, sizeof(waiting->runs[0]), by_start);
    qsort(waiting->steps, waiting->steps_count, sizeof(waiting->steps[0]), by_parking);
}

bool waiting_read(struct cmd *cmd, struct str run, struct waiting *waiting, int *code)
{
    memset(waiting, 0, sizeof(*waiting));
    if (control_get(cmd, code) == NULL)
        return false;
    /* The partition of a run is that of the inbox, and `waiting` has as many. */
    int32_t partition = run.data != NULL ? remote_partition(cmd, "inbox", run, code) : -1;
    if ((run.data != NULL && partition < 0) || !remote_start(cmd, "waiting", partition, READER_FROM_START, code))
        return false;
    struct table table = {.index = json_object()};
    struct reader_record read;
    enum reader_got got;
    while ((got = remote_next(cmd, cmd_timeout(cmd, READ_TIMEOUT_MS), &read, code)) == READER_RECORD)
        if (read.key.data != NULL)
            take(&table, &read);
    if (got == READER_END)
        decode(cmd, &table, waiting);
    if (got == READER_TIMEOUT)
        *code = cmd_fail(cmd, CMD_UNAVAILABLE,
                         "the topic waiting could not be read to its end in time: is Kafka well?");
    table_free(&table);
    return got == READER_END;
}

const struct waiting_run *waiting_find(const struct waiting *waiting, struct str run)
{
    for (size_t i = 0; i < waiting->runs_count; i++)
        if (str_equal(waiting->runs[i].row.run, run))
            return &waiting->runs[i];
    return NULL;
}

const struct waiting_step *waiting_find_step(const struct waiting *waiting, struct str run, struct str step)
{
    for (size_t i = 0; i < waiting->steps_count; i++) {
        const struct step_parked *parked = &waiting->steps[i].parked;
        if (str_equal(parked->run, run) && (step.data == NULL || str_equal(parked->step, step)))
            return &waiting->steps[i];
    }
    return NULL;
}

struct str waiting_run_id(struct cmd *cmd, const char *text, bool given, int *code)
{
    struct str id = str_of(text);
    *code = CMD_USAGE;
    if (!uuid_is_run_id(id)) {
        cmd_fail(cmd, CMD_USAGE, "\"%s\" is no run id: " UUID_RUN_ID_SAYS, text);
        return STR_NONE;
    }
    if (given || uuid_time_ms(id) >= 0)
        return id;
    struct waiting waiting;
    if (!waiting_read(cmd, STR_NONE, &waiting, code))
        return STR_NONE;
    struct str found = STR_NONE;
    size_t count = 0;
    for (size_t i = 0; i < waiting.runs_count; i++) {
        struct str run = waiting.runs[i].row.run;
        if (str_equal(run, id))
            return run;
        if (run.size > id.size && memcmp(run.data, id.data, id.size) == 0) {
            found = run;
            count++;
        }
    }
    if (count == 1)
        return found;
    *code = CMD_NO_INPUT;
    if (count > 1)
        cmd_fail(cmd, CMD_NO_INPUT, "%zu runs begin with %s: write more of the id; see: myelin runs", count, text);
    else
        cmd_fail(cmd, CMD_NO_INPUT,
                 "no run %s is open or remembered; see: myelin runs. One that ended longer ago than "
                 "ended_keep is still in history: give its whole id, and --since if it is no UUIDv7",
                 text);
    return STR_NONE;
}
