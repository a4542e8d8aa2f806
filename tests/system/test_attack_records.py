"""Records that anybody could put on a topic, and words of people that do not fit: no run is lost, no worker spins or dies."""

import pathlib
import time
import uuid

import pytest
from harness import Space, wait_until
from history import History, decode, encode, produce

HERE = pathlib.Path(__file__).resolve().parent
NOW = int(time.time() * 1000)
TOO_MUCH = "x" * 930_000  # a reason stands in the state of the run: more than a step event may take


@pytest.fixture
def space(tmp_path):
    """A run r1 that waits for its approval; its one e-mail will be in doubt."""
    with Space(tmp_path, partitions=1, settings={"settle": '"200ms"', "backoff": '"100ms"'}) as space:
        space.tools = space.double(
            "tool_double", script=[{"times": 1, "match": {"tool": "send"}, "answer": {"act_and_not_answer": "cut"}}])
        path = tmp_path / "crash.cfg"
        path.write_text((HERE / "crash.cfg").read_text().replace("@ON_DOUBT@", 'on_doubt = "ask";'))
        space.create().publish(path)
        space.one = space.worker("a")
        space.start("crash", {"to": "jane@acme.example"}, run="r1")
        space.wait_approval("r1")
        yield space


def records(space, topic, name):
    history = History(space, topic).drain()
    found = [record for stem, record in (decode(m.value()) for m in history.messages if m.value()) if stem == name]
    history.close()
    return found


def answer_to(space, request_id):
    def answered():
        history = History(space).drain()
        found = [f["body"] for f in history.facts() if f["kind"] == "RequestAnswered" and f["body"]["request_id"] == request_id]
        history.close()
        return found

    return wait_until(f"{request_id} is answered", answered, 20, every=0.1)[0]


def decide(space, **changed):
    decision = {"run": "r1", "request_id": str(uuid.uuid4()), "step": "approve", "visit": 0, "args_hash": None, "approved": True,
                "by": "jane", "reason": None, "at_ms": NOW} | changed
    produce(space, "inbox", decision["run"], encode("Decision", decision))
    return decision["request_id"]


def finish(space):
    """Approves, settles the doubt as a person would, and sees that nothing else happened."""
    space.cli("approve", "r1", "approve")
    wait_until("the write is in doubt",
               lambda: [a for a in space.json("approvals") if a["waits_for"] == "resolution"], 30, every=0.1)
    space.cli("resolve", "r1", "send", "--done", '{"status": "sent"}')
    state = space.wait_status("r1", "completed", "failed")
    assert (state["status"], state["reason"]) == ("completed", "completed")
    assert len(space.tools.ledger("acted", tool="send")) == 1
    assert space.one.alive()


def test_words_that_do_not_fit_leave_the_run_waiting(space):
    """A decision that makes the state too large is refused; the step waits on for a shorter one."""
    answer = answer_to(space, decide(space, reason=TOO_MUCH))
    assert not answer["accepted"] and "cannot be written down" in answer["reason"]
    finish(space)
    assert space.json("dead", "list") == []


def test_a_parked_step_that_holds_another_run(space):
    """It is due for ever, and must not be decided for ever."""
    parked = records(space, "inbox", "StepParked")[0]
    event = decode(parked["event"])[1] | {"run": "other"}
    produce(space, "inbox", "r1", encode("StepParked", parked | {
        "branch": "forged", "step": "look", "due_at_ms": 1, "waits_for": "timer", "event": encode("StepReady", event)}))
    wait_until("it was decided", lambda: any(r["run"] == "other" for r in records(space, "inbox", "RunClosed")), 20)
    finish(space)
    assert sum(r["run"] == "other" for r in records(space, "inbox", "RunClosed")) == 1


HUGE = {"facts": 2**63 - 1, "deadline_at_ms": 2**63 - 1, "started_at_ms": -(2**63), "violations": 2**31 - 1}
HUGE_AT = {"visit": -1, "attempt": 2**31 - 1, "turn": -(2**31), "call": -1, "judging": 2**31 - 1}
HUGE_USAGE = {"steps": 2**31 - 1, "tokens_in": 2**63 - 1, "micro_usd": -1}


def test_numbers_that_nobody_can_reckon_with(space):
    """They end in `dead`, each with what is wrong; nothing overflows."""
    event = records(space, "steps.default", "StepReady")[0]
    forged = [event | {name: value} for name, value in HUGE.items()]
    forged += [event | {"at": event["at"] | {name: value}} for name, value in HUGE_AT.items()]
    forged += [event | {"usage": event["usage"] | {name: value}} for name, value in HUGE_USAGE.items()]
    for number, record in enumerate(forged):
        produce(space, "steps.default", "r1", encode("StepReady", record | {"run": f"forged-{number}"}))
    closed = {"run": "forged", "status": "failed", "reason": None, "output": None}
    for at_ms in (0, -1, 2**63 - 1):
        produce(space, "inbox", "forged", encode("RunClosed", closed | {"at_ms": at_ms}))
    parked = records(space, "inbox", "StepParked")[0]
    produce(space, "inbox", "forged", encode("StepParked", parked | {"run": "forged", "due_at_ms": -(2**63)}))
    decide(space, request_id="x" * 1000)
    # Those that tell the number of their next fact end their run as well, which is not open: that is another letter.
    wanted = len(forged) + 5 + len(forged) - 1
    wait_until("all are dead", lambda: len(space.json("dead", "list")) >= wanted, 30, every=0.2)
    letters = space.json("dead", "list")
    assert len(letters) == wanted
    other = [letter for letter in letters if "bounds" not in letter["reason"] and "request_id" not in letter["reason"]]
    assert {letter["reason"] for letter in other} == {"the end of a run that is not open"} and len(other) == len(forged) - 1
    finish(space)


def test_a_state_that_is_unsound_ends_its_run(space):
    """Whoever wrote it, nobody can go on with it: the run says so, and is not open for ever."""
    space.start("crash", {"to": "jane@acme.example"}, run="r2")
    space.wait_approval("r2")
    parked = [record for record in records(space, "inbox", "StepParked") if record["run"] == "r2"][-1]
    event = decode(parked["event"])[1] | {"violations": 2**31 - 1}
    produce(space, "steps.default", "r2", encode("StepReady", event))
    state = space.wait_status("r2", "completed", "failed", seconds=20)
    assert (state["status"], state["reason"]) == ("failed", "its violations is out of all bounds")
    letter, = space.json("dead", "list")
    assert letter["run"] == "r2" and letter["reason"] == state["reason"]
    wait_until("its keeper knows", lambda: all(run["status"] == "failed" for run in space.json("runs") if run["run"] == "r2"), 20)
    finish(space)


def test_a_run_id_with_a_nul(space):
    request = records(space, "inbox", "RunRequested")[0]
    produce(space, "inbox", "r\0", encode("RunRequested", request | {"run": "r\0", "request_id": "nul"}))
    answer = answer_to(space, "nul")
    assert not answer["accepted"] and "a run id is" in answer["reason"]
