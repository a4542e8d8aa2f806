/*
 * ledger_scripts.h: the Lua scripts of the ledger: each is one atomic step in Redis (5.0 or later).
 *
 * Keys; NAMESPACE in braces, so that in a cluster all of one namespace live in one slot and a script may touch several:
 *
 *   {NAMESPACE}:incarnation   a random value. Gone = this Redis lost its data: the next script writes another one
 *   {NAMESPACE}:w:KEY         a write, hash without TTL: state (reserved | done | not_done), fence, holder, ask, try, until
 *                             (milliseconds of Redis' clock), result
 *   {NAMESPACE}:k:RUN         set without TTL: the names of the run's records of writes, so that they can be deleted
 *   {NAMESPACE}:r:KEY         a read, hash with TTL: holder, slot (leased; the TTL is the lease), or result (the TTL is how
 *                             long it is kept)
 *   {NAMESPACE}:d:KEY         deliveries of a step event, hash with TTL: begun, alone
 *   {NAMESPACE}:slot:N        a claimed slot, hash with TTL: holder
 *   {NAMESPACE}:slots         of which life of Redis these are, hash without TTL: run_id, since (milliseconds of Redis' clock)
 *
 * Fences grow also over a loss of all data: each is at least Redis' time in milliseconds. Fence 0 means that nobody holds the
 * record: it was made because the real one was lost, and an answer that comes after all may still be stored under it.
 *
 * All scripts on writes and leases return {verdict, fence, wait_ms, incarnation, text}; verdict is one of "go", "stored" (text:
 * the result), "doubt" (text: who holds it), "refused", "held". `wait_ms`: until the record's `until`. The count of deliveries
 * comes in the same form: {"go", begun, alone, "", ""}; a slot as {"go", N, 0, "", ""}, or {"held", 0, how long nobody may claim
 * one, "", who has the one asked for}.
 */
#ifndef MYELIN_IO_LEDGER_SCRIPTS_H
#define MYELIN_IO_LEDGER_SCRIPTS_H

enum ledger_script {
    LEDGER_SCRIPT_HELLO,
    LEDGER_SCRIPT_RESERVE,
    LEDGER_SCRIPT_TAKEOVER,
    LEDGER_SCRIPT_COMPLETE,
    LEDGER_SCRIPT_LEASE,
    LEDGER_SCRIPT_RENEW,
    LEDGER_SCRIPT_STORE,
    LEDGER_SCRIPT_RELEASE,
    LEDGER_SCRIPT_COUNT,
    LEDGER_SCRIPT_FORGET,
    LEDGER_SCRIPT_SLOT,
    LEDGER_SCRIPTS_COUNT,
};

const char *ledger_script_text(enum ledger_script script);

#endif
