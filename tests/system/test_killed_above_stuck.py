"""The whole worker with hundreds of calls in flight: what is done above a stuck one is not done again."""

import collections
import json
import re
import subprocess
import time
import uuid

import confluent_kafka
from harness import Space, wait_until
from history import History, encode

RUNS, STUCK = 250, 100  # of five the first two; a worker has 256 connections to one host
CONTRACT = """
contract = {
  name = "one_read";
  goal = "Read once.";
  input = { required = ["company"]; properties = { company = { type = "string"; }; }; };
  limits = { deadline = "10m"; steps = 10; llm_tokens = 1000; usd = "1"; };
  boundaries = { allowed_tools = ["crm"]; };
  tools = { crm = { url = "${TOOLS_URL}/crm"; effect = "read"; timeout = "100s"; description = "What the CRM knows.";
                    parameters = { required = ["company"]; properties = { company = { type = "string"; }; }; }; }; };
  start = "look";
  steps = { look = { tool = "crm"; args = "{company: .input.company}"; next = "end"; }; };
};
"""
HOLD = {"match": {"tool": "crm", "args_contain": {"company": "stuck"}, "nth_per_run": 1}, "answer": {"act_and_not_answer": "hold"}}


def ask_for_all(space, version):
    """As a producer does, all at once."""
    producer = confluent_kafka.Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "partitioner": "murmur2_random"})
    for i in range(RUNS):
        run = f"run-{i:04d}"
        request = {"run": run, "request_id": str(uuid.uuid4()), "contract": "one_read", "contract_hash": version, "by": "test",
                   "at_ms": int(time.time() * 1000), "input": json.dumps({"company": "stuck" if i % 5 < STUCK * 5 // RUNS else "well"})}
        producer.produce(f"{space.name}.inbox", encode("RunRequested", request), run)
    assert producer.flush(30) == 0


def ended(history):
    history.drain()
    return len({fact["run"] for fact in history.facts() if fact["kind"] == "RunEnded"})


def test_killed_with_three_of_five_done(tmp_path):
    """One partition, the first call is stuck, three of five are done: kill -9, and Redis forgets their results. The next owner
    repeats exactly the others: it is the offset map that knows."""
    with Space(tmp_path, partitions=1) as space:
        tools = space.double("tool_double", script=[HOLD])
        path = tmp_path / "one_read.cfg"
        path.write_text(CONTRACT)
        space.create().publish(path)
        worker = space.worker("a")
        known = worker.wait_log("contract=one_read hash=").log()
        ask_for_all(space, re.search(r"contract=one_read hash=(\w+)", known).group(1))
        history = History(space)
        wait_until("what is not stuck ended", lambda: ended(history) >= RUNS - STUCK, 90, every=0.3)
        wait_until("all were called", lambda: len(tools.ledger("received", tool="crm")) >= RUNS, 60, every=0.3)
        worker.kill()
        port = space.env["MYELIN_REDIS"].split(":")[1]
        subprocess.run(["redis-cli", "-p", port, "flushall"], check=True, stdout=subprocess.DEVNULL)
        space.worker("a")
        wait_until("all runs ended", lambda: ended(history) >= RUNS, 120, every=0.3)
        history.close()
        calls = collections.Counter(line["run"] for line in tools.ledger("received", tool="crm"))
        stuck = {f"run-{i:04d}" for i in range(RUNS) if i % 5 < STUCK * 5 // RUNS}
        assert len(calls) == RUNS and {run for run, count in calls.items() if count > 1} == stuck
        assert set(calls.values()) == {1, 2}
        assert space.json("dead", "list") == []
