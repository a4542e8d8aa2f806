"""The admin port: what it counts is what `history` says, its text is what Prometheus reads, and nobody can hurt a worker by it."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from doubles import ROOT
from harness import Space, wait_until
from history import History
from prometheus_client.parser import text_string_to_metric_families

CONTRACT = ROOT / "config" / "contracts" / "customer_research_to_followup.cfg"
NAME = "customer_research_to_followup"
INPUT = {"company": "Acme GmbH", "contact": "jane@acme.example"}
SCRIPT = json.loads((ROOT / "tests" / "demo" / "model.json").read_text())
ROGUE = {"name": "rogue", "times": 1, "match": {"system_contains": "You research companies", "turn": 2},
         "answer": {"tool_calls": [{"name": "send_email", "arguments": {"to": "x@y.example", "subject": "s", "body": "b"}}]}}
FAILS_ONCE = [{"match": {"tool": "search", "nth": 1}, "answer": {"fail_before_acting": 503}},
              {"match": {"tool": "send", "nth": 1}, "answer": {"act_and_not_answer": "cut"}}]


def fast(script):
    return [{**rule, "answer": {k: v for k, v in rule["answer"].items() if k != "delay_ms"}} for rule in script]


@pytest.fixture
def space(tmp_path):
    with Space(tmp_path, partitions=2, settings={"backoff": '"50ms"', "settle": '"200ms"'}) as space:
        space.env |= {"MODEL_USD_IN": "2.50", "MODEL_USD_OUT": "10"}
        yield space


def port_of(worker):
    worker.wait_log("event=admin.listens")
    return int(re.search(r"event=admin\.listens .*port=(\d+)", worker.log()).group(1))


def get(worker, path, method="GET", data=None):
    """(status, body, headers)"""
    request = urllib.request.Request(f"http://127.0.0.1:{port_of(worker)}{path}", method=method, data=data)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def check_conventions(text, families):
    """What `promtool check metrics` and the format's description ask for."""
    assert text.endswith("\n") and "\r" not in text
    names = re.findall(r"^# TYPE (\S+) \S+$", text, re.M)
    assert len(names) == len(set(names)) and names == re.findall(r"^# HELP (\S+) \S", text, re.M)
    assert len(families) == len(names), "all samples of a metric stand together"
    samples = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples)), "no sample twice"
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        assert re.fullmatch(r"(myelin|process)_[a-z][a-z_]*", name)
        assert (kind == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(count|sum|bucket|counter|gauge|histogram|milliseconds|ms|minutes|hours)(_|$)", name), name
    for family in families:
        if family.type == "histogram":
            check_histogram(family)


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: ops/setup test")


def promtool(text):
    """What Prometheus' own check says of it; "" = nothing."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode == 0 else f"exit {done.returncode}: {done.stdout}{done.stderr}"


def check_histogram(family):
    groups = {}
    for sample in family.samples:
        labels = {k: v for k, v in sample.labels.items() if k != "le"}
        groups.setdefault(tuple(sorted(labels.items())), []).append(sample)
    for samples in groups.values():
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
        assert [v for _, v in buckets] == sorted(v for _, v in buckets), "buckets are cumulative"
        assert [s.value for s in samples if s.name.endswith("_count")] == [buckets[-1][1]]
        assert [s.name for s in samples][-2:] == [f"{family.name}_sum", f"{family.name}_count"]


def scrape(worker):
    """{name: {labels: value}}; labels as a tuple of their values, in order of the labels' names."""
    status, text, headers = get(worker, "/metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(text))
    check_conventions(text, families)
    values = {}
    for family in families:
        for sample in family.samples:
            key = tuple(v for _, v in sorted(sample.labels.items()))
            values.setdefault(sample.name.removeprefix("myelin_"), {})[key] = sample.value
    return values


def facts_of(space, run):
    history = History(space).drain()
    facts = history.facts(run)
    history.close()
    return facts


def ready(worker):
    return wait_until("the worker is ready", lambda: get(worker, "/ready")[0] == 200)


def test_the_numbers_are_those_of_the_facts(space):
    tools = space.double("tool_double", script=FAILS_ONCE)
    space.double("model_double", script=fast([ROGUE] + SCRIPT))
    space.create().publish(CONTRACT)
    worker = space.worker("a")
    ready(worker)
    before = scrape(worker)
    assert before["runs_started_total"][()] == 0 and before["ready"][()] == 1 and before["redis_up"][()] == 1
    assert before["partitions_owned"][()] == 4 and before["steps_in_flight_limit"][()] == 1000
    assert before["memory_limit_bytes"][()] == 512 * 2**20 and sum(before["memory_used_bytes"].values()) < 2**20
    assert set(before["steps_waiting"]) == {("endpoint",), ("in_flight",), ("memory",), ("window",)}
    wait_until("Kafka's state is known", lambda: scrape(worker)["kafka_brokers_connected"][()] == 1, 10)
    assert before["worker_info"] == {(space.name, "a"): 1}
    assert abs(before["process_start_time_seconds"][()] - time.time()) < 60

    run = space.start(NAME, INPUT)
    space.wait_approval(run)
    waiting = wait_until("the approval is parked", lambda: (n := scrape(worker))["steps_parked"][()] == 1 and n, 10)
    assert waiting["runs_open"][()] == 1 and waiting["runs_ended_total"][("completed",)] == 0
    space.cli("approve", run, "approve_final_email")
    space.wait_status(run, "completed")
    after = wait_until("the run is closed", lambda: (n := scrape(worker))["runs_open"][()] == 0 and n, 10)
    facts = facts_of(space, run)
    bodies = {kind: [f["body"] for f in facts if f["kind"] == kind] for kind in {f["kind"] for f in facts}}

    assert after["runs_started_total"][()] == len(bodies["RunStarted"]) == 1
    assert after["runs_ended_total"] == {("completed",): len(bodies["RunEnded"]), ("failed",): 0}
    refusals = [b["rule"] for b in bodies["CallRefused"]]
    assert refusals and after["refusals_total"] == {(rule,): refusals.count(rule) for rule in refusals}
    retries = [b for b in bodies["CallFailed"] if b["retry"]]
    assert retries and after["retries_total"] == {("call",): len(retries), ("output",): len(
        [b for b in bodies.get("OutputRejected", []) if b["retry"]])}
    assert after["doubts_total"][()] == len(bodies["InDoubt"]) == 1
    settled = [(b["how"], b["outcome"]) for b in bodies["DoubtSettled"] if b["outcome"] != "unknown"]
    assert settled and after["doubts_settled_total"] == {key: settled.count(key) for key in settled}
    assert len(tools.ledger("acted", tool="send")) == 1

    models = bodies["ModelAnswered"]
    for label, field in (("input", "tokens_in"), ("output", "tokens_out")):
        for model in {m["model"] for m in models}:
            assert after["llm_tokens_total"][(label, model)] == sum(m[field] for m in models if m["model"] == model)
            cost = sum(m["micro_usd"] for m in models if m["model"] == model) / 1e6
            assert cost > 0 and after["llm_cost_usd_total"][(model,)] == pytest.approx(cost)
    calls = {key: value for key, value in after["calls_total"].items() if value}
    assert calls[("answered", "model")] == len(models)
    assert calls[("answered", "tool")] == len([b for b in bodies["ToolAnswered"] if b["origin"].lower() == "called"])
    assert calls[("failed", "tool")] == len(bodies["CallFailed"])
    assert calls[("doubt", "tool")] == 1 and calls[("answered", "probe")] == 1
    assert after["call_duration_seconds_count"][("model",)] == len(models)

    steps = {(f["source_topic"], f["source_partition"], f["source_offset"]) for f in facts if ".steps." in f["source_topic"]}
    assert after["deliveries_total"][()] == len({s for s in steps if s[2] >= 0})
    assert after["records_committed_total"][()] == after["commit_records_sum"][()] > len(steps)
    assert after["commit_duration_seconds_count"][()] == after["commit_records_count"][()] > 0
    assert after["oldest_uncommitted_seconds"][()] == after["window_used_ratio"][()] == sum(after["steps_waiting"].values()) == 0
    assert sum(after["memory_used_bytes"].values()) < 2**20
    wait_until("nothing is left to take", lambda: set(scrape(worker)["consumer_lag_records"].values()) == {0}, 10)
    assert sum(after["steps_in_flight"].values()) == after["records_waiting_for_commit"][()] == 0
    assert after["dead_letters_total"][()] == after["transactions_aborted_total"][()] == 0
    assert after["process_cpu_seconds_total"][()] > before["process_cpu_seconds_total"][()]
    text = get(worker, "/metrics")[1]
    named = re.findall(r'OF\((?:COUNTER|GAUGE|HISTOGRAM), "(\w+)"', (ROOT / "worker" / "io" / "metrics.c").read_text())
    assert len(named) >= 40 and [name for name in named if f"# TYPE {name} " not in text] == [], "all of the table"
    assert promtool(text) == ""


@needs_promtool
def test_promtool_finds_a_wrong_name(space):
    space.create()
    worker = space.worker("a")
    ready(worker)
    text = get(worker, "/metrics")[1]
    assert promtool(text) == ""
    for wrong, says in (("myelin_deliveries", 'counter metrics should have "_total" suffix'), ("myelin_deliveriesNow_total", "camelCase"),
                        ("myelin_deliveries_milliseconds_total", 'use base unit "seconds"')):
        assert says in promtool(text.replace("myelin_deliveries_total", wrong))
    assert "no help text" in promtool(re.sub("# HELP myelin_ready .*\n", "", text))


def test_calls_in_flight_and_stopping(space):
    """A call under way is seen by its class; a worker that stops says so, and lives until it has ended."""
    space.double("tool_double", script=[{"match": {"tool": "crm"}, "answer": {"delay_ms": 1500}}])
    space.create()
    text = (ROOT / "tests" / "system" / "crash.cfg").read_text().replace("@ON_DOUBT@", 'on_doubt = "ask";')
    path = space.directory / "crash.cfg"
    path.write_text(text)
    space.publish(path)
    worker = space.worker("a")
    ready(worker)
    space.start("crash", {"to": "jane@acme.example"})
    wait_until("the call is in flight", lambda: scrape(worker)["steps_in_flight"][("read", "tool")] == 1, 10)
    during = scrape(worker)
    assert during["http_requests_in_flight"][()] == 1 and during["http_answers_paused"][()] == 0
    assert during["oldest_uncommitted_seconds"][()] > 0 and during["window_used_ratio"][()] > 0
    assert during["memory_used_bytes"][("steps",)] > 40 * 1024 > during["memory_used_bytes"][("events",)] > 0
    worker.process.terminate()
    assert wait_until("it says that it stops", lambda: get(worker, "/ready")[0] == 503, 5, every=0.01)
    assert get(worker, "/ready")[1] == "stopping\n" and get(worker, "/live")[0] == 200
    assert worker.process.wait(20) == 0


def test_ready_says_why_not(space):
    space.create()
    worker = space.worker("a", MYELIN_REDIS="127.0.0.1:9")
    wait_until("only Redis is missing", lambda: get(worker, "/ready")[:2] == (503, "Redis does not answer\n"))
    assert get(worker, "/live")[:2] == (200, "live\n")
    numbers = scrape(worker)
    assert numbers["redis_up"][()] == numbers["redis_writes_allowed"][()] == numbers["ready"][()] == 0


def test_bad_requests(space):
    space.create()
    worker = space.worker("a")
    ready(worker)
    assert get(worker, "/nothing")[0] == 404 and get(worker, "/metrics/")[0] == 404
    assert get(worker, "/metrics?x=y")[0] == 200
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        status, _, headers = get(worker, "/metrics", method, b"x" * 100000 if method in ("POST", "PUT") else None)
        assert status == 405 and headers["Allow"] == "GET"
    for bytes_ in (b"\0" * 1000, b"GET /" + b"a" * 100000, b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 20000, b""):
        with socket.create_connection(("127.0.0.1", port_of(worker)), 10) as connection:
            try:
                connection.sendall(bytes_)
                connection.shutdown(socket.SHUT_WR)
                assert b" 200 " not in connection.recv(1000)
            except OSError:  # reset, or closed before it was read
                pass
    connection = http.client.HTTPConnection("127.0.0.1", port_of(worker), timeout=10)
    for _ in range(3):  # one connection, several requests
        connection.request("GET", "/live")
        assert connection.getresponse().read() == b"live\n"
    connection.close()
    assert get(worker, "/ready")[0] == 200
    assert worker.terminate() == 0


def test_two_workers_on_one_machine(space):
    """The second finds the port taken: it takes another, says so, and works."""
    space.create()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one = space.worker("a", MYELIN_ADMIN=f"127.0.0.1:{port}")
    two = space.worker("b", MYELIN_ADMIN=f"127.0.0.1:{port}")
    assert port_of(one) == port != port_of(two)
    assert "event=admin.port_taken" in two.log() and "event=admin.port_taken" not in one.log()
    for worker in (one, two):
        ready(worker)
    assert one.terminate() == 0
    assert port_of(space.worker("c", MYELIN_ADMIN=f"127.0.0.1:{port}")) == port, "at once again, after a restart"


@pytest.mark.parametrize("address, status, says", [
    ("192.0.2.1:9464", 69, "cannot listen there"), ("9464", 78, "must be IP:PORT"), ("localhost:9464", 78, "must be IP:PORT"),
    ("127.0.0.1:65536", 78, "must be IP:PORT")])
def test_an_address_that_cannot_be(space, address, status, says):
    worker = space.worker("a", ready=False, MYELIN_ADMIN=address)
    assert worker.process.wait(20) == status
    assert says in worker.log() and "rebalance" not in worker.log()


def test_it_can_be_switched_off(tmp_path):
    with Space(tmp_path, partitions=1, settings={"admin": '""'}) as space:
        space.create()
        worker = space.worker("a")
        assert "event=admin" not in worker.log()
        assert worker.terminate() == 0
