#include "worker/io/ledger_scripts.h"

#include <assert.h>

/* clang-format off */

/* Redis' time, and numbers as text without an exponent. */
#define CLOCK                                                                                                \
    "local t = redis.call('TIME')\n"                                                                         \
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"                                                    \
    "local function text(number) return string.format('%.0f', number) end\n"

/* The value beside the keys. ARGV[1] is a random value for the case that it is gone: whoever notices first writes it. */
#define INCARNATION(key)                                                                                     \
    "local incarnation = redis.call('GET', " key ")\n"                                                       \
    "if not incarnation then\n"                                                                              \
    "    incarnation = ARGV[1]\n"                                                                            \
    "    redis.call('SET', " key ", incarnation)\n"                                                          \
    "end\n"

/* The record of a write. ARGV: 1 random, 2 holder, 3 ask, 4 try, 5 hold_ms.
 *
 * `ask` names one question of one process, `try` counts how often it had to be put because the answer was lost with the
 * connection. A record that carries our ask and an earlier try was given to us, but we never heard of it: nobody acted. */
#define RECORD                                                                                               \
    "local record = redis.call('HMGET', KEYS[1], 'state', 'fence', 'until', 'holder', 'ask', 'try', 'result')\n" \
    "local state, fence, ends = record[1], tonumber(record[2] or 0), tonumber(record[3] or 0)\n"             \
    "local unheard = record[5] == ARGV[3] and tonumber(record[6] or 0) < tonumber(ARGV[4])\n"                \
    "local hold_ms = tonumber(ARGV[5])\n"                                                                    \
    "local function hold(new_fence, holder, ask)\n"                                                          \
    "    redis.call('HSET', KEYS[1], 'state', 'reserved', 'fence', text(new_fence), 'holder', holder,\n"     \
    "               'ask', ask, 'try', ARGV[4], 'until', text(now + hold_ms))\n"                             \
    "    redis.call('HDEL', KEYS[1], 'result')\n"                                                            \
    "    redis.call('SADD', KEYS[3], KEYS[1])\n"                                                             \
    "end\n"                                                                                                  \
    "if state == 'done' then\n"                                                                              \
    "    return {'stored', fence, 0, incarnation, record[7] or ''}\n"                                        \
    "end\n"

#define GIVE                                                                                                 \
    "local new_fence = math.max(fence + 1, now)\n"                                                           \
    "hold(new_fence, ARGV[2], ARGV[3])\n"                                                                    \
    "return {'go', new_fence, hold_ms, incarnation, ''}\n"

static const char hello[] =
    INCARNATION("KEYS[1]")
    "return incarnation\n";

/* ARGV: 6 the incarnation that the event knew, when somebody may have started the call before us; '' = surely nobody. ▲ What another
 * life of Redis says may be older than what was done since: a whole time must pass, whatever the record says but `done`. */
static const char reserve[] =
    CLOCK INCARNATION("KEYS[2]") RECORD
    "if ARGV[6] ~= '' and ARGV[6] ~= incarnation then\n"
    "    hold(fence, '', '')\n"
    "    return {'doubt', fence, hold_ms, incarnation, ''}\n"
    "end\n"
    "if state == 'reserved' and not unheard then\n"
    "    return {'doubt', fence, math.max(ends - now, 0), incarnation, record[4] or ''}\n"
    "end\n"
    GIVE;

static const char takeover[] =
    CLOCK INCARNATION("KEYS[2]") RECORD
    "if not state then\n"
    "    hold(0, '', '')\n"
    "    return {'doubt', 0, hold_ms, incarnation, ''}\n"
    "end\n"
    "if state == 'reserved' and now < ends and not unheard then\n"
    "    return {'doubt', fence, ends - now, incarnation, record[4] or ''}\n"
    "end\n"
    GIVE;

/* ARGV: 1 random, 2 fence, 3 holder, 4 'done' or 'not_done', 5 result. Again with the same fence: again 'go'. */
static const char complete[] =
    INCARNATION("KEYS[2]")
    "local record = redis.call('HMGET', KEYS[1], 'state', 'fence')\n"
    "if record[1] and tonumber(record[2] or 0) > tonumber(ARGV[2]) then\n"
    "    return {'refused', tonumber(record[2]), 0, incarnation, ''}\n"
    "end\n"
    "if record[1] ~= 'done' then\n"
    "    redis.call('HSET', KEYS[1], 'state', ARGV[4], 'fence', ARGV[2], 'holder', ARGV[3])\n"
    "    redis.call('HDEL', KEYS[1], 'until', 'ask', 'try', 'result')\n"
    "    redis.call('SADD', KEYS[3], KEYS[1])\n"
    "    if ARGV[4] == 'done' then redis.call('HSET', KEYS[1], 'result', ARGV[5]) end\n"
    "end\n"
    "return {'go', tonumber(ARGV[2]), 0, incarnation, ''}\n";

/* ARGV: 1 holder, 2 slot, 3 lease_ms. The same slot with another holder is the process that ran in our place before. */
static const char lease[] =
    "local record = redis.call('HMGET', KEYS[1], 'holder', 'slot', 'result')\n"
    "if record[3] then return {'stored', 0, 0, '', record[3]} end\n"
    "if not record[1] or (record[2] == ARGV[2] and record[1] ~= ARGV[1]) then\n"
    "    redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'slot', ARGV[2])\n"
    "    redis.call('PEXPIRE', KEYS[1], ARGV[3])\n"
    "    return {'go', 0, 0, '', ''}\n"
    "end\n"
    "return {'held', 0, redis.call('PTTL', KEYS[1]), '', record[1]}\n";

/* All leases of a process at once; one that vanished is written again. ARGV as of lease. */
static const char renew[] =
    "for _, key in ipairs(KEYS) do\n"
    "    local record = redis.call('HMGET', key, 'holder', 'result')\n"
    "    if not record[1] and not record[2] then\n"
    "        redis.call('HSET', key, 'holder', ARGV[1], 'slot', ARGV[2])\n"
    "        redis.call('PEXPIRE', key, ARGV[3])\n"
    "    elseif record[1] == ARGV[1] then\n"
    "        redis.call('PEXPIRE', key, ARGV[3])\n"
    "    end\n"
    "end\n"
    "return #KEYS\n";

/* ARGV: 1 result, 2 keep_ms. The first result stays: somebody may have gone on with it. */
static const char store[] =
    "if redis.call('HEXISTS', KEYS[1], 'result') == 0 then\n"
    "    redis.call('DEL', KEYS[1])\n"
    "    redis.call('HSET', KEYS[1], 'result', ARGV[1])\n"
    "    redis.call('PEXPIRE', KEYS[1], ARGV[2])\n"
    "end\n"
    "return 1\n";

/* ARGV: 1 holder. */
static const char release[] =
    "if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('DEL', KEYS[1]) end\n"
    "return 1\n";

/* KEYS: the run's set. All of them lie in one slot of a cluster, by the namespace in braces. ARGV: 1 milliseconds of Redis' clock,
 * as fences are: a record from later belongs to another run of the same id, which whoever asks does not know of. */
static const char forget[] =
    "local gone = 0\n"
    "for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do\n"
    "    local record = redis.call('HMGET', key, 'fence', 'until')\n"
    "    if tonumber(record[1] or 0) < tonumber(ARGV[1]) and tonumber(record[2] or 0) < tonumber(ARGV[1]) then\n"
    "        gone = gone + redis.call('DEL', key)\n"
    "        redis.call('SREM', KEYS[1], key)\n"
    "    end\n"
    "end\n"
    "return {'go', gone, 0, '', ''}\n";

/* ARGV: 1 and 2 what is added to `begun` and to `alone`, 3 keep_ms. Nothing is kept of what is taken back. */
static const char count[] =
    "local begun = redis.call('HINCRBY', KEYS[1], 'begun', ARGV[1])\n"
    "local alone = redis.call('HINCRBY', KEYS[1], 'alone', ARGV[2])\n"
    "if begun == 0 and alone == 0 then redis.call('DEL', KEYS[1])\n"
    "else redis.call('PEXPIRE', KEYS[1], ARGV[3]) end\n"
    "return {'go', begun, alone, '', ''}\n";

/* KEYS: 1 the life, 2 what the slots' names begin with. ARGV: 1 run_id, 2 holder, 3 keep_ms, 4 the slot that the holder has, 0 =
 * none yet, 5 how many slots there are, 6 how long nobody claims one in a new life.
 *
 * A life without its mark is new: the keys are gone, or the server is another one, whose keys may be old. Those who live and have
 * a slot keep it, whatever is missing here; those who have none wait until each of them has been here. */
static const char slot[] =
    CLOCK
    "local life = redis.call('HMGET', KEYS[1], 'run_id', 'since')\n"
    "local since = tonumber(life[2] or 0)\n"
    "if life[1] ~= ARGV[1] or since > now then\n"
    "    since = now\n"
    "    redis.call('HSET', KEYS[1], 'run_id', ARGV[1], 'since', text(now))\n"
    "end\n"
    "local own, wait_ms, holder = tonumber(ARGV[4]), since + ARGV[6] - now, nil\n"
    "if own == 0 and wait_ms > 0 then return {'held', 0, wait_ms, '', ''} end\n"
    "for number = math.max(own, 1), own > 0 and own or tonumber(ARGV[5]) do\n"
    "    local key = KEYS[2] .. number\n"
    "    holder = redis.call('HGET', key, 'holder')\n"
    "    if not holder or holder == ARGV[2] then\n"
    "        redis.call('HSET', key, 'holder', ARGV[2])\n"
    "        redis.call('PEXPIRE', key, ARGV[3])\n"
    "        return {'go', number, 0, '', ''}\n"
    "    end\n"
    "end\n"
    "return {'held', 0, 0, '', holder}\n";

/* clang-format on */

const char *ledger_script_text(enum ledger_script script)
{
    static const char *const texts[LEDGER_SCRIPTS_COUNT] = {
        [LEDGER_SCRIPT_HELLO] = hello,       [LEDGER_SCRIPT_RESERVE] = reserve, [LEDGER_SCRIPT_TAKEOVER] = takeover,
        [LEDGER_SCRIPT_COMPLETE] = complete, [LEDGER_SCRIPT_LEASE] = lease,     [LEDGER_SCRIPT_RENEW] = renew,
        [LEDGER_SCRIPT_STORE] = store,       [LEDGER_SCRIPT_RELEASE] = release, [LEDGER_SCRIPT_COUNT] = count,
        [LEDGER_SCRIPT_FORGET] = forget,     [LEDGER_SCRIPT_SLOT] = slot,
    };

    assert(script < LEDGER_SCRIPTS_COUNT);
    return texts[script];
}
