"""Timers and approvals among a load whose workers are killed again and again: reads and writes that failed wait for their time, runs wait for a
person who answers at any moment, also when nobody is there to hear it."""

import random
import time

from harness import Person, Space
from history import request
from judge import judge
from test_crash import HERE, POLICIES

EACH, KILLS = 16, 10
SCRIPT = [
    {"match": {"tool": "crm", "args_contain": "later", "nth_per_run": 1}, "answer": {"fail_before_acting": 503, "retry_after": 2}},
    {"match": {"tool": "send", "args_contain": "later", "nth_per_run": 1}, "answer": {"fail_before_acting": 429, "retry_after": 2}},
    {"match": {"tool": "send", "args_contain": "retry"}, "answer": {"honour_keys": True, "act_and_answer_late": 200}},
    {"match": {"tool": "send"}, "answer": {"act_and_answer_late": 200}},
    {"match": {"tool": "crm"}, "answer": {"delay_ms": 150}},
]


def test_killed_again_and_again(tmp_path):
    """Every run ends, each e-mail is sent once, whatever a doubt about it is settled by."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    with Space(tmp_path, partitions=3, settings={"settle": '"500ms"', "backoff": '"200ms"', "crashes_max": 100}) as space:
        tools = space.double("tool_double", script=SCRIPT)
        space.create()
        runs = []
        for policy, text in POLICIES.items():
            path = tmp_path / f"{policy}.cfg"
            path.write_text((HERE / "crash.cfg").read_text().replace("@ON_DOUBT@", text).replace('name = "crash"', f'name = "{policy}"'))
            space.publish(path)
            names = [f"{policy}-{'later' if i % 2 else 'soon'}-{i}" for i in range(EACH)]
            runs += request(space, policy, {name: {"to": f"{name}@acme.example"} for name in names})
        workers = {slot: space.worker(slot) for slot in "ab"}
        with Person(space, tools):
            for _ in range(KILLS):
                time.sleep(dice.uniform(0.3, 1.5))  # at any moment
                for slot in dice.choice(["a", "b", "ab"]):
                    workers[slot].kill()
                    workers[slot] = space.worker(slot, ready=False)
            states, _ = judge(space, runs, tools, killed=True, seconds=240)
    assert all(state["approvals"][0]["decision"] == "approved" for state in states.values())
    later = [run for run in runs if "later" in run]  # but what was answered as its worker died is not known to have failed
    waited = [run for run in later if states[run]["retries"]]
    assert len(waited) > len(later) // 2, f"retried: {waited}"
