/* myelin dead list | show PARTITION@OFFSET */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "producer/commands.h"
#include "producer/control.h"
#include "producer/remote.h"
#include "worker/base/units.h"
#include "worker/io/clock.h"

#define READ_TIMEOUT_MS 15000
#define DUMPED_MAX ((size_t)4096)

typedef void dead_found(struct cmd *cmd, void *context, const struct reader_record *read,
                        const struct dead_letter *letter);

/* Calls `found` for each record of `dead` from `from_ms` on. False: said; return *code. */
static bool read_dead(struct cmd *cmd, int32_t partition, int64_t from_ms, dead_found *found, void *context, int *code)
{
    if (control_get(cmd, code) == NULL || !remote_start(cmd, "dead", partition, from_ms, code))
        return false;
    struct reader_record read;
    enum reader_got got;
    struct arena *arena = arena_new(); /* of one record: there may be many, and large ones */
    while ((got = remote_next(cmd, cmd_timeout(cmd, READ_TIMEOUT_MS), &read, code)) == READER_RECORD) {
        struct record record;
        struct error error;
        if (read.value.data == NULL)
            continue;
        arena_reset(arena);
        if (!record_decode(read.value, arena, &record, &error))
            cmd_warn(cmd, "dead %d@%" PRId64 " cannot be read: %s", (int)read.partition, read.offset, error.text);
        else if (record.type == RECORD_DEAD_LETTER)
            found(cmd, context, &read, &record.is.dead_letter);
    }
    arena_free(arena);
    if (got == READER_TIMEOUT)
        *code = cmd_fail(cmd, CMD_UNAVAILABLE, "the topic dead could not be read to its end in time: is Kafka well?");
    return got == READER_END;
}

static json_t *to_json(const struct reader_record *read, const struct dead_letter *letter)
{
    json_t *json = record_json(RECORD_DEAD_LETTER, letter);
    json_object_set_new(json, "partition", json_integer(read->partition));
    json_object_set_new(json, "offset", json_integer((json_int_t)read->offset));
    return json;
}

static const char *source_of(struct cmd *cmd, const struct dead_letter *letter)
{
    return arena_printf(cmd->arena, "%s %d@%" PRId64, cmd_short(cmd, letter->source_topic, 0),
                        (int)letter->source_partition, letter->source_offset)
        .data;
}

static void list_one(struct cmd *cmd, void *context, const struct reader_record *read, const struct dead_letter *letter)
{
    struct cmd_table *table = context;
    const char *cells[] = {arena_printf(cmd->arena, "%d@%" PRId64, (int)read->partition, read->offset).data,
                           cmd_time(cmd, letter->at_ms), source_of(cmd, letter), cmd_short(cmd, letter->run, 40),
                           cmd_short(cmd, letter->reason, 80)};
    cmd_table_row(table, cells);
    if (cmd->json) {
        json_t *json = to_json(read, letter);
        json_object_del(json, "key"); /* the bytes are what `dead show` is for */
        json_object_del(json, "value");
        cmd_json(cmd, json);
    }
}

int cmd_dead_list(struct cmd *cmd)
{
    static const char *const head[] = {"DEAD", "SINCE", "SOURCE", "RUN", "REASON"};
    int code;
    int64_t span_ms = 0;
    const char *since = NULL;
    const struct cmd_option options[] = {{"since", "DURATION", &since, NULL, "only the youngest, for example 24h"}};
    const struct cmd_syntax syntax = {
        .options = options,
        .options_count = 1,
        .help =
            "Lists the records that could not be processed: where they came from and why. Nothing is lost: each has its bytes.\n\n"
            "  myelin dead list --since 24h\n"
            "  myelin dead show 0@17",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    if (since != NULL && !units_duration(str_of(since), &span_ms))
        return cmd_fail(cmd, CMD_USAGE, "--since is \"%s\", must be " UNITS_DURATION_SAYS, since);
    struct cmd_table table;
    cmd_table_start(&table, cmd, head, sizeof(head) / sizeof(head[0]));
    int64_t from_ms = since != NULL ? clock_wall_ms() - span_ms : READER_FROM_START;
    if (!read_dead(cmd, -1, from_ms, list_one, &table, &code))
        return code;
    if (table.rows > 1)
        cmd_table_print(&table);
    else
        cmd_say(cmd, "nothing is dead");
    return CMD_OK;
}

/* ---- one of them ---- */

struct wanted {
    int64_t offset;
    bool found;
};

static void dump(struct cmd *cmd, struct str bytes)
{
    size_t shown = bytes.size < DUMPED_MAX ? bytes.size : DUMPED_MAX;
    for (size_t at = 0; at < shown; at += 16) {
        char hex[16 * 3 + 1] = "", text[17] = "";
        for (size_t i = 0; i < 16 && at + i < shown; i++) {
            unsigned char byte = (unsigned char)bytes.data[at + i];
            static const char *const digits = "0123456789abcdef";
            hex[3 * i] = digits[byte >> 4];
            hex[3 * i + 1] = digits[byte & 15];
            hex[3 * i + 2] = ' ';
            text[i] = byte >= 0x20 && byte < 0x7F ? (char)byte : '.';
        }
        cmd_say(cmd, "  %06zx  %-48s %s", at, hex, text);
    }
    if (shown < bytes.size)
        cmd_say(cmd, "  ... %zu bytes in all; all of them: --json", bytes.size);
}

static void show_one(struct cmd *cmd, void *context, const struct reader_record *read, const struct dead_letter *letter)
{
    struct wanted *wanted = context;
    if (read->offset != wanted->offset)
        return;
    wanted->found = true;
    if (cmd->json) {
        cmd_json(cmd, to_json(read, letter));
        return;
    }
    cmd_say(cmd, "reason  %s", cmd_painted(cmd, CMD_RED, cmd_short(cmd, letter->reason, 0)));
    cmd_say(cmd, "source  %s", source_of(cmd, letter));
    cmd_say(cmd, "since   %s, put aside by worker %s", cmd_time(cmd, letter->at_ms), cmd_short(cmd, letter->worker, 0));
    if (letter->run.size > 0)
        cmd_say(cmd, "run     %s", cmd_short(cmd, letter->run, 0));
    cmd_say(cmd, "key     %zu bytes", letter->key.size);
    dump(cmd, letter->key);
    struct record record;
    struct error error;
    bool readable = record_decode(letter->value, cmd->arena, &record, &error);
    cmd_say(cmd, "value   %zu bytes, %s", letter->value.size,
            readable ? arena_printf(cmd->arena, "a whole %s", record_name(record.type)).data : error.text);
    dump(cmd, letter->value);
}

int cmd_dead_show(struct cmd *cmd)
{
    int code;
    const struct cmd_syntax syntax = {
        .arguments_min = 1,
        .arguments_max = 1,
        .help =
            "Shows a record that could not be processed, with its bytes. PARTITION@OFFSET is as `dead list` prints it.\n\n"
            "  myelin dead show 0@17\n"
            "  myelin dead show 0@17 --json | jq -r .reason",
    };
    if (!cmd_parse(cmd, &syntax, &code))
        return code;
    char *end = NULL;
    long partition = strtol(cmd->arguments[0], &end, 10);
    struct wanted wanted = {.offset = *end == '@' ? strtoll(end + 1, &end, 10) : -1};
    if (*end != '\0' || partition < 0 || partition > INT32_MAX || wanted.offset < 0)
        return cmd_fail(cmd, CMD_USAGE, "\"%s\" is not PARTITION@OFFSET, for example 0@17", cmd->arguments[0]);
    if (!read_dead(cmd, (int32_t)partition, READER_FROM_START, show_one, &wanted, &code))
        return code;
    return wanted.found
               ? CMD_OK
               : cmd_fail(cmd, CMD_NO_INPUT, "there is no dead record %s; see: myelin dead list", cmd->arguments[0]);
}
