"""What goes wrong around a run - servers, models, tools, clocks, sizes - ends as the design says: retried, waiting, or a reason."""

import concurrent.futures
import json
import os
import subprocess
import time

import pytest
from doubles import BUILD, ROOT
from harness import Refused, Space, wait_until
from history import History
from judge import judge

HEAD = """
contract = {
  name = "%s"; goal = "Show what happens.";
  input = { required = ["to"]; properties = { to = { type = "string"; }; }; };
  limits = { deadline = "%s"; steps = 60; llm_tokens = 1000000; };
  recovery_policy = { retry_budget = 3; };
  boundaries = { allowed_tools = ["crm", "send"]; };
  tools = {
    crm  = { url = "${TOOLS_URL}/crm"; effect = "read"; timeout = "2s"; };
    send = { url = "${TOOLS_URL}/send"; effect = "write"; timeout = "2s"; on_doubt = "ask"; %s };
  };
  %s
  steps = { %s };
};
"""
THINK = "think = { model = 'default'; system = 'Think.'; sees = '{to: .input.to}'; next = '%s'; };"
LOOK = "look = { tool = 'crm'; args = '{company: .input.to}'; next = '%s'; };"
SEND = "send = { tool = 'send'; args = '{to: .input.to}'; next = 'end'; };"
INPUT = {"to": "jane@acme.example"}


def contract(space, name, steps, deadline="10m", send="", top=""):
    """Publishes a contract; in what is given a ' stands for a \"."""
    path = space.directory / f"{name}.cfg"
    path.write_text(HEAD % (name, deadline, send, top, steps.replace("'", '"')))
    space.publish(path)
    return name


@pytest.fixture
def space(tmp_path):
    with Space(tmp_path, partitions=1, settings={"backoff": '"50ms"', "settle": '"300ms"'}) as space:
        yield space.create()


def ended(space, run, seconds=60):
    return space.wait_status(run, "completed", "failed", seconds=seconds)


# ---- models and tools ----


def test_what_a_model_endpoint_says(space):
    """429 with retry-after is obeyed; a lasting 500 spends the retry budget; 401 is final at once; each with its reason."""
    model = space.double("model_double", script=[
        {"match": {"run": "slow", "nth_per_run": 1}, "answer": {"status": 429, "retry_after": 2}},
        {"match": {"run": "broken"}, "answer": {"status": 500, "message": "out of order"}},
        {"match": {"run": "key"}, "answer": {"status": 401, "message": "bad key"}},
        {"match": {"run": "slow"}, "answer": {"content": "fine"}}])
    name = contract(space, "asks", THINK % "end")
    space.worker("a")
    for run in ("slow", "broken", "key"):
        space.start(name, INPUT, run=run)
    slow, broken, key = (ended(space, run) for run in ("slow", "broken", "key"))
    first, second = (line["time_ms"] for line in model.ledger("received", run="slow"))
    assert slow["status"] == "completed" and second - first >= 2000
    assert [retry["what"] for retry in slow["retries"]] == ["model"] or len(slow["retries"]) == 1
    assert broken["status"] == "failed" and "500" in broken["reason"] and len(model.ledger("received", run="broken")) == 4
    assert key["status"] == "failed" and "401" in key["reason"] and len(model.ledger("received", run="key")) == 1


def test_a_model_that_cannot_be_reached(space):
    name = contract(space, "asks", THINK % "end")
    space.worker("a")
    state = ended(space, space.start(name, INPUT))
    assert state["status"] == "failed" and len(state["retries"]) == 3
    assert "connect" in state["reason"].lower(), state["reason"]


def test_a_write_that_surely_did_not_happen_is_made_again(space):
    """429: the same key again, no doubt; the reservation does not stand in its way."""
    tools = space.double("tool_double", script=[
        {"match": {"tool": "send", "nth": 1}, "answer": {"fail_before_acting": 429, "retry_after": 1}}])
    name = contract(space, "writes", SEND)
    space.worker("a")
    state = ended(space, space.start(name, INPUT))
    asked = tools.ledger("received", tool="send")
    assert state["status"] == "completed" and state["doubts"] == []
    assert len(asked) == 2 and len({line["key"] for line in asked}) == 1 and asked[0]["key"]
    assert asked[1]["time_ms"] - asked[0]["time_ms"] >= 1000
    assert len(tools.ledger("acted", tool="send")) == 1


@pytest.mark.parametrize("how,status,sent", [
    (["--done", '{"status": "sent"}'], "completed", 1), (["--not-done"], "completed", 2), (["--fail"], "failed", 1)])
def test_a_person_settles_a_doubt(space, how, status, sent):
    """A 500 after the first byte is doubt. Done: not sent again. Not done: sent again, with the same key. Fail: the step fails."""
    tools = space.double("tool_double", script=[{"match": {"tool": "send", "nth": 1}, "answer": {"status": 500, "acts": True}}])
    name = contract(space, "writes", SEND)
    space.worker("a")
    run = space.start(name, INPUT)
    assert space.wait_approval(run)["waits_for"] == "resolution"
    assert len(tools.ledger("acted", tool="send")) == 1
    space.cli("resolve", run, "send", *how)
    state = ended(space, run)
    assert state["status"] == status, state["reason"]
    asked = tools.ledger("received", tool="send")
    assert len(asked) == sent and len({line["key"] for line in asked}) == 1
    assert [doubt["settled"] for doubt in state["doubts"]] == [True]


# ---- sizes, time, secrets ----


def test_sizes(space):
    """Too large an answer, input or state ends as a reason of that run alone; the partition goes on. Outputs do not add up: a state
    names them."""
    space.double("tool_double", script=[
        {"match": {"tool": "crm", "run": "tool"}, "answer": {"bytes": 2 << 20}},
        {"match": {"tool": "crm", "run": "state"}, "answer": {"bytes": 600 << 10}},
        {"match": {"tool": "crm", "run": "outputs"}, "answer": {"bytes": 600 << 10}},
        {"match": {"tool": "crm"}, "answer": {}}])
    space.double("model_double", script=[
        {"match": {"run": "model"}, "answer": {"content": "x" * (2 << 20)}},
        {"match": {}, "answer": {"content": "fine"}}])
    think = contract(space, "thinks", THINK % "end")
    look = contract(space, "looks", LOOK % "again" + "again = { tool = 'crm'; args = '{company: .input.to}'; next = 'more'; };"
                    "more = { tool = 'crm'; args = '{company: .input.to}'; next = 'end'; };")
    keep = contract(space, "keeps", LOOK.replace("args", "set = { kept = '.look'; }; args") % "again" +
                    "again = { tool = 'crm'; args = '{company: .input.to}'; next = 'end'; };")
    space.worker("a")
    for run, name in (("model", think), ("tool", look), ("state", keep), ("outputs", look)):
        space.start(name, INPUT, run=run)
    with pytest.raises(Refused) as refused:
        space.cli("run", think, "--input", "-", input=json.dumps({"to": "x" * (300 << 10)}))
    assert refused.value.code in (65, 77) and "262144" in refused.value.stderr, refused.value
    for run in ("model", "tool", "state"):
        state = ended(space, run)
        assert state["status"] == "failed" and ("KiB" in state["reason"] or "bytes" in state["reason"]), (run, state["reason"])
    assert ended(space, "outputs")["status"] == "completed"
    assert ended(space, space.start(think, INPUT))["status"] == "completed"


@pytest.mark.parametrize("where", ["waiting", "running"])
def test_the_deadline_of_a_run(space, where):
    """It ends the run while it waits for a person, and while a call is in flight."""
    space.double("model_double", script=[{"match": {}, "answer": {"content": "late", "delay_ms": 3000}}])
    space.double("tool_double", script=[{"match": {"tool": "send"}, "answer": {"status": 500}}])
    name = contract(space, "short", SEND if where == "waiting" else THINK % "end", deadline="2s")
    space.worker("a")
    run = space.start(name, INPUT)
    state = ended(space, run, 20)
    assert state["status"] == "failed" and "deadline" in state["reason"], state["reason"]
    assert space.json("approvals") == []


APPROVED = """human_checkpoints = ({ step = "ask"; guards = "send"; required = true; timeout = "1s"; timeout_action = "%s"; });"""


@pytest.mark.parametrize("action", ["pause", "reject"])
def test_an_approval_that_nobody_gives(space, action):
    """pause: it goes on waiting, says so, and can still be given. reject: as if a person had said no."""
    tools = space.double("tool_double")
    steps = "ask = { approval = true; approved = 'send'; rejected = 'end'; }; " + SEND
    name = contract(space, "nobody", steps, top=APPROVED % action)
    space.worker("a")
    run = space.start(name, INPUT)
    if action == "pause":
        wait_until("it is paused", lambda: "nobody decided in time" in json.dumps(space.state(run)["current_step"]), 20)
        assert space.wait_approval(run)["step"] == "ask" and tools.ledger("received", tool="send") == []
        space.cli("approve", run, "ask")
        assert ended(space, run)["status"] == "completed" and len(tools.ledger("acted", tool="send")) == 1
    else:
        approval = ended(space, run)["approvals"][0]
        assert (approval["decision"], approval["timed_out"]) == ("rejected", True)
        assert tools.ledger("received", tool="send") == []


def test_secrets_stay_where_they_are(space):
    """A key and a header's secret are sent, and are nowhere else: not in logs, topics, errors, or what the commands say."""
    secrets = {"MODEL_KEY": "sk-planted-4711", "TOOL_SECRET": "planted-header-0815"}
    space.env |= secrets
    space.double("tool_double", script=[
        {"match": {"tool": "crm", "run": "bad"}, "answer": {"status": 500, "text": "echo " + secrets["TOOL_SECRET"]}},
        {"match": {"tool": "crm", "run": "gone"}, "answer": {"fail_before_acting": "cut"}}])
    space.double("model_double", script=[
        {"match": {"run": "denied"}, "answer": {"status": 401, "message": "wrong key " + secrets["MODEL_KEY"]}},
        {"match": {}, "answer": {"content": "fine"}}])
    path = space.directory / "secret.cfg"
    path.write_text((HEAD % ("secret", "10m", "", "", (THINK % "look" + LOOK % "end").replace("'", '"'))).replace(
        'timeout = "2s"; };', 'timeout = "2s"; headers = { Authorization = "Bearer ${TOOL_SECRET}"; }; };', 1))
    space.publish(path)
    worker = space.worker("a", MYELIN_LOG_LEVEL="debug")
    for run in ("good", "bad", "gone", "denied"):
        space.start("secret", INPUT, run=run)
    states = {run: ended(space, run) for run in ("good", "bad", "gone", "denied")}
    assert {run: state["status"] for run, state in states.items()} == {
        "good": "completed", "bad": "failed", "gone": "failed", "denied": "failed"}
    seen = worker.log() + json.dumps(states) + space.cli("doctor", check=False, seconds=90).stdout
    for topic in ("steps.default", "inbox", "waiting", "history", "control", "dead"):
        history = History(space, topic).drain()
        seen += "".join(message.value().decode("latin-1") for message in history.messages if message.value())
        history.close()
    assert [name for name, secret in secrets.items() if secret in seen] == []


# ---- workers ----


def test_two_workers_with_one_slot(space):
    """The older one says so and leaves; the younger one does the work."""
    space.double("model_double", script=[{"match": {}, "answer": {"content": "fine"}}])
    name = contract(space, "asks", THINK % "end")
    older = space.worker("s")
    younger = space.worker("s", ready=False)
    wait_until("one of them leaves", lambda: not older.alive(), 40)
    assert older.process.returncode == 69 and "slot" in older.log()
    assert younger.alive()
    assert ended(space, space.start(name, INPUT))["status"] == "completed"


def test_sigterm_while_a_model_answers(space):
    """It waits for the answer, keeps it and exits 0; nobody pays for the model twice."""
    model = space.double("model_double", script=[{"match": {}, "answer": {"content": "fine", "delay_ms": 1500}}])
    name = contract(space, "asks", THINK % "end")
    worker = space.worker("s")
    run = space.start(name, INPUT)
    model.wait_for("received", seconds=20)
    assert worker.terminate() == 0
    space.worker("s")
    state = ended(space, run)
    assert state["status"] == "completed"
    assert len(state["model_calls"]) == 1 and len(model.ledger("received")) == 1


def test_a_second_sigterm_does_not_wait(space):
    model = space.double("model_double", script=[{"match": {"nth": 1}, "answer": {"content": "late", "delay_ms": 20000}},
                                                 {"match": {}, "answer": {"content": "fine"}}])
    name = contract(space, "asks", THINK % "end")
    worker = space.worker("s")
    run = space.start(name, INPUT)
    model.wait_for("received", seconds=20)
    worker.process.terminate()
    worker.wait_log("event=stop ")
    worker.process.terminate()
    assert worker.process.wait(5) == 0
    space.worker("s")
    assert ended(space, run)["status"] == "completed"


# ---- Redis ----


class Redis:
    """A Redis of this test's own."""

    def __init__(self, directory, port=0):
        self.directory, self.port = directory, port or free_port()
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "yes", "--dir",
             str(self.directory)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("Redis answers", lambda: "PONG" in self.ask("PING"))

    def ask(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True).stdout

    def stop(self):
        self.process.kill()
        self.process.wait()


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def redis(tmp_path, space):
    redis = Redis(tmp_path)
    space.env["MYELIN_REDIS"] = f"127.0.0.1:{redis.port}"
    yield redis
    redis.stop()


def test_redis_is_away_for_a_while(space, redis):
    """Reads go on, writes wait, the worker says so, nothing is lost."""
    tools = space.double("tool_double")
    name = contract(space, "both", LOOK % "send" + SEND)
    worker = space.worker("a")
    redis.stop()
    runs = [space.start(name, INPUT) for _ in range(5)]
    for run in runs:
        tools.wait_for("acted", tool="crm", run=run, seconds=20)
        wait_until("the write waits", lambda run=run: "writes must wait" in json.dumps(space.state(run)["current_step"]), 30)
    assert tools.ledger("received", tool="send") == [] and worker.alive()
    redis.start()
    assert [ended(space, run)["status"] for run in runs] == ["completed"] * 5
    assert sorted(line["run"] for line in tools.ledger("acted", tool="send")) == sorted(runs)


def test_a_redis_that_may_evict(space, redis):
    """Its records could vanish under an open run: no write is made; when the policy is right, it goes on by itself."""
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    tools = space.double("tool_double")
    name = contract(space, "writes", SEND)
    space.worker("a")
    run = space.start(name, INPUT)
    wait_until("the write waits", lambda: "noeviction" in json.dumps(space.state(run)["current_step"]), 30)
    assert tools.ledger("received", tool="send") == []
    assert "noeviction" in space.cli("doctor", check=False, seconds=90).stdout
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert ended(space, run)["status"] == "completed"
    assert len(tools.ledger("acted", tool="send")) == 1


def test_redis_forgets_all_the_time(space, redis):
    """Wiped after every call that reached a tool or model - so between any two steps: every run goes on to its end."""
    tools = space.double("tool_double")
    model = space.double("model_double", script=[{"match": {}, "answer": {"content": "fine"}}])
    name = contract(space, "three", THINK % "look" + LOOK % "send" + SEND)
    space.worker("a")
    for step in ("start", "think", "look", "send"):
        run = space.start(name, INPUT)
        if step == "start":
            redis.ask("FLUSHALL")
        while space.state(run)["status"] not in ("completed", "failed"):
            done = [entry["step"] for entry in space.state(run)["completed_steps"]]
            if step in done:
                redis.ask("FLUSHALL")
        state = space.state(run)
        assert state["status"] == "completed" and state["doubts"] == [], state["doubts"]
        assert len(tools.ledger("acted", tool="send", run=run)) == 1
    assert len(model.ledger("received")) >= 4


# ---- Kafka ----


def test_the_broker_restarts_under_load(tmp_path):
    """kill -9 of the broker in the midst of runs: when it is back every run ends, each e-mail once, no step twice."""
    local = tmp_path / "local"
    env = {**os.environ, "MYELIN_LOCAL": str(local), "MYELIN_KAFKA_PORT": "27092"} # no ephemeral port: it must be free again
    subprocess.run([ROOT / "ops" / "kafka" / "broker", "start"], env=env, check=True, capture_output=True, timeout=120)
    try:
        address = (local / "env").read_text().split("MYELIN_KAFKA=")[1].split()[0]
        with Space(tmp_path / "space", partitions=2, settings={"backoff": '"50ms"'}) as space:
            space.env["MYELIN_KAFKA"] = address
            tools = space.double("tool_double", script=[{"match": {"tool": "crm"}, "answer": {"delay_ms": 200}}])
            space.create()
            name = contract(space, "both", LOOK % "send" + SEND)
            for slot in ("a", "b"):
                space.worker(slot)
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                runs = list(pool.map(lambda n: space.start(name, INPUT, run=f"r{n}"), range(12)))
            tools.wait_for("received", tool="crm", seconds=20)
            subprocess.run([ROOT / "ops" / "kafka" / "broker", "kill"], env=env, check=True, capture_output=True)
            subprocess.run([ROOT / "ops" / "kafka" / "broker", "start"], env=env, check=True, capture_output=True, timeout=120)
            judge(space, runs, tools)
            assert all(worker.alive() for worker in space.workers)
    finally:
        subprocess.run([ROOT / "ops" / "kafka" / "broker", "stop"], env=env, check=False, capture_output=True, timeout=60)


# ---- asked for twice ----


def test_the_same_id_again(space):
    """Same input: the same run, whether it is open or has ended. Other input: refused, and says why."""
    model = space.double("model_double", script=[{"match": {}, "answer": {"content": "fine"}}])
    name = contract(space, "asks", THINK % "end")
    space.worker("a")
    assert space.start(name, INPUT, run="mine") == "mine"
    ended(space, "mine")
    assert space.start(name, INPUT, run="mine") == "mine"
    with pytest.raises(Refused) as refused:
        space.start(name, {"to": "other@acme.example"}, run="mine")
    assert refused.value.code == 77 and "input" in refused.value.stderr
    assert len(model.ledger("received")) == 1
