/*
 * Which member of which struct is which field of which schema: one line a field, in the order of schemas/NAME.avsc. At
 * start record_open compares every line with the schema.
 */
#include "worker/record_tables.h"

#include <stddef.h>

#include "worker/contract/contract.h"

/* Enums are read and written as 32-bit numbers. */
_Static_assert(sizeof(enum run_status) == sizeof(int32_t) && sizeof(enum fact_kind) == sizeof(int32_t),
               "enums are 32 bits");

#define FIELD(field_name, field_kind, type, member)                                                                    \
    .name = (field_name), .kind = (field_kind), .offset = offsetof(struct type, member)
#define BOOL(type, member)                                                                                             \
    {                                                                                                                  \
        FIELD(#member, CODEC_BOOL, type, member)                                                                       \
    }
#define INT(type, member)                                                                                              \
    {                                                                                                                  \
        FIELD(#member, CODEC_INT, type, member)                                                                        \
    }
#define LONG(type, member)                                                                                             \
    {                                                                                                                  \
        FIELD(#member, CODEC_LONG, type, member)                                                                       \
    }
#define TEXT(type, member)                                                                                             \
    {                                                                                                                  \
        FIELD(#member, CODEC_TEXT, type, member)                                                                       \
    }
#define TEXT_NULL(type, member)                                                                                        \
    {                                                                                                                  \
        FIELD(#member, CODEC_TEXT_NULL, type, member)                                                                  \
    }
#define BYTES(type, member)                                                                                            \
    {                                                                                                                  \
        FIELD(#member, CODEC_BYTES, type, member)                                                                      \
    }
#define BYTES_NULL(type, member)                                                                                       \
    {                                                                                                                  \
        FIELD(#member, CODEC_BYTES_NULL, type, member)                                                                 \
    }
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ENUM(type, member, names)                                                                                      \
    {                                                                                                                  \
        FIELD(#member, CODEC_ENUM, type, member), .symbols = (names), .count = COUNT(names)                            \
    }
#define STRUCT(type, member, table)                                                                                    \
    {                                                                                                                  \
        FIELD(#member, CODEC_STRUCT, type, member), .nested = &(table)                                                 \
    }
#define STRUCT_NULL(type, member, table)                                                                               \
    {                                                                                                                  \
        FIELD(#member, CODEC_STRUCT_NULL, type, member), .nested = &(table)                                            \
    }
#define ARRAY(type, member, table)                                                                                     \
    {                                                                                                                  \
        FIELD(#member, CODEC_ARRAY, type, member), .nested = &(table),                                                 \
                                                   .beside_offset = offsetof(struct type, member##_count)              \
    }

#define TABLE(variable, record_name, type)                                                                             \
    static const struct codec_struct variable##_table = {.name = (record_name),                                        \
                                                         .size = sizeof(struct type),                                  \
                                                         .fields = variable##_fields,                                  \
                                                         .fields_count = COUNT(variable##_fields)}

static const char *const run_statuses[] = {
    [RUN_RUNNING] = "running",     [RUN_WAITING] = "waiting", [RUN_PAUSED] = "paused",
    [RUN_COMPLETED] = "completed", [RUN_FAILED] = "failed",   [RUN_CANCELLED] = "cancelled",
};
static const char *const step_statuses[] = {
    [STEP_PENDING] = "pending",     [STEP_RUNNING] = "running", [STEP_WAITING] = "waiting",
    [STEP_COMPLETED] = "completed", [STEP_FAILED] = "failed",   [STEP_REFUSED] = "refused",
    [STEP_IN_DOUBT] = "in_doubt",
};
static const char *const message_roles[] = {[ROLE_USER] = "user", [ROLE_ASSISTANT] = "assistant", [ROLE_TOOL] = "tool"};
static const char *const answer_kinds[] = {
    [ANSWER_DONE] = "done",
    [ANSWER_REFUSED] = "refused",
    [ANSWER_FAILED] = "failed",
};
static const char *const doubt_states[] = {
    [DOUBT_NONE] = "none", [DOUBT_SETTLING] = "settling", [DOUBT_ASKED] = "asked"};
static const char *const resolution_kinds[] = {
    [RESOLUTION_NONE] = "none",
    [RESOLUTION_DONE] = "done",
    [RESOLUTION_NOT_DONE] = "not_done",
    [RESOLUTION_FAIL] = "fail",
};
static const char *const waits_fors[] = {
    [WAITS_TIMER] = "timer",
    [WAITS_APPROVAL] = "approval",
    [WAITS_RESOLUTION] = "resolution",
};
static const char *const timeout_actions[] = {[TIMEOUT_PAUSE] = "pause", [TIMEOUT_REJECT] = "reject"};
static const char *const call_origins[] = {
    [ORIGIN_CALLED] = "called", [ORIGIN_REUSED] = "reused",     [ORIGIN_ADOPTED] = "adopted",
    [ORIGIN_PROBED] = "probed", [ORIGIN_RESOLVED] = "resolved",
};

/* One line a field. */
/* clang-format off */

/* ---- parts of StepReady and Fact ---- */

static const struct codec_field tool_request_fields[] = {
    TEXT(tool_request, id),
    TEXT(tool_request, tool),
    TEXT(tool_request, arguments),
};
TABLE(tool_request, "ToolRequest", tool_request);

static const struct codec_field usage_fields[] = {
    INT(usage, steps),
    INT(usage, model_calls),
    INT(usage, tool_calls),
    INT(usage, writes),
    INT(usage, retries),
    INT(usage, refusals),
    LONG(usage, tokens_in),
    LONG(usage, tokens_out),
    INT(usage, tokens_unknown),
    LONG(usage, micro_usd),
};
TABLE(usage, "Usage", usage);

static const struct codec_field reference_fields[] = {
    BYTES(reference, sha256),
    INT(reference, partition),
    LONG(reference, offset),
    INT(reference, size),
};
TABLE(reference, "Reference", reference);

static const struct codec_field step_state_fields[] = {
    TEXT(step_state, name),
    ENUM(step_state, status, step_statuses),
    INT(step_state, visits),
    TEXT_NULL(step_state, output),
    STRUCT_NULL(step_state, output_at, reference_table),
};
TABLE(step_state, "StepState", step_state);

static const struct codec_field approval_fields[] = {
    TEXT(approval, step),
    INT(approval, visit),
    TEXT_NULL(approval, guards),
    INT(approval, guards_visit),
    BOOL(approval, approved),
    BOOL(approval, timed_out),
    TEXT_NULL(approval, by),
    TEXT_NULL(approval, reason),
    TEXT_NULL(approval, args_hash),
    LONG(approval, decided_at_ms),
    BOOL(approval, spent),
};
TABLE(approval, "Approval", approval);

static const struct codec_field message_fields[] = {
    ENUM(message, role, message_roles),
    TEXT_NULL(message, content),
    ARRAY(message, calls, tool_request_table),
    TEXT_NULL(message, call_id),
    ENUM(message, answer, answer_kinds),
};
TABLE(message, "Message", message);

static const struct codec_field link_fields[] = {
    STRUCT_NULL(link, before, reference_table),
    ARRAY(link, messages, message_table),
    BOOL(link, own),
};
TABLE(link, "Link", link);

static const struct codec_field doubt_fields[] = {
    ENUM(doubt, state, doubt_states),
    LONG(doubt, since_ms),
    LONG(doubt, until_ms),
    INT(doubt, probes),
    TEXT_NULL(doubt, arguments),
    TEXT_NULL(doubt, why),
};
TABLE(doubt, "Doubt", doubt);

static const struct codec_field resolution_fields[] = {
    ENUM(resolution, kind, resolution_kinds),
    TEXT_NULL(resolution, result),
    TEXT_NULL(resolution, by),
};
TABLE(resolution, "Resolution", resolution);

static const struct codec_field cursor_fields[] = {
    TEXT(cursor, branch),
    TEXT(cursor, step),
    INT(cursor, visit),
    INT(cursor, attempt),
    INT(cursor, turn),
    INT(cursor, call),
    ARRAY(cursor, conversation, message_table),
    INT(cursor, judging),
    TEXT_NULL(cursor, candidate),
    STRUCT(cursor, doubt, doubt_table),
    STRUCT(cursor, resolution, resolution_table),
    BOOL(cursor, suspect),
    STRUCT_NULL(cursor, chain, reference_table),
    INT(cursor, chained),
};
TABLE(cursor, "Cursor", cursor);

static const struct codec_field step_ready_fields[] = {
    {FIELD("run", CODEC_TEXT, run, id)},
    TEXT(run, contract),
    TEXT(run, contract_hash),
    TEXT_NULL(run, requested_by),
    LONG(run, started_at_ms),
    LONG(run, deadline_at_ms),
    TEXT_NULL(run, input),
    TEXT_NULL(run, vars),
    ARRAY(run, steps, step_state_table),
    ARRAY(run, approvals, approval_table),
    STRUCT(run, usage, usage_table),
    LONG(run, facts),
    INT(run, violations),
    STRUCT(run, at, cursor_table),
    TEXT_NULL(run, incarnation),
    LONG(run, written_at_ms),
    STRUCT_NULL(run, input_at, reference_table),
};
TABLE(step_ready, "StepReady", run);

/* ---- Fact: the bodies, then the record ---- */

static const struct codec_field run_started_fields[] = {
    TEXT(fact_run_started, contract),
    TEXT_NULL(fact_run_started, requested_by),
    TEXT_NULL(fact_run_started, goal),
    TEXT_NULL(fact_run_started, input),
    LONG(fact_run_started, deadline_at_ms),
};
static const struct codec_field model_answered_fields[] = {
    TEXT_NULL(fact_model_answered, agent),
    TEXT(fact_model_answered, model),
    TEXT_NULL(fact_model_answered, response_model),
    BOOL(fact_model_answered, judge),
    TEXT_NULL(fact_model_answered, content),
    ARRAY(fact_model_answered, calls, tool_request_table),
    TEXT_NULL(fact_model_answered, finish_reason),
    LONG(fact_model_answered, tokens_in),
    LONG(fact_model_answered, tokens_out),
    LONG(fact_model_answered, tokens_cached),
    LONG(fact_model_answered, micro_usd),
    LONG(fact_model_answered, duration_ms),
    ENUM(fact_model_answered, origin, call_origins),
    TEXT_NULL(fact_model_answered, key),
};
static const struct codec_field tool_answered_fields[] = {
    TEXT(fact_tool_answered, tool),
    TEXT(fact_tool_answered, effect),
    TEXT_NULL(fact_tool_answered, key),
    TEXT_NULL(fact_tool_answered, arguments),
    TEXT_NULL(fact_tool_answered, result),
    INT(fact_tool_answered, http_status),
    LONG(fact_tool_answered, duration_ms),
    ENUM(fact_tool_answered, origin, call_origins),
    TEXT_NULL(fact_tool_answered, approval),
    TEXT_NULL(fact_tool_answered, args_hash),
};
static const struct codec_field call_failed_fields[] = {
    TEXT(fact_call_failed, target),
    TEXT_NULL(fact_call_failed, key),
    TEXT_NULL(fact_call_failed, reason),
    INT(fact_call_failed, http_status),
    BOOL(fact_call_failed, executed_surely_not),
    BOOL(fact_call_failed, retry),
    LONG(fact_call_failed, due_at_ms),
};
static const struct codec_field call_refused_fields[] = {
    TEXT(fact_call_refused, tool),
    TEXT_NULL(fact_call_refused, arguments),
    BOOL(fact_call_refused, arguments_valid),
    TEXT(fact_call_refused, rule),
    TEXT_NULL(fact_call_refused, reason),
};
static const struct codec_field output_rejected_fields[] = {
    TEXT_NULL(fact_output_rejected, output),
    TEXT(fact_output_rejected, rule),
    TEXT_NULL(fact_output_rejected, reason),
    BOOL(fact_output_rejected, retry),
};
static const struct codec_field criterion_checked_fields[] = {
    TEXT(fact_criterion_checked, says),
    TEXT_NULL(fact_criterion_checked, judge),
    BOOL(fact_criterion_checked, holds),
    TEXT_NULL(fact_criterion_checked, reason),
};
static const struct codec_field in_doubt_fields[] = {
    TEXT(fact_in_doubt, tool),
    TEXT(fact_in_doubt, key),
    TEXT_NULL(fact_in_doubt, arguments),
    TEXT_NULL(fact_in_doubt, reason),
    TEXT(fact_in_doubt, policy),
    LONG(fact_in_doubt, until_ms),
};
static const struct codec_field doubt_settled_fields[] = {
    TEXT(fact_doubt_settled, tool),
    TEXT(fact_doubt_settled, key),
    TEXT(fact_doubt_settled, how),
    TEXT(fact_doubt_settled, outcome),
    TEXT_NULL(fact_doubt_settled, by),
};
static const struct codec_field step_waiting_fields[] = {
    TEXT(fact_step_waiting, waits_for),
    TEXT_NULL(fact_step_waiting, reason),
    LONG(fact_step_waiting, due_at_ms),
    TEXT_NULL(fact_step_waiting, guards),
    TEXT_NULL(fact_step_waiting, tool),
    TEXT_NULL(fact_step_waiting, arguments),
    TEXT_NULL(fact_step_waiting, args_hash),
    TEXT_NULL(fact_step_waiting, key),
    BOOL(fact_step_waiting, planned),
};
static const struct codec_field approval_decided_fields[] = {
    TEXT(fact_approval_decided, decision),
    TEXT_NULL(fact_approval_decided, guards),
    TEXT_NULL(fact_approval_decided, by),
    TEXT_NULL(fact_approval_decided, reason),
    TEXT_NULL(fact_approval_decided, args_hash),
    BOOL(fact_approval_decided, timed_out),
};
static const struct codec_field step_completed_fields[] = {
    TEXT_NULL(fact_step_completed, output),
    TEXT_NULL(fact_step_completed, edge),
    TEXT_NULL(fact_step_completed, target),
    TEXT_NULL(fact_step_completed, artifact),
    TEXT_NULL(fact_step_completed, vars),
};
static const struct codec_field step_failed_fields[] = {
    TEXT_NULL(fact_step_failed, reason),
    TEXT_NULL(fact_step_failed, edge),
    TEXT_NULL(fact_step_failed, target),
    BOOL(fact_step_failed, refused),
};
static const struct codec_field run_ended_fields[] = {
    ENUM(fact_run_ended, status, run_statuses),
    TEXT_NULL(fact_run_ended, reason),
    TEXT_NULL(fact_run_ended, output),
    STRUCT(fact_run_ended, usage, usage_table),
};
static const struct codec_field request_answered_fields[] = {
    TEXT(fact_request_answered, request_id),
    TEXT(fact_request_answered, request),
    BOOL(fact_request_answered, accepted),
    TEXT_NULL(fact_request_answered, reason),
};

#define BODY(constant, record_name, variable)                                                                          \
    [constant] = {.name = (record_name),                                                                               \
                  .size = sizeof(struct fact_##variable),                                                              \
                  .fields = variable##_fields,                                                                         \
                  .fields_count = COUNT(variable##_fields)}

static const struct codec_struct bodies[] = {
    BODY(FACT_RUN_STARTED, "RunStarted", run_started),
    BODY(FACT_MODEL_ANSWERED, "ModelAnswered", model_answered),
    BODY(FACT_TOOL_ANSWERED, "ToolAnswered", tool_answered),
    BODY(FACT_CALL_FAILED, "CallFailed", call_failed),
    BODY(FACT_CALL_REFUSED, "CallRefused", call_refused),
    BODY(FACT_OUTPUT_REJECTED, "OutputRejected", output_rejected),
    BODY(FACT_CRITERION_CHECKED, "CriterionChecked", criterion_checked),
    BODY(FACT_IN_DOUBT, "InDoubt", in_doubt),
    BODY(FACT_DOUBT_SETTLED, "DoubtSettled", doubt_settled),
    BODY(FACT_STEP_WAITING, "StepWaiting", step_waiting),
    BODY(FACT_APPROVAL_DECIDED, "ApprovalDecided", approval_decided),
    BODY(FACT_STEP_COMPLETED, "StepCompleted", step_completed),
    BODY(FACT_STEP_FAILED, "StepFailed", step_failed),
    BODY(FACT_RUN_ENDED, "RunEnded", run_ended),
    BODY(FACT_REQUEST_ANSWERED, "RequestAnswered", request_answered),
};

static const struct codec_field fact_fields[] = {
    TEXT(fact, run),
    TEXT_NULL(fact, contract_hash),
    LONG(fact, seq),
    LONG(fact, at_ms),
    TEXT(fact, branch),
    TEXT(fact, step),
    INT(fact, visit),
    INT(fact, attempt),
    INT(fact, turn),
    INT(fact, call),
    TEXT_NULL(fact, worker),
    TEXT_NULL(fact, source_topic),
    INT(fact, source_partition),
    LONG(fact, source_offset),
    {FIELD("body", CODEC_ONE_OF, fact, is),
     .beside_offset = offsetof(struct fact, kind), .nested = bodies, .count = COUNT(bodies)},
    STRUCT_NULL(fact, link, link_table),
};
TABLE(fact, "Fact", fact);

/* ---- inbox, waiting, control, dead ---- */

static const struct codec_field run_requested_fields[] = {
    TEXT(run_requested, run),
    TEXT(run_requested, request_id),
    TEXT(run_requested, contract),
    TEXT_NULL(run_requested, contract_hash),
    TEXT_NULL(run_requested, input),
    TEXT_NULL(run_requested, by),
    LONG(run_requested, at_ms),
};
TABLE(run_requested, "RunRequested", run_requested);

static const struct codec_field step_parked_fields[] = {
    TEXT(step_parked, run),
    TEXT(step_parked, branch),
    TEXT(step_parked, step),
    INT(step_parked, visit),
    ENUM(step_parked, waits_for, waits_fors),
    TEXT_NULL(step_parked, reason),
    LONG(step_parked, parked_at_ms),
    LONG(step_parked, due_at_ms),
    LONG(step_parked, run_deadline_at_ms),
    ENUM(step_parked, timeout_action, timeout_actions),
    TEXT_NULL(step_parked, guards),
    TEXT_NULL(step_parked, tool),
    TEXT_NULL(step_parked, arguments),
    TEXT_NULL(step_parked, args_hash),
    TEXT_NULL(step_parked, key),
    TEXT(step_parked, contract),
    TEXT(step_parked, contract_hash),
    BYTES(step_parked, event),
};
TABLE(step_parked, "StepParked", step_parked);

static const struct codec_field decision_fields[] = {
    TEXT(decision, run),
    TEXT(decision, request_id),
    TEXT(decision, step),
    INT(decision, visit),
    TEXT_NULL(decision, args_hash),
    BOOL(decision, approved),
    TEXT_NULL(decision, by),
    TEXT_NULL(decision, reason),
    LONG(decision, at_ms),
};
TABLE(decision, "Decision", decision);

static const struct codec_field resolved_fields[] = {
    TEXT(resolved, run),
    TEXT(resolved, request_id),
    TEXT(resolved, step),
    ENUM(resolved, kind, resolution_kinds),
    TEXT_NULL(resolved, result),
    TEXT_NULL(resolved, by),
    LONG(resolved, at_ms),
};
TABLE(resolved, "Resolved", resolved);

static const struct codec_field run_closed_fields[] = {
    TEXT(run_closed, run),
    ENUM(run_closed, status, run_statuses),
    TEXT_NULL(run_closed, reason),
    TEXT_NULL(run_closed, output),
    LONG(run_closed, at_ms),
};
TABLE(run_closed, "RunClosed", run_closed);

static const struct codec_field run_row_fields[] = {
    TEXT(run_row, run),
    TEXT(run_row, contract),
    TEXT(run_row, contract_hash),
    TEXT(run_row, input_hash),
    ENUM(run_row, status, run_statuses),
    TEXT_NULL(run_row, reason),
    TEXT_NULL(run_row, output),
    TEXT_NULL(run_row, requested_by),
    LONG(run_row, started_at_ms),
    LONG(run_row, deadline_at_ms),
    LONG(run_row, ended_at_ms),
};
TABLE(run_row, "RunRow", run_row);

static const struct codec_field contract_published_fields[] = {
    TEXT(contract_published, name),
    TEXT(contract_published, hash),
    TEXT(contract_published, canonical),
    TEXT_NULL(contract_published, by),
    LONG(contract_published, at_ms),
};
TABLE(contract_published, "ContractPublished", contract_published);

static const struct codec_field schema_published_fields[] = {
    TEXT(schema_published, name),
    TEXT(schema_published, text),
};
TABLE(schema_published, "SchemaPublished", schema_published);

static const struct codec_field dead_letter_fields[] = {
    TEXT(dead_letter, reason),
    TEXT(dead_letter, source_topic),
    INT(dead_letter, source_partition),
    LONG(dead_letter, source_offset),
    BYTES_NULL(dead_letter, key),
    BYTES_NULL(dead_letter, value),
    LONG(dead_letter, at_ms),
    TEXT_NULL(dead_letter, worker),
    TEXT_NULL(dead_letter, run),
};
TABLE(dead_letter, "DeadLetter", dead_letter);

/* clang-format on */

const struct codec_struct *const record_tables[RECORD_TYPES_COUNT] = {
#define X(constant, type, member, name) [constant] = &member##_table,
    RECORD_TABLE(X)
#undef X
};
