/* myelin runs */
#include "producer/commands.h"
#include "producer/contracts.h"
#include "producer/waiting.h"
#include "worker/base/units.h"
#include "worker/io/clock.h"

/* "running", "waiting for a person (approve_final_email)", "completed" ... */
static const char *status_of(struct cmd *cmd, const struct run_row *row, const struct step_parked *parked)
{
    if (row->ended_at_ms != 0)
        return cmd_painted(cmd, row->status == RUN_COMPLETED ? CMD_GREEN : CMD_RED, run_status_name(row->status));
    if (parked == NULL)
        return "running";
    const char *step = cmd_short(cmd, parked->step, 40);
    if (parked->waits_for == WAITS_TIMER)
        return arena_printf(cmd->arena, "waits for its time (%s)", step).data;
    return cmd_painted(cmd, CMD_YELLOW,
                       arena_printf(cmd->arena,
                                    parked->waits_for == WAITS_APPROVAL ? "waits for a person (%s)" : "in doubt (%s)",
                                    step)
                           .data);
}

static void list_run(struct cmd *cmd, struct cmd_table *table, const struct waiting *waiting,
                     const struct waiting_run *run)
{
    const struct run_row *row = &run->row;
    const struct waiting_step *waits = waiting_find_step(waiting, row->run, STR_NONE);
    const struct step_parked *parked = waits != NULL ? &waits->parked : NULL;
    int64_t now_ms = clock_wall_ms();
    bool ended = row->ended_at_ms != 0;
    const char *cells[] = {
        cmd_short(cmd, row->run, 0),
        contracts_label(cmd, row->contract, row->contract_hash),
        status_of(cmd, row, parked),
        cmd_time(cmd, row->started_at_ms),
        ended ? arena_printf(cmd->arena, "took %s", cmd_span(cmd, row->ended_at_ms - row->started_at_ms)).data
              : arena_printf(cmd->arena, "for %s", cmd_span(cmd, now_ms - row->started_at_ms)).data,
        ended && row->status != RUN_COMPLETED ? cmd_short(cmd, row->reason, 60) : "",
    };
    cmd_table_row(table, cells);
    cmd_json(cmd, json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s?, s:I, s:I, s:I, s:s?}", "run", row->run.data, "contract",
                            row->contract.data, "contract_hash", row->contract_hash.data, "status",
                            run_status_name(!ended && parked != NULL ? RUN_WAITING : row->status), "waits_for",
                            parked != NULL ? waits_for_name(parked->waits_for) : NULL, "step",
                            parked != NULL ? parked->step.data : NULL, "started_at_ms", (json_int_t)row->started_at_ms,
                            "deadline_at_ms", (json_int_t)row->deadline_at_ms, "ended_at_ms",
                            (json_int_t)row->ended_at_ms, "reason", row->reason.data));
}

int cmd_runs(struct cmd *cmd)
{
    static const char *const head[] = {"RUN", "CONTRACT", "STATUS", "STARTED", "", ""};
    int code;
    bool open = false;
    const struct cmd_option options[] = {{"open", NULL, NULL, &open, "only those that have not ended"}};
    const struct cmd_syntax syntax = {
        .options = options,
        .options_count = 1,
        .help =
            "Lists the open runs, and the ended ones for as long as they are remembered (ended_keep in worker.cfg), the\n"
            "oldest first.\n\n"
            "  myelin runs --open\n"
            "  myelin runs --json | jq -r 'select(.status == \"failed\") | .run'",
    };
    struct waiting waiting;
    if (!cmd_parse(cmd, &syntax, &code) || !waiting_read(cmd, STR_NONE, &waiting, &code))
        return code;
    struct cmd_table table;
    size_t listed = 0;
    cmd_table_start(&table, cmd, head, sizeof(head) / sizeof(head[0]));
    for (size_t i = 0; i < waiting.runs_count; i++) {
        if (open && waiting.runs[i].row.ended_at_ms != 0)
            continue;
        list_run(cmd, &table, &waiting, &waiting.runs[i]);
        listed++;
    }
    if (listed > 0)
        cmd_table_print(&table);
    else
        cmd_say(cmd, open ? "no run is open" : "no runs yet: myelin run CONTRACT --input JSON");
    return CMD_OK;
}
