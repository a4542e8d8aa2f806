"""A worker dies at every named point, with every policy for a write in doubt: the run completes and the e-mail is sent once."""

import concurrent.futures
import pathlib
import subprocess
import time

import pytest
from harness import CRASH_BUILD, BUILD, Space, wait_until
from history import History, rebuild

HERE = pathlib.Path(__file__).resolve().parent
POLICIES = {
    "retry": 'on_doubt = "retry";',
    "probe": 'on_doubt = "probe"; probe = { url = "${TOOLS_URL}/send/{key}"; done = ".status == \'sent\'"; '
             'not_done = ".status == \'unknown\'"; after = "500ms"; };',
    "ask": 'on_doubt = "ask";',
}
# Points of the loop are reached by the read (1st) and by the write (2nd). Commits: 1 the run starts, 2 the read is done and
# the approval parked, 3 the keeper has it, 4 it was approved, 5 the write is done, 6 the run is closed.
CALL_POINTS = [f"{point}:{nth}" for point in ("after_decode", "before_reserve", "after_reserve", "before_call",
                                              "after_call_sent", "after_answer") for nth in (1, 2)] + ["after_stored:1"]
LOG_POINTS = [f"{point}:{nth}" for point in ("after_begin", "after_produce", "after_offsets", "before_commit", "after_commit")
              for nth in (1, 2, 5)]
OTHER_POINTS = ["after_poll:1", "after_poll:4", "keeper_before_commit:1", "keeper_before_commit:3", "keeper_after_commit:1",
                "keeper_after_commit:4", "while_rebuilding:1"]
CASES = [(point, policy) for point in CALL_POINTS + LOG_POINTS + OTHER_POINTS for policy in POLICIES]
AT_ONCE = 6


class Case:
    """One namespace with one slot, one run, one crash."""

    def __init__(self, directory, policy):
        # Fast: a crashed worker's transaction may not hide its partitions for long.
        self.space = Space(directory, partitions=1, settings={"settle": '"500ms"', "backoff": '"100ms"'})
        self.tools = self.space.double("tool_double", *(["--honour-keys"] if policy == "retry" else []))
        path = pathlib.Path(directory) / "crash.cfg"
        path.write_text((HERE / "crash.cfg").read_text().replace("@ON_DOUBT@", POLICIES[policy]))
        self.space.create().publish(path)

    def start(self):
        """Asks for the run without waiting for the answer: the worker may be dead."""
        command = [BUILD / "myelin", "run", "crash", "--id", "r1", "--input", '{"to": "jane@acme.example"}', "--timeout", "60s"]
        return subprocess.Popen(command, env=self.space.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def sent(self):
        return len(self.tools.ledger("acted", tool="send"))

    def step(self):
        """Does what a person would: approves, and settles a doubt by looking at what the mail server did."""
        for waiting in self.space.json("approvals"):
            if waiting["waits_for"] == "approval":
                self.space.cli("approve", "r1", "approve", "--timeout", "20s", check=False)
            elif self.sent():
                self.space.cli("resolve", "r1", "send", "--done", '{"status": "sent"}', "--timeout", "20s", check=False)
            else:
                self.space.cli("resolve", "r1", "send", "--not-done", "--timeout", "20s", check=False)
        state = self.space.json("show", "r1", "--since", "1h", check=False)
        return state[0] if state and state[0].get("status") in ("completed", "failed") else None

    def judge(self):
        state = self.space.state("r1")
        history = History(self.space).drain()
        rebuilt = rebuild(history.facts("r1"), "r1")
        history.close()
        return {"status": state["status"], "reason": state["reason"], "sent": self.sent(),
                "same": all(state[name] == value for name, value in rebuilt.items()),
                "gaps": rebuilt["gaps"], "repeats": rebuilt["repeats"], "dead": len(self.space.json("dead", "list"))}


GOOD = {"status": "completed", "reason": "completed", "sent": 1, "same": True, "gaps": 0, "repeats": 0, "dead": 0}


def finish(case, worker, point):
    """Lets the story go on; whenever the worker dies its slot is started again. Returns how often it died."""
    deaths, until = 0, time.monotonic() + 90
    while time.monotonic() < until:
        if not worker.alive():
            deaths += 1
            assert worker.process.returncode == -9, f"exit {worker.process.returncode}: {worker.log()[-1500:]}"
            worker = case.space.worker("s", build=CRASH_BUILD, ready=False)
        if case.step():
            if deaths == 0: # it ended by the very commit that was to be the worker's last
                wait_until(f"{point}: the worker dies", lambda: not worker.alive(), 10)
                deaths += 1
            return deaths
        time.sleep(0.1)
    raise AssertionError(f"{point}: the run did not end: {case.space.state('r1')['current_step']}\n{worker.log()[-2000:]}")


def crash(directory, point, policy):
    case = Case(directory, policy)
    with case.space:
        worker = case.space.worker("s", build=CRASH_BUILD, ready=False, MYELIN_CRASH_AT=point)
        asked = case.start()
        deaths = finish(case, worker, point)
        asked.communicate(timeout=60)
        return case.judge() | {"deaths": deaths}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases, some at a time; a failure is kept for its own test."""
    root = tmp_path_factory.mktemp("crash")
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return {case: pool.submit(crash, root / f"{case[0].replace(':', '-')}-{case[1]}", *case) for case in CASES}


@pytest.mark.parametrize("point,policy", CASES)
def test_crash(outcomes, point, policy):
    assert outcomes[point, policy].result() == GOOD | {"deaths": 1}


# ---- stopped, wiped ----


def approve(case):
    case.space.wait_approval("r1")
    case.space.cli("approve", "r1", "approve")


@pytest.mark.parametrize("policy", POLICIES)
def test_sigterm_in_the_write(tmp_path, policy):
    """A stopping worker lets the call end, keeps its result, exits 0; the next one adopts it."""
    case = Case(tmp_path, policy)
    case.tools.stop()
    case.tools = case.space.double("tool_double", *(["--honour-keys"] if policy == "retry" else []),
                                   script=[{"match": {"tool": "send"}, "answer": {"act_and_answer_late": 700}}])
    with case.space:
        worker = case.space.worker("s")
        case.space.start("crash", {"to": "jane@acme.example"}, run="r1")
        approve(case)
        case.tools.wait_for("acted", tool="send", seconds=20)
        assert worker.terminate() == 0
        case.space.worker("s")
        wait_until("the run ends", case.step, 60, every=0.1)
        assert case.judge() == GOOD


def test_redis_wiped_between_steps(tmp_path):
    """Alone, a Redis that forgets costs nothing: the run goes on."""
    case = Case(tmp_path, "ask")
    with case.space:
        case.space.worker("s")
        case.space.forget()
        case.space.start("crash", {"to": "jane@acme.example"}, run="r1")
        case.space.wait_approval("r1")
        case.space.forget()
        case.space.cli("approve", "r1", "approve")
        case.space.wait_status("r1", "completed")
        assert case.judge() == GOOD


@pytest.mark.parametrize("policy", POLICIES)
def test_redis_wiped_and_worker_killed_in_the_write(tmp_path, policy):
    """Losing Redis altogether creates doubt, never a second e-mail."""
    case = Case(tmp_path, policy)
    case.tools.stop()
    case.tools = case.space.double("tool_double", *(["--honour-keys"] if policy == "retry" else []),
                                   script=[{"times": 1, "match": {"tool": "send"}, "answer": {"act_and_not_answer": "hold"}}])
    with case.space:
        worker = case.space.worker("s")
        case.space.start("crash", {"to": "jane@acme.example"}, run="r1")
        approve(case)
        case.tools.wait_for("acted", tool="send", seconds=20)
        worker.kill()
        case.space.forget()
        case.space.worker("s")
        wait_until("the run ends", case.step, 60, every=0.1)
        assert case.judge() == GOOD
        assert [doubt["settled"] for doubt in case.space.state("r1")["doubts"]] == [True]


def test_redis_wiped_and_not_there_when_the_next_worker_starts(tmp_path):
    """A write that must wait for Redis is still in doubt when Redis is back: waiting does not clear a suspect."""
    case = Case(tmp_path, "ask")
    case.tools.stop()
    case.tools = case.space.double(
        "tool_double", script=[{"times": 1, "match": {"tool": "send"}, "answer": {"act_and_not_answer": "hold"}}])
    with case.space:
        worker = case.space.worker("s")
        case.space.start("crash", {"to": "jane@acme.example"}, run="r1")
        approve(case)
        case.tools.wait_for("acted", tool="send", seconds=20)
        worker.kill()
        case.space.forget()
        redis = case.space.env["MYELIN_REDIS"]
        worker = case.space.worker("s", MYELIN_REDIS="127.0.0.1:9")  # nobody is there
        wait_until("the write waits", lambda: "writes must wait" in (case.space.state("r1")["current_step"][0]["reason"] or ""), 20)
        worker.terminate()
        case.space.worker("s", MYELIN_REDIS=redis)
        wait_until("the run ends", case.step, 60, every=0.1)
        assert case.judge() == GOOD
        assert [doubt["settled"] for doubt in case.space.state("r1")["doubts"]] == [True]


def test_killed_in_the_write_that_a_person_ordered(tmp_path):
    """It did not happen, says a person, so it is made again; killed in that one, it is in doubt again."""
    case = Case(tmp_path, "ask")
    case.tools.stop()
    case.tools = case.space.double("tool_double", script=[
        {"match": {"tool": "send", "nth": 1}, "answer": {"status": 500}},
        {"match": {"tool": "send", "nth": 2}, "answer": {"act_and_not_answer": "hold"}}])
    with case.space:
        worker = case.space.worker("s")
        case.space.start("crash", {"to": "jane@acme.example"}, run="r1")
        approve(case)
        wait_until("it is in doubt", lambda: [w for w in case.space.json("approvals") if w["waits_for"] == "resolution"], 30)
        case.space.cli("resolve", "r1", "send", "--not-done")
        case.tools.wait_for("acted", tool="send", seconds=20)
        worker.kill()
        case.space.worker("s")
        wait_until("the run ends", case.step, 60, every=0.1)
        assert case.judge() == GOOD
        assert [doubt["settled"] for doubt in case.space.state("r1")["doubts"]] == [True, True]
