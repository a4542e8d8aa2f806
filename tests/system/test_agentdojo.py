"""Real input: the 97 user tasks that gpt-4o solved in AgentDojo without an attack, played again.

The model double says what the real model said, the tool double what the real tools said. First without Myelin, by the
plainest agent loop: that shows that the recordings are whole. Then by Myelin, with a worker killed in each suite while a
write of its is in flight.
"""

import concurrent.futures
import http.client
import json
import pathlib
import sys
import time

import pytest
from doubles import Double, holds_connection
from harness import Space

HERE = pathlib.Path(__file__).resolve().parent / "agentdojo"
sys.path.insert(0, str(HERE))
import convert  # noqa: E402

SUITES = {"banking": 16, "slack": 21, "travel": 20, "workspace": 40}
LATE_MS = 1500  # how long the first call of each write tool is in flight, for a worker to be killed in
RUNS_SECONDS = 120

pytestmark = pytest.mark.skipif(
    not convert.eval_file().exists(), reason=f"EVAL_DIR: {convert.NAME} is not there ({convert.eval_file().parent})"
)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    directory = tmp_path_factory.mktemp("recordings")
    assert convert.convert(directory) == SUITES
    return directory


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_tools(suite):
    """The names of the tools that the contract calls a write."""
    text = (HERE / f"{suite}.cfg").read_text()
    return {line.split()[0] for line in text.splitlines() if 'effect = "write"' in line}


def acted(tools, run):
    """The calls that the tools did for a run, in order."""
    return [{"tool": line["tool"], "args": line["args"]} for line in tools.ledger("acted", run=run)]


# ---- without Myelin ----


def post(double, path, body, run, key):
    connection = http.client.HTTPConnection("127.0.0.1", double.port, timeout=10)
    try:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        connection.request("POST", path, json.dumps(body), headers | ({"X-Myelin-Run": run} if run else {}))
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text
    finally:
        connection.close()


def play(model, tools, run, named):
    """A plain agent loop that does every call twice, as after a crash; returns (calls, last answer)."""
    name_sent = run["id"] if named else None
    messages = [{"role": "system", "content": "Help."}, {"role": "user", "content": json.dumps(run["input"])}]
    calls = []
    while True:
        ask = {"model": "m", "messages": messages}
        texts = {post(model, "/v1/chat/completions", ask, name_sent, f"turn-{len(messages)}") for _ in range(2)}
        assert len(texts) == 1
        message = json.loads(texts.pop())["choices"][0]["message"]
        messages.append(message)
        if not message.get("tool_calls"):
            return calls, message["content"]
        for call in message["tool_calls"]:
            name, args = call["function"]["name"], json.loads(call["function"]["arguments"])
            key = f"{run['id']}-{len(calls)}"
            texts = {post(tools, f"/{name}", args, name_sent, key) for _ in range(2)}
            assert len(texts) == 1, "the same key gets the same answer"
            calls.append({"tool": name, "args": args})
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": texts.pop()})


@pytest.mark.parametrize("named", [True, False], ids=["by_run", "by_task"])
@pytest.mark.parametrize("suite", SUITES)
def test_recordings_are_whole(recordings, tmp_path, suite, named):
    runs = lines(recordings / f"{suite}.runs.jsonl")
    with (
        Double("model_double", tmp_path, recorded=[recordings / f"{suite}.model.jsonl"]) as model,
        Double("tool_double", tmp_path, recorded=[recordings / f"{suite}.tools.jsonl"]) as tools,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        played = list(pool.map(lambda run: play(model, tools, run, named), runs))
        assert played == [(run["calls"], run["answer"]) for run in runs]
        assert len(tools.ledger("acted")) == sum(len(run["calls"]) for run in runs)
        assert not named or [acted(tools, run["id"]) for run in runs] == [run["calls"] for run in runs]


# ---- by Myelin ----


def late_writes(suite):
    """A script: the first call of each write tool acts, and answers late."""
    return [
        {"match": {"tool": tool, "nth": 1}, "answer": {"act_and_answer_late": LATE_MS}}
        for tool in sorted(write_tools(suite))
    ]


def start_runs(space, suite, runs, directory):
    def start(run):
        path = directory / f"{run['id']}.json"
        path.write_text(json.dumps(run["input"]), encoding="utf-8")
        space.cli("run", f"agentdojo_{suite}", "--id", run["id"], "--input", f"@{path}")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(start, runs))


def kill_while_writing(tools, writes, workers):
    """Kills the worker that has a write in flight which has acted just now, so that nobody has its answer yet; returns its place in
    `workers`, and the write's key."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        ledger = tools.ledger()
        answered = {line["seq"] for line in ledger if line["event"] == "answered"}
        peers = {line["seq"]: line["peer"] for line in ledger if line["event"] == "received"}
        for line in ledger:
            if line["event"] != "acted" or line["tool"] not in writes or line["seq"] in answered:
                continue
            if time.time() * 1000 - line["time_ms"] > LATE_MS / 2:
                continue  # its answer may come before the kill does
            for place, worker in enumerate(workers):
                if holds_connection(worker.pid, peers[line["seq"]]):
                    worker.kill()
                    return place, line["key"]
        time.sleep(0.02)
    raise AssertionError("no write was in flight within 30 s")


def ended(space, runs):
    """The state of every run, when all have ended."""
    until = time.monotonic() + RUNS_SECONDS
    waiting, states = {run["id"] for run in runs}, {}
    while waiting and time.monotonic() < until:
        for run in sorted(waiting):
            state = space.state(run)
            if state["status"] in ("completed", "failed", "cancelled"):
                states[run] = state
                waiting.remove(run)
            else:
                time.sleep(0.2)
                break
    assert not waiting, f"not ended after {RUNS_SECONDS} s: {sorted(waiting)}"
    return states


@pytest.mark.parametrize("suite", SUITES)
def test_agentdojo(recordings, tmp_path, suite):
    runs, writes = lines(recordings / f"{suite}.runs.jsonl"), write_tools(suite)
    with (
        Double("model_double", tmp_path, recorded=[recordings / f"{suite}.model.jsonl"]) as model,
        Double(
            "tool_double", tmp_path, script=late_writes(suite), recorded=[recordings / f"{suite}.tools.jsonl"]
        ) as tools,
        Space(tmp_path / "space") as space,
    ):
        space.env |= {"MODEL_URL": f"{model.url}/v1", "TOOLS_URL": tools.url}
        space.create().publish(HERE / f"{suite}.cfg")
        workers = [space.worker(name) for name in ("a", "b")]
        start_runs(space, suite, runs, tmp_path)
        place, key = kill_while_writing(tools, writes, workers)
        space.worker("ab"[place])
        states = ended(space, runs)

        assert {run: state["reason"] for run, state in states.items() if state["status"] != "completed"} == {}
        for run in runs:
            state = states[run["id"]]
            assert [{"tool": c["tool"], "args": c["arguments"]} for c in state["tool_calls"]] == run["calls"], run["id"]
            assert state["output"]["text"] == run["answer"], run["id"]
            done, wanted = acted(tools, run["id"]), run["calls"]
            assert [c for c in done if c["tool"] in writes] == [c for c in wanted if c["tool"] in writes], run["id"]
        assert len(tools.ledger("received", key=key)) >= 2, "the write in doubt was asked for again, with its key"
