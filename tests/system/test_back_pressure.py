"""Credits: memory stays under its budget whatever comes back, and what hangs or is slow holds up nothing but itself."""

import http.server
import json
import random
import re
import threading
import time
import uuid

import confluent_kafka
import pytest
from harness import Space, wait_until
from history import History, encode, request
from test_metrics import scrape

CONTRACT = """
contract = {
  name = "ask";
  goal = "Ask once.";
  input = { required = ["what"]; properties = { what = { type = "string"; }; }; };
  limits = { deadline = "@DEADLINE@"; steps = 50; };
  boundaries = { allowed_tools = ["ask", "hang"]; };
  tools = {
    ask = { url = "${TOOLS_URL}/ask"; effect = "@EFFECT@"; timeout = "100s";
            parameters = { required = ["what"]; properties = { what = { type = "string"; }; }; }; };
    hang = { url = "${HANG_URL}/ask"; effect = "read"; timeout = "100s";
             parameters = { required = ["what"]; properties = { what = { type = "string"; }; }; }; };
  };
  start = "which";
  steps = {
    which = { router = ( { when = ".input.what == 'hang'"; next = "hang"; }, { else = "ask"; } ); };
    ask  = { tool = "ask"; args = "{what: .input.what}"; next = "end"; };
    hang = { tool = "hang"; args = "{what: .input.what}"; next = "end"; };
  };
};
"""
FINE = {"match": {"tool": "ask"}, "answer": {"result": {}}}
MIB = 2**20
OVERHEAD = 40 * MIB  # what config/worker.cfg says that comes on top


def open_space(directory, partitions=2, effect="read", **settings):
    space = Space(directory, partitions=partitions, settings={"backoff": '"50ms"', **settings})
    space.versions = set()
    space.env["HANG_URL"] = "http://127.0.0.1:9"
    space.create()
    publish(space, effect)
    return space


def publish(space, effect="read", deadline="10m"):
    """What is asked for from now on has this contract."""
    path = space.directory / "ask.cfg"
    path.write_text(CONTRACT.replace("@EFFECT@", effect).replace("@DEADLINE@", deadline))
    space.publish(path)
    known = {one["hash"] for one in space.json("contract", "list")}
    space.version = (known - space.versions).pop()
    space.versions = known


def ask_for(space, what, runs):
    """As a producer does, all at once."""
    producer = confluent_kafka.Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "partitioner": "murmur2_random"})
    for run in runs:
        wanted = {"run": run, "request_id": str(uuid.uuid4()), "contract": "ask", "contract_hash": space.version, "by": "test",
                   "at_ms": int(time.time() * 1000), "input": json.dumps({"what": what})}
        producer.produce(f"{space.name}.inbox", encode("RunRequested", wanted), run)
    assert producer.flush(30) == 0
    return list(runs)


class Ends:
    """How runs ended, from `history`."""

    def __init__(self, space):
        self.history, self.of = History(space), {}

    def look(self):
        self.history.messages.clear()
        self.history.drain()
        for fact in self.history.facts():
            if fact["kind"] == "RunEnded":
                self.of[fact["run"]] = fact["body"]
        return self.of

    def all(self, runs):
        ends = self.look()
        return all(run in ends for run in runs)


def peak_of(worker):
    """Bytes that were resident at most."""
    with open(f"/proc/{worker.pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024


@pytest.mark.parametrize("effect, runs, size, memory, reason", [
    # Read to its last byte, and then known to be too large: what comes after an answer costs more time than its memory.
    ("read", 5000, MIB + 1, 512, "the answer is over 1048576 bytes"),
    # Through Redis and Kafka.
    ("read", 200, 500_000, 64, "completed"),
    ('write"; on_doubt = "ask', 200, 500_000, 64, "completed"),
], ids=["5000-of-1-MiB", "reads", "writes"])
def test_memory_stays_under_its_budget(tmp_path, effect, runs, size, memory, reason):
    """No answer comes before all calls are in flight, then all of them at once: many times what may be held."""
    with open_space(tmp_path, effect=effect, in_flight_max=runs, calls_per_endpoint=runs, memory_max=f'"{memory}MiB"') as space:
        space.double("fast_tool", "--size", str(size), "--gather", str(runs))
        worker = space.worker("a")
        began = time.monotonic()
        ids = ask_for(space, "big", [f"run-{i:05d}" for i in range(runs)])
        ends = Ends(space)
        wait_until("all ended", lambda: ends.all(ids), 180, every=0.5)
        peak = peak_of(worker)
        print(f"{runs} answers of {size}: {time.monotonic() - began:.1f} s, peak {peak / MIB:.0f} MiB of {memory} + {OVERHEAD / MIB:.0f}")
        space.forget()  # it is much, and the next test wants some
        assert peak <= memory * MIB + OVERHEAD
        assert [end["reason"] for end in ends.of.values() if reason not in end["reason"]] == []
        assert [line for line in worker.log().splitlines() if "level=error" in line] == []


TALK = """
contract = {
  name = "talk"; goal = "Read it.";
  limits = { deadline = "10m"; steps = 50; llm_tokens = 1000000000; };
  boundaries = { allowed_tools = ["ask"]; };
  tools = { ask = { url = "${TOOLS_URL}/ask"; effect = "read"; timeout = "100s"; description = "Gives a page.";
                    parameters = { properties = { page = { type = "integer"; }; }; }; }; };
  agents = { reader = { model = "default"; system = "Read."; tools = ["ask"]; turns_max = 4; }; };
  steps = { go = { agent = "reader"; sees = ".input.what"; next = "end"; }; };
};
"""


def test_memory_of_what_steps_name(tmp_path):
    """The step events are small, but their conversations, which they name, are not. While a model is slow, only so many runs are
    whole as there is memory for."""
    runs, page, memory = 60, 450_000, 64
    text = random.Random(1).randbytes(page // 2).hex()
    asks = [{"match": {"turn": turn}, "answer": {"tool_calls": [{"name": "ask", "arguments": {"page": turn}}]}} for turn in (0, 1)]
    slow = {"match": {"turn": 2}, "answer": {"content": "Done.", "delay_ms": 3000}}
    with open_space(tmp_path, memory_max=f'"{memory}MiB"') as space:
        space.double("tool_double", script=[{"match": {"tool": "ask"}, "answer": {"result": {"page": text}}}])
        space.double("model_double", script=[*asks, slow])
        path = space.directory / "talk.cfg"
        path.write_text(TALK)
        space.publish(path)
        worker = space.worker("a")
        began = time.monotonic()
        ids = request(space, "talk", {f"run-{i:03d}": {"what": "All of it."} for i in range(runs)})
        ends = Ends(space)
        wait_until("all ended", lambda: ends.all(ids), 120, every=0.5)
        peak = peak_of(worker)
        print(f"{runs} runs of {2 * page}: {time.monotonic() - began:.1f} s, peak {peak / MIB:.0f} MiB of {memory} + {OVERHEAD / MIB:.0f}")
        space.forget()
        assert peak <= memory * MIB + OVERHEAD
        assert [end["reason"] for end in ends.of.values() if end["reason"] != "completed"] == []
        assert [line for line in worker.log().splitlines() if "level=error" in line] == []


class Hanging:
    """Takes every connection, and answers none until it is told to."""

    def __init__(self, space):
        self.go = threading.Event()
        go = self.go

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                go.wait(120)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        http.server.ThreadingHTTPServer.request_queue_size = 1000
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        space.env["HANG_URL"] = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.go.set()
        self.server.shutdown()
        self.server.server_close()


def test_an_endpoint_that_hangs_starves_nobody(tmp_path):
    """More runs call it than may be in flight at all; runs that call another one go on behind them, in the same partitions."""
    with open_space(tmp_path, in_flight_max=40, calls_per_endpoint=10) as space, Hanging(space) as hanging:
        space.double("tool_double", script=[FINE])
        worker = space.worker("a")
        stuck = ask_for(space, "hang", [f"stuck-{i:03d}" for i in range(200)])
        wait_until("the endpoint has all that it gets", lambda: scrape(worker)["http_requests_in_flight"][()] == 10, 30)
        ends = Ends(space)
        well = ask_for(space, "well", [f"well-{i:03d}" for i in range(60)])
        wait_until("the others end", lambda: ends.all(well), 20, every=0.1)
        assert not any(run in ends.of for run in stuck)
        numbers = scrape(worker)
        assert numbers["http_requests_in_flight"][()] == 10 and numbers["steps_waiting"][("endpoint",)] == 190
        assert sum(numbers["steps_in_flight"].values()) == 10 and numbers["oldest_uncommitted_seconds"][()] > 0
        hanging.go.set()
        wait_until("then these end too", lambda: ends.all(stuck), 30, every=0.1)
        assert {end["status"].lower() for end in ends.of.values()} == {"completed"}


def test_deadline_of_one_that_waits(tmp_path):
    """A run whose step waits for an endpoint ends when its time is up, whoever has the endpoint."""
    with open_space(tmp_path, in_flight_max=40, calls_per_endpoint=2) as space, Hanging(space):
        worker = space.worker("a")
        ask_for(space, "hang", ["first-0", "first-1"])
        wait_until("the endpoint has all that it gets", lambda: scrape(worker)["http_requests_in_flight"][()] == 2, 30)
        publish(space, deadline="3s")
        runs = ask_for(space, "hang", [f"run-{i}" for i in range(20)])
        ends = Ends(space)
        wait_until("all ended", lambda: ends.all(runs), 20, every=0.1)
        assert set(ends.of) == set(runs) and all("deadline" in end["reason"] for end in ends.of.values())


def murmur2(data):
    """Kafka's hash of a key (org.apache.kafka.common.utils.Utils)."""
    m, mask = 0x5bd1e995, 0xffffffff
    h = (0x9747b28c ^ len(data)) & mask
    for i in range(0, len(data) // 4 * 4, 4):
        k = int.from_bytes(data[i:i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    rest = data[len(data) // 4 * 4:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def runs_of(partition, count, name, partitions=2):
    found, i = [], 0
    while len(found) < count:
        run, i = f"{name}-{i}", i + 1
        if (murmur2(run.encode()) & 0x7fffffff) % partitions == partition:
            found.append(run)
    return found


def test_a_slow_partition_does_not_slow_another(tmp_path):
    """Hundreds of slow calls of one partition wait for the same endpoint: those of another take turns with them."""
    slow = [{"match": {"tool": "ask", "args_contain": {"what": "slow"}}, "answer": {"delay_ms": 400}}]
    with open_space(tmp_path, in_flight_max=100, calls_per_endpoint=4) as space:
        space.double("tool_double", script=[*slow, FINE])
        worker = space.worker("a")
        behind = ask_for(space, "slow", runs_of(0, 300, "slow"))  # 30 s of work
        wait_until("they wait", lambda: scrape(worker)["deliveries_total"][()] >= 300, 30)
        ends = Ends(space)
        began = time.monotonic()
        quick = ask_for(space, "quick", runs_of(1, 10, "quick"))
        wait_until("those of the other partition end", lambda: ends.all(quick), 10, every=0.1)
        left = [run for run in behind if run not in ends.of]
        print(f"{time.monotonic() - began:.1f} s beside {len(left)} that are slow")
        assert len(left) > 200
