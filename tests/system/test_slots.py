"""Workers whose settings name no slot: each claims one in Redis, no two the same, and none is fenced by another."""

import re
import signal
import socket
import time

import pytest
from harness import Person, Space, wait_until
from history import History, rebuild
from test_faults import INPUT, LOOK, SEND, contract, ended, redis  # noqa: F401: a fixture

LEASE_S = 3


@pytest.fixture
def space(tmp_path):
    settings = {"slot_lease": f'"{LEASE_S}s"', "backoff": '"50ms"', "settle": '"300ms"'}
    with Space(tmp_path, partitions=6, settings=settings) as space:
        yield space.create()


def start(space, ready=True):
    return space.worker("", ready, log=f"unpinned-{len(space.workers)}")


def number(worker):
    """Of the slot that it has claimed; None: none yet."""
    claimed = re.findall(r"event=slot.claimed number=(\d+) ", worker.log())
    assert len(claimed) <= 1
    return int(claimed[0]) if claimed else None


def numbers(space):
    return sorted(number(worker) for worker in space.workers if worker.alive())


def renewed(space, redis):
    """The first lease of a slot is longer, for nothing is renewed while its worker connects to Kafka."""
    wait_until("the lease was renewed", lambda: 0 < int(redis.ask("PTTL", f"{{{space.name}}}:slot:1")) <= LEASE_S * 1000)


def load(space, name, first, count):
    return [space.start(name, INPUT, run=f"run-{i:03d}") for i in range(first, first + count)]


def verify(space, tools, runs):
    """Each run is whole, each letter was sent once, and nobody was fenced."""
    left = list(runs)

    def over():
        ended = {run["run"] for run in space.json("runs") if run["status"] == "completed"}
        left[:] = [run for run in runs if run not in ended]
        return not left

    try:
        wait_until("all runs end", over, 60, every=0.2)
    except AssertionError as late:
        raise AssertionError(f"{late}: {[(run, space.state(run)['status'], space.state(run)['doubts']) for run in left]}") from None
    history = History(space).drain()
    facts = history.facts()
    history.close()
    assert [(s["gaps"], s["repeats"]) for s in (rebuild(facts, run) for run in runs)] == [(0, 0)] * len(runs)
    assert sorted(line["run"] for line in tools.ledger("acted", tool="send")) == sorted(runs)
    for worker in space.workers:
        assert "another live process" not in worker.log() and "slot.lost" not in worker.log(), worker.log()[-2000:]


@pytest.mark.parametrize("count", [2, 5])
def test_side_by_side(space, count):
    """On one host, started at once, under load; then one is killed, and one is stopped: theirs are taken again."""
    tools = space.double("tool_double")
    name = contract(space, "both", LOOK % "send" + SEND)
    for _ in range(count):
        start(space, ready=False)
    for worker in space.workers:
        worker.ready()
    assert numbers(space) == list(range(1, count + 1))
    runs = load(space, name, 0, 20)

    victim = space.workers[0]
    victim.kill()
    killed_s = time.monotonic()
    extra = start(space)
    assert number(extra) == count + 1  # a free one, before the dead one's lease ends
    runs += load(space, name, 20, 10)
    wait_until("the lease of the dead one ends", lambda: time.monotonic() > killed_s + LEASE_S + 0.2, 20)
    assert number(start(space)) == number(victim)

    stopped = next(w for w in space.workers if w.alive() and number(w) == 2)
    assert stopped.terminate() == 0
    assert space.redis("EXISTS", f"{{{space.name}}}:slot:2") == "0"  # it was given back
    assert number(start(space)) == 2
    runs += load(space, name, 30, 10)
    with Person(space, tools):  # who is asked when the one that was killed had a letter in its hands
        verify(space, tools, runs)
    assert [worker.terminate() for worker in space.workers if worker.alive()] == [0] * (count + 1)


@pytest.mark.parametrize("how", ["emptied", "restarted late"])
def test_redis_forgets_who_has_which(space, redis, how):
    """▲ In a new life of Redis those who live say first which slot is theirs: no two have one."""
    tools = space.double("tool_double")
    name = contract(space, "both", LOOK % "send" + SEND)
    for _ in range(2):
        start(space, ready=False)
    for worker in space.workers:
        worker.ready()
    runs = load(space, name, 0, 5)
    verify(space, tools, runs)
    if how == "emptied":  # from before the third asks until it has asked: the others have not renewed theirs
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            def empty():
                connection.sendall(b"FLUSHALL\r\n")
                assert connection.recv(100) == b"+OK\r\n"

            empty()
            third = start(space, ready=False)
            wait_until("it asks for a slot", lambda: empty() or "event=slot." in third.log(), every=0.002)
    else:  # it keeps its keys, but their time is over
        redis.stop()
        time.sleep(LEASE_S + 0.5)
        redis.start()
        third = start(space, ready=False)
    third.ready()
    assert numbers(space) == [1, 2, 3]
    assert "event=slot.waits" in third.log()
    runs += load(space, name, 5, 15)
    verify(space, tools, runs)
    assert [worker.terminate() for worker in space.workers] == [0, 0, 0]


def test_claimed_by_another(space, redis):
    """One that is frozen for longer than its lease: the next one takes its slot and fences it; it says so and ends."""
    tools = space.double("tool_double")
    name = contract(space, "both", LOOK % "send" + SEND)
    old = start(space)
    runs = load(space, name, 0, 5)
    verify(space, tools, runs)
    renewed(space, redis)
    old.process.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_S + 0.5)
    young = start(space)
    assert number(young) == number(old) == 1
    old.process.send_signal(signal.SIGCONT)
    assert old.process.wait(30) == 69
    assert "event=slot.lost number=1" in old.log() or "another live process holds slot _1" in old.log(), old.log()[-2000:]
    runs += load(space, name, 5, 5)
    for run in runs:
        assert ended(space, run)["status"] == "completed"
    assert sorted(line["run"] for line in tools.ledger("acted", tool="send")) == sorted(runs)
    assert young.terminate() == 0


def test_redis_is_away_for_longer_than_the_lease(space, redis):
    """Nobody can claim through it either: the worker goes on, says what it does not know, and has its slot when Redis is back."""
    space.double("tool_double")
    name = contract(space, "looks", LOOK % "end")
    worker = start(space)
    renewed(space, redis)
    redis.stop()
    worker.wait_log("event=slot.unsure number=1")
    assert ended(space, space.start(name, INPUT))["status"] == "completed"
    redis.start()
    worker.wait_log("event=redis.up", 20)
    assert number(start(space)) == 2
    assert [w.terminate() for w in space.workers] == [0, 0]


def test_no_redis_to_claim_from(space, redis):
    """It waits and says for what; a stop ends the wait; with Redis it goes on."""
    redis.stop()
    waits, stopped = start(space, ready=False), start(space, ready=False)
    for worker in (waits, stopped):
        worker.wait_log("event=slot.waits")
    assert "Redis at" in stopped.log().split("event=slot.waits")[1]
    assert stopped.terminate() == 0
    redis.start()
    assert number(waits.ready()) == 1
    assert waits.terminate() == 0
