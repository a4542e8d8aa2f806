"""Many runs at once through two workers: each e-mail once."""

from harness import Space, wait_until
from judge import judge
from test_boundary import CONTRACT, INPUT, NAME, SCRIPT, fast

RUNS = 100


def test_a_hundred_runs_at_once(tmp_path):
    with Space(tmp_path, partitions=4) as space:
        tools = space.double("tool_double")
        space.double("model_double", script=fast(SCRIPT))
        space.create().publish(CONTRACT)
        for slot in ("a", "b"):
            space.worker(slot)
        runs = [space.start(NAME, INPUT, run=f"run-{i:03d}") for i in range(RUNS)]
        done = set()

        def all_decided():
            for waiting in space.json("approvals"):
                if waiting["run"] not in done:
                    space.cli("approve", waiting["run"], "approve_final_email")
                    done.add(waiting["run"])
            return len(done) == RUNS

        wait_until("every run was approved", all_decided, 120, every=0.2)
        judge(space, runs, tools)
