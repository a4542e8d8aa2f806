"""The deadline of a run passes while its write is in doubt: what can be settled without a person is settled first."""

import pathlib

import pytest
from harness import Space
from test_crash import POLICIES

HERE = pathlib.Path(__file__).resolve().parent


@pytest.mark.parametrize("policy,how", [("retry", "retry"), ("probe", "probe")])
def test_a_doubt_outlives_the_deadline(tmp_path, policy, how):
    contract = (HERE / "crash.cfg").read_text().replace("@ON_DOUBT@", POLICIES[policy])
    for old, new in (('deadline = "10m"', 'deadline = "4s"'), ('timeout = "5m"', 'timeout = "3s"')):
        assert old in contract
        contract = contract.replace(old, new)
    with Space(tmp_path, partitions=1, settings={"settle": '"4s"', "backoff": '"100ms"'}) as space:
        # It acts, and does not answer within its timeout of 2 s: nobody may act before 6 s, and the deadline is 4.
        tools = space.double("tool_double", *(["--honour-keys"] if policy == "retry" else []),
                             script=[{"times": 1, "match": {"tool": "send"}, "answer": {"act_and_not_answer": "hold"}}])
        path = tmp_path / "crash.cfg"
        path.write_text(contract)
        space.create().publish(path)
        space.worker("a")
        space.start("crash", {"to": "jane@acme.example"}, run="r1")
        space.wait_approval("r1")
        space.cli("approve", "r1", "approve")
        state = space.wait_status("r1", "completed", "failed", seconds=30)
        assert [(d["settled"], d["how"], d["outcome"]) for d in state["doubts"]] == [(True, how, "done")]
        assert len(state["committed_side_effects"]) == 1
        assert len(tools.ledger("acted", tool="send")) == 1
