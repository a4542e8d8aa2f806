"""Records of writes in Redis live as long as their run is open or remembered, and not longer."""

import pytest
from harness import Space, wait_until
from history import History, decode, encode, produce
from test_faults import INPUT, SEND, contract, ended, redis  # noqa: F401: a fixture

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def space(tmp_path):
    with Space(tmp_path, partitions=1, settings={"backoff": '"50ms"', "settle": '"300ms"'}) as space:
        yield space.create()


def records(redis, space):
    """{run: time to live} of the runs that have a record of a write."""
    found = {}
    for key in redis.ask("KEYS", f"{{{space.name}}}:k:*").split():
        for record in redis.ask("SMEMBERS", key).split():
            found[key.rsplit(":", 1)[1]] = redis.ask("TTL", record).strip()
    assert len(found) == len(redis.ask("KEYS", f"{{{space.name}}}:w:*").split())
    return found


def rows(space):
    """{key: latest row} of what waits; None: it is deleted."""
    reader = History(space, "waiting").drain()
    found = {m.key().decode(): m.value() and decode(m.value())[1] for m in reader.messages}
    reader.close()
    return found


def make_old(space, redis, run):
    """The keeper's row of an ended run and its records, as if it had ended eight days ago (remembered are seven)."""
    row = rows(space)[run]
    assert row["ended_at_ms"] > 0
    for record in redis.ask("SMEMBERS", f"{{{space.name}}}:k:{run}").split():
        redis.ask("HSET", record, "fence", str(int(redis.ask("HGET", record, "fence")) - 8 * DAY_MS))
    produce(space, "waiting", run, encode("RunRow", {**row, "ended_at_ms": row["ended_at_ms"] - 8 * DAY_MS}))


def test_records_go_with_the_memory_of_their_run(space, redis):
    tools = space.double("tool_double", script=[{"match": {"tool": "send", "run": "doubt"}, "answer": {"act_and_not_answer": "cut"}}])
    name = contract(space, "sends", SEND)
    worker = space.worker("a")
    for run in ("first", "second", "doubt"):
        space.start(name, INPUT, run=run)
    assert {ended(space, run)["status"] for run in ("first", "second")} == {"completed"}
    space.wait_status("doubt", "waiting")
    assert records(redis, space) == {"first": "-1", "second": "-1", "doubt": "-1"}  # nothing expires under an open run
    assert worker.terminate() == 0

    make_old(space, redis, "first")
    redis.stop()
    worker = space.worker("a", ready=False)
    worker.wait_log("event=keeper.rebuilt")
    worker.wait_log("event=run.kept run=first")
    assert {run["run"] for run in space.json("runs")} == {"first", "second", "doubt"}
    redis.start()  # its record is not lost with Redis away: it is tried again
    wait_until("the run is forgotten", lambda: {run["run"] for run in space.json("runs")} == {"second", "doubt"})
    assert records(redis, space) == {"second": "-1", "doubt": "-1"}

    space.start(name, INPUT, run="first")  # the same id again, once it is forgotten: a new run, which adopts nothing
    ended(space, "first")
    assert [line["run"] for line in tools.ledger("acted", tool="send")].count("first") == 2


def test_what_was_left_waiting_goes_with_its_run(space, redis):
    """A commit that the brokers refused can leave a step waiting when its run ends: it is not woken, and deleted with the run."""
    space.double("tool_double", script=[{"match": {"tool": "send"}, "answer": {"act_and_not_answer": "cut"}}])
    name = contract(space, "sends", SEND)
    worker = space.worker("a")
    space.start(name, INPUT, run="left")
    space.wait_status("left", "waiting")
    assert worker.terminate() == 0
    before = rows(space)
    produce(space, "waiting", "left/", encode("StepParked", {**before["left/"], "due_at_ms": 1}))
    long_ago = before["left"]["started_at_ms"] - 8 * DAY_MS
    produce(space, "waiting", "left", encode("RunRow", {**before["left"], "status": "failed", "ended_at_ms": long_ago}))
    history = History(space).drain()
    facts = len(history.facts("left"))
    history.close()

    space.worker("a")
    wait_until("the run is forgotten", lambda: rows(space)["left"] is None)
    assert rows(space)["left/"] is None
    assert space.json("dead", "list") == []
    history = History(space).drain()
    assert len(history.facts("left")) == facts
    history.close()
