"""The whole worker with thousands of calls in flight: what is done above a stuck one is not done again."""

from harness import Space, wait_until
from history import History, request
from judge import judge

RUNS, STUCK = 5000, 2000  # of five the first two
CONTRACT = """
contract = {
  name = "one_read";
  goal = "Read once.";
  input = { required = ["company"]; properties = { company = { type = "string"; }; }; };
  limits = { deadline = "10m"; steps = 10; llm_tokens = 1000; usd = "1"; };
  boundaries = { allowed_tools = ["crm"]; };
  tools = { crm = { url = "${TOOLS_URL}/crm"; effect = "read"; timeout = "300s"; description = "What the CRM knows.";
                    parameters = { required = ["company"]; properties = { company = { type = "string"; }; }; }; }; };
  start = "look";
  steps = { look = { tool = "crm"; args = "{company: .input.company}"; next = "end"; }; };
};
"""
HOLD = {"match": {"tool": "crm", "args_contain": {"company": "stuck"}, "nth_per_run": 1}, "answer": {"act_and_not_answer": "hold"}}


def ended(history):
    return sum(fact["kind"] == "RunEnded" for fact in history.drain(60).facts())


def test_killed_with_three_of_five_done(tmp_path):
    """▲ One partition, the first call is stuck, 3,000 of 5,000 in flight are done: kill -9, and Redis forgets their results. The next owner
    repeats exactly the other 2,000: it is the offset map that knows."""
    with Space(tmp_path, partitions=1, settings={"in_flight_max": RUNS, "calls_per_endpoint": RUNS}) as space:
        tools = space.double("tool_double", script=[HOLD])
        path = tmp_path / "one_read.cfg"
        path.write_text(CONTRACT)
        space.create().publish(path)
        worker = space.worker("a")
        runs = request(space, "one_read", {
            f"run-{i:04d}": {"company": "stuck" if i % 5 < STUCK * 5 // RUNS else "well"} for i in range(RUNS)})
        history = History(space)
        wait_until("what is not stuck ended", lambda: ended(history) >= RUNS - STUCK, 90, every=1)
        history.close()
        wait_until("all were called", lambda: len(tools.ledger("received", tool="crm")) >= RUNS, 60, every=0.5)
        worker.kill()
        space.forget()
        space.worker("a")
        _, again = judge(space, runs, tools, killed=True, seconds=180)
        assert again == {run: 1 for i, run in enumerate(runs) if i % 5 < STUCK * 5 // RUNS}
