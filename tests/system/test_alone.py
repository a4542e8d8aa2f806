"""A step that its worker dies of takes no innocent run with it, and ends; being stopped in order is no crash."""

import pytest
from harness import Space, wait_until
from test_faults import INPUT, LOOK, THINK, contract, ended

STEP = r"spin = { tool = 'crm'; args = '{company: (%s)}'; next = 'end'; };"
SPIN = STEP % ("[.input.to | split(\\\"\\\")[]] as $t | reduce (" + "$t[] | " * 9 + "1) as $one (0; . + $one)")
GREEDY = STEP % r"reduce (.input.to | split(\"\"))[] as $x (.input.to * 4000; . + .) | length"
INNOCENT = 4


@pytest.fixture
def space(tmp_path):
    with Space(tmp_path, partitions=1, settings={"backoff": '"50ms"', "settle": '"300ms"', "grace": '"100ms"'}) as space:
        yield space.create()


@pytest.mark.parametrize("step", [SPIN, GREEDY], ids=["time", "memory"])
def test_a_step_that_kills_its_worker(space, step):
    """Five workers die of it, three of them while they run nothing else; then it goes to `dead` and its run fails, with that reason."""
    tools = space.double("tool_double", script=[{"match": {"tool": "crm"}, "answer": {"delay_ms": 700}}])
    space.double("model_double", script=[{"match": {}, "answer": {"content": "fine"}}])
    bad = contract(space, "spins", step)
    good = contract(space, "looks", THINK % "look" + LOOK % "end")
    worker = space.worker("s")
    innocent = [space.start(good, INPUT, run=f"innocent-{i}") for i in range(INNOCENT)]
    guilty = space.start(bad, INPUT, run="guilty")
    lives, alone = 1, 0

    def over():
        nonlocal worker, lives, alone
        if not worker.alive():
            assert all(word in worker.log() for word in ("event=expr.watchdog", "run=guilty", "step=spin", "reduce")), worker.log()[-1000:]
            alone += "event=step.alone" in worker.log()
            worker, lives = space.worker("s"), lives + 1
        return space.state(guilty)["status"] == "failed"

    wait_until("the run is given up", over, 120, every=0.1)
    state = space.state(guilty)
    assert "died each time" in state["reason"] and (lives, alone) == (6, 3), (state["reason"], lives, alone)
    assert [letter["run"] for letter in space.json("dead", "list")] == [guilty]
    assert {run: ended(space, run)["status"] for run in innocent} == dict.fromkeys(innocent, "completed")
    assert {line["run"] for line in tools.ledger("acted")} == set(innocent)


def test_being_stopped_is_no_crash(space):
    """Stopped six times in the middle of the same call, which it does not get done within its grace."""
    space.double("tool_double", script=[
        {"match": {"tool": "crm", "nth_per_run": n}, "answer": {"delay_ms": 60000}} for n in range(1, 7)])
    good = contract(space, "looks", LOOK % "end")
    tools, worker = space.doubles[0], space.worker("s")
    run = space.start(good, INPUT, run="often")
    for life in range(6):
        worker = worker if life == 0 else space.worker("s")
        wait_until("the call is on its way", lambda: len(tools.ledger("received")) == life + 1)
        assert worker.terminate() == 0
        assert "event=step.alone" not in worker.log()
    worker = space.worker("s")
    assert ended(space, run)["status"] == "completed"
    assert "event=step.alone" not in worker.log() and space.json("dead", "list") == []
