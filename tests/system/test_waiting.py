"""What waits costs a worker an entry, not a body: bodies are read back from `waiting`, and nothing is lost or done twice by that."""

import collections
import re
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from harness import Space, wait_until
from history import History, decode, encode, produce_all, rebuild
from kafka_proxy import ADD_OFFSETS_TO_TXN, END_TXN, HIDE, PASS, PRODUCE, Proxy, made_up
from test_back_pressure import MIB
from test_log_faults import GROUP_AUTHORIZATION_FAILED, INVALID_TXN_STATE
from test_metrics import get

RUNS = 2000
MEMORY_KIB = 16  # of some four megabytes
MEMORY_MIB = 64
ASKS = """
contract = {
  name = "asks"; goal = "Send what a person approved, or what nobody answered.";
  input = { required = ["to"]; properties = { to = { type = "string"; }; }; };
  limits = { deadline = "2h"; steps = 60; };
  human_checkpoints = ({ step = "approve"; guards = "send"; required = %s; timeout = "%s"; timeout_action = "%s"; });
  boundaries = { allowed_tools = ["send"]; };
  tools = { send = { url = "${TOOLS_URL}/send"; effect = "write"; timeout = "2s"; on_doubt = "retry"; }; };
  start = "approve";
  steps = {
    approve = { approval = true; approved = "send"; rejected = "%s"; };
    send = { tool = "send"; args = "{to: .input.to}"; next = "end"; };
  };
};
"""


@pytest.fixture
def space(tmp_path):
    with Space(tmp_path, partitions=2, settings={"keeper_memory_kib": MEMORY_KIB, "memory_max": f'"{MEMORY_MIB}MiB"', "in_flight_max": 200,
                                                  "settle": '"200ms"'}) as space:
        space.tools = space.double("tool_double", "--honour-keys")
        yield space.create()


def asks(space, required="true", timeout="1h", action="pause", rejected="end"):
    path = space.directory / "asks.cfg"
    path.write_text(ASKS % (required, timeout, action, rejected))
    space.publish(path)
    return "asks"


def number(worker, name):
    return int(float(re.search(rf"(?m)^{re.escape(name)} (\S+)$", get(worker, "/metrics")[1]).group(1)))


def said(worker, event):
    return [line for line in worker.log().splitlines() if f"event={event}" in line]


def start_all(space, name, count=RUNS, size=0):
    """Runs, each with a size of its own, asked for at once."""
    hash = space.json("contract", "list")[0]["hash"]
    runs = [f"run-{i:04d}" for i in range(count)]
    produce_all(space, "inbox", [(run, encode("RunRequested", {
        "run": run, "request_id": run, "contract": name, "contract_hash": hash, "input": f'{{"to": "{run}{"x" * (size + i % 97)}"}}',
        "by": "test", "at_ms": int(time.time() * 1000)})) for i, run in enumerate(runs)])
    return runs


def wait_parked(worker, count=RUNS):
    wait_until(f"{count} runs wait", lambda: number(worker, "myelin_steps_parked") == count, 60, every=0.2)


def restarted(space, worker, slot="a"):
    """All is forgotten but what `waiting` holds: nothing of it was read as a whole."""
    assert worker.terminate() == 0
    worker = space.worker(slot)
    wait_until("both keepers are rebuilt", lambda: worker.log().count("event=keeper.rebuilt") == 2, 30)
    return worker


def decisions(runs):
    return [(run, encode("Decision", {
        "run": run, "request_id": f"yes-{run}", "step": "approve", "visit": 0, "args_hash": None, "approved": True, "by": "me",
        "reason": None, "at_ms": int(time.time() * 1000)})) for run in runs]


def decide_all(space, runs):
    produce_all(space, "inbox", decisions(runs))


def all_ended(space, runs, seconds=120):
    """{run: its facts}, once each run has ended."""
    history, facts = History(space), {run: [] for run in runs}
    open_runs, until = set(runs), time.monotonic() + seconds
    while open_runs and time.monotonic() < until:
        for message in filter(None, [history.poll()]):
            if decode(message.value())[1]["body"][0] == "myelin.RunEnded":
                open_runs.discard(message.key().decode())
    assert not open_runs, f"{len(open_runs)} runs did not end, {min(open_runs)} is one"
    for fact in history.drain(60).facts():
        facts[fact["run"]].append(fact)
    history.close()
    return facts


def all_whole(space, runs):
    """Each run has ended, whole, and sent its e-mail once."""
    states = [rebuild(facts, run) for run, facts in all_ended(space, runs).items()]
    assert {(s["status"], s["gaps"], s["repeats"]) for s in states} == {("completed", 0, 0)}
    assert sorted(line["run"] for line in space.tools.ledger("acted", tool="send")) == sorted(runs)
    assert space.json("dead", "list") == []


def delete_all(space, topic):
    """What Myelin's brokers never do to a compacted topic."""
    name = f"{space.name}.{topic}"
    admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    policy = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    admin.incremental_alter_configs([ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[policy])])[
        ConfigResource(ConfigResource.Type.TOPIC, name)].result(20)

    def deleted():
        ends = [confluent_kafka.TopicPartition(name, p, -1) for p in range(2)]
        return all(done.exception(20) is None for done in admin.delete_records(ends, request_timeout=10).values())

    wait_until(f"{topic} is empty", deleted, 30, every=0.2)


def test_many_wait_for_a_person(space):
    name = asks(space)
    worker = space.worker("a")
    runs = start_all(space, name)
    wait_parked(worker)
    wait_until("bodies are let go of", lambda: number(worker, "myelin_keeper_memory_bytes") <= MEMORY_KIB * 1024)
    decide_all(space, runs[: RUNS // 2])  # where their rows lie is known from when they were written
    wait_parked(worker, RUNS // 2)
    worker = restarted(space, worker)
    wait_parked(worker, RUNS // 2)
    before = number(worker, "myelin_waiting_read_back_total")  # of runs that ended meanwhile
    decide_all(space, runs[::-1])  # for half of them nothing waits any more
    all_whole(space, runs)
    assert number(worker, "myelin_waiting_read_back_total") >= before + RUNS // 2
    before = number(worker, "myelin_waiting_read_back_total")
    start_all(space, name)  # again: each is known by its row, which is read back, and not started again
    wait_until("they were looked at", lambda: number(worker, "myelin_waiting_read_back_total") >= before + RUNS - 100, 60, every=0.2)
    all_whole(space, runs)
    assert said(worker, "waiting.") + said(worker, "readback.") == []


def test_many_come_due_after_a_restart(space):
    name = asks(space, "false", "5s", "reject", "send")
    worker = space.worker("a")
    runs = start_all(space, name)
    wait_until("they wait", lambda: number(worker, "myelin_steps_parked") > RUNS // 2, 60)
    assert worker.terminate() == 0
    worker = space.worker("a")
    all_whole(space, runs)
    assert number(worker, "myelin_waiting_read_back_total") >= RUNS // 2


def test_killed_while_bodies_are_read(space):
    name = asks(space)
    worker = space.worker("a")
    runs = start_all(space, name)
    wait_parked(worker)
    worker = restarted(space, worker)
    decide_all(space, runs)
    for _ in range(3):
        wait_until("some were read", lambda: number(worker, "myelin_waiting_read_back_total") > 100, 60)
        worker.kill()
        worker = space.worker("a")
    all_whole(space, runs)


def test_two_workers_share_them_again(space):
    """Partitions move while bodies are read: what was asked for under another tenure is of no use to anybody."""
    name = asks(space)
    worker = space.worker("a")
    runs = start_all(space, name)
    wait_parked(worker)
    worker = restarted(space, worker)
    other = space.worker("b")
    wait_until("the other has a part", lambda: other.log().count("event=keeper.rebuilt") == 1, 60, every=0.1)
    decide_all(space, runs)
    for one in (worker, other):
        wait_until("some were read", lambda: number(one, "myelin_waiting_read_back_total") > 50, 60)
    assert other.terminate() == 0 and number(worker, "myelin_steps_parked") > 0
    all_whole(space, runs)


def test_what_a_person_said_in_time_counts(space):
    """Bodies are being read back when the time of all passes: whose decision is older, by the broker's clock, is decided by it."""
    name = asks(space, "false", "15s", "reject", "end")
    worker = space.worker("a")
    runs = start_all(space, name)
    wait_parked(worker)
    worker = restarted(space, worker)
    waiting = History(space, "waiting").drain()
    rows = [decode(message.value())[1] for message in waiting.messages if message.value()]
    due_ms = {row["run"]: row["due_at_ms"] for row in rows if "due_at_ms" in row}
    waiting.close()
    assert len(due_ms) == RUNS
    runs.sort(key=due_ms.get, reverse=True)  # who is decided last comes due first
    records = decisions(runs)
    wait_until("the time has nearly come", lambda: time.time() * 1000 > min(due_ms.values()) - 300)
    produce_all(space, "inbox", records)
    ended = all_ended(space, runs)
    inbox = History(space, "inbox").drain()
    decided_ms = {message.key().decode(): message.timestamp()[1] for message in inbox.messages
                  if decode(message.value())[0] == "Decision"}
    inbox.close()
    in_time = {run for run in runs if decided_ms[run] < due_ms[run]}
    assert len(in_time) > RUNS // 10 and set(ended) == set(runs)
    assert {line["run"] for line in space.tools.ledger("acted", tool="send")} == in_time


def test_rows_that_were_written_again(space):
    """▲ An aborted transaction is done again, a doubtful one was executed or not: a row lies where the committed one put it."""
    name, seen = asks(space), collections.Counter()
    fates = {(ADD_OFFSETS_TO_TXN, 1): GROUP_AUTHORIZATION_FAILED, (ADD_OFFSETS_TO_TXN, 3): GROUP_AUTHORIZATION_FAILED,
             (END_TXN, 1): INVALID_TXN_STATE, (END_TXN, 3): HIDE, (PRODUCE, 5): HIDE, (PRODUCE, 9): HIDE}

    def rule(request):
        seen[request.key] += 1
        fate = fates.get((request.key, seen[request.key]), PASS)
        return made_up(request, fate) if isinstance(fate, int) else fate

    with Proxy(space.env["MYELIN_KAFKA"]) as proxy:
        worker = space.worker("a", MYELIN_KAFKA=proxy.address)
        proxy.rule = rule
        runs = start_all(space, name)
        wait_parked(worker)
        proxy.rule = lambda request: PASS
        wait_until("bodies are let go of", lambda: number(worker, "myelin_keeper_memory_bytes") <= MEMORY_KIB * 1024)
        assert said(worker, "transaction.aborted") and said(worker, "commit.doubt")
        decide_all(space, runs)
        for _ in range(5):  # connections break while bodies are read
            proxy.cut()
            read = number(worker, "myelin_waiting_read_back_total")
            wait_until("more were read", lambda: number(worker, "myelin_waiting_read_back_total") > read + 50)
        all_whole(space, runs)
        assert said(worker, "waiting.") + said(worker, "readback.") == []


def lost(space):
    """A worker that is to go on with a run whose row in `waiting` is gone, and the contract."""
    name = asks(space)
    worker = space.worker("a")
    space.start(name, {"to": "x"}, run="lost")
    space.wait_approval("lost")
    worker = restarted(space, worker)
    delete_all(space, "waiting")
    decide_all(space, ["lost"])
    worker.wait_log("event=waiting.missing")
    return worker, name


def test_a_row_that_is_not_there(space):
    """It cannot be, so nothing is decided without it, loudly; what does not need it goes on."""
    worker, name = lost(space)
    start_all(space, name, 20)  # some of them in the other partition
    wait_until("others go on", lambda: number(worker, "myelin_steps_parked") > 1)
    assert space.state("lost")["status"] == "waiting" and space.tools.ledger("acted", tool="send") == []


def test_what_waits_behind_it_is_not_held(space):
    """A record of the inbox that cannot be decided does not gather in memory what comes behind it."""
    worker, name = lost(space)
    start_all(space, name, 1000, 250_000)  # some 125 MB in each partition
    inbox = History(space, "inbox").drain()
    lies = {message.key().decode(): message.partition() for message in inbox.messages}
    inbox.close()
    others = sum(partition != lies["lost"] for partition in lies.values())
    held = []

    def all_parked():
        held.append(number(worker, 'myelin_memory_used_bytes{use="events"}'))
        return number(worker, "myelin_steps_parked") == others + 1  # and the lost one

    wait_until("those of the other partition wait", all_parked, 90, every=0.1)
    assert others > 100 and max(held) <= MEMORY_MIB * MIB // 4, (others, max(held) // MIB)
