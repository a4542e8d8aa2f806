"""An e-mail that no person approved cannot be sent, whoever asks for it and however."""

import json
import re
import time
import uuid

import pytest
from doubles import ROOT
from harness import Refused, Space, wait_until
from history import encode, produce

CONTRACT = ROOT / "config" / "contracts" / "customer_research_to_followup.cfg"
NAME = "customer_research_to_followup"
INPUT = {"company": "Acme GmbH", "contact": "jane@acme.example"}
SCRIPT = json.loads((ROOT / "tests" / "demo" / "model.json").read_text())


def fast(script):
    return [{**rule, "answer": {k: v for k, v in rule["answer"].items() if k != "delay_ms"}} for rule in script]


@pytest.fixture
def space(tmp_path):
    with Space(tmp_path, partitions=2, settings={"backoff": '"50ms"'}) as space:
        space.tools = space.double("tool_double")
        yield space


def begin(space, script=SCRIPT, contract=CONTRACT):
    space.model = space.double("model_double", script=fast(script))
    space.create().publish(contract)
    space.worker("a")
    return space


def sends(space):
    return space.tools.ledger("received", tool="send")


def test_the_model_asks_for_it_directly(space):
    """The tool is not the agent's, and nobody approved: refused as a fact, told to the model, which goes on."""
    asks = {"name": "rogue", "times": 1, "match": {"system_contains": "You research companies", "turn": 2},
            "answer": {"tool_calls": [{"name": "send_email", "arguments": {"to": "x@y.example", "subject": "s", "body": "b"}}]}}
    begin(space, [asks] + [rule for rule in SCRIPT])
    run = space.start(NAME, INPUT)
    space.wait_approval(run)
    state = space.state(run)
    assert [(r["tool"], r["rule"]) for r in state["refusals"]][-1] == ("send_email", "boundaries.forbidden_actions")
    assert sends(space) == []


def force(space, text, name=NAME):
    """Puts a contract on `control` as publish would, but past its check."""
    from hashlib import sha256

    done = space.cli("contract", "publish", CONTRACT)
    assert done.returncode == 0
    published = space.json("contract", "list")
    assert published
    canonical = json.dumps(text, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = sha256(canonical.encode()).hexdigest()
    produce(space, "control", f"contract/{name}/{digest}", encode("ContractPublished", {
        "name": name, "hash": digest, "canonical": canonical, "by": "mallory", "at_ms": int(time.time() * 1000)}))
    return digest


def request(space, digest, run):
    produce(space, "inbox", run, encode("RunRequested", {
        "run": run, "request_id": str(uuid.uuid4()), "contract": NAME, "contract_hash": digest, "input": json.dumps(INPUT),
        "by": "mallory", "at_ms": int(time.time() * 1000)}))


def canonical_of(space):
    """The canonical form of the shipped contract, as it stands on `control`."""
    from history import History, decode

    history = History(space, "control").drain()
    records = [decode(m.value()) for m in history.messages if m.key().startswith(b"contract/")]
    history.close()
    return next(json.loads(r["canonical"]) for name, r in records if name.endswith("ContractPublished"))


def test_a_contract_without_the_approval_cannot_be_published(space, tmp_path):
    text = CONTRACT.read_text()
    text, count = re.subn(r'next = "approve_final_email"', 'next = "send"', text)
    assert count == 1
    path = tmp_path / "skips.cfg"
    path.write_text(text)
    space.create()
    with pytest.raises(Refused) as refused:
        space.publish(path)
    assert "approve_final_email" in str(refused.value)


def test_a_contract_that_is_forced_into_the_topic_is_refused_by_the_worker(space):
    begin(space)
    contract = canonical_of(space)
    steps = contract.get("contract", contract)["steps"]
    steps["draft"]["next"] = "send"
    digest = force(space, contract)
    request(space, digest, "forced")
    space.workers[0].wait_log("event=contract.refused")
    wait_until("the request is answered", lambda: "the contract is refused" in json.dumps(answers(space, "forced")), 20)
    assert sends(space) == []


def answers(space, run):
    from history import History

    history = History(space).drain()
    facts = [f["body"] for f in history.facts(run) if f["kind"] == "RequestAnswered"]
    history.close()
    return facts


def test_arguments_that_change_after_the_approval(space, tmp_path):
    """What was shown is what may be sent: here the body reads the time, so it is another one when the call is made."""
    text = CONTRACT.read_text()
    text, count = re.subn(r"body: \.draft\.body", r"body: (.draft.body + (.run.age_s | tostring))", text)
    assert count == 1
    path = tmp_path / "changes.cfg"
    path.write_text(text)
    begin(space, contract=path)
    run = space.start(NAME, INPUT)
    asked = space.wait_approval(run)
    wait_until("a second has passed", lambda: time.time() * 1000 > space.state(run)["started_at_ms"] + 2100, 10, every=0.1)
    space.cli("approve", run, "approve_final_email")
    state = space.wait_status(run, "failed")
    assert asked["arguments"] and state["refusals"][-1]["reason"] == "the arguments are not the ones that were approved"
    assert sends(space) == []


def decide(space, run, visit, args_hash):
    request_id = str(uuid.uuid4())
    produce(space, "inbox", run, encode("Decision", {
        "run": run, "request_id": request_id, "step": "approve_final_email", "visit": visit, "args_hash": args_hash,
        "approved": True, "by": "mallory", "reason": None, "at_ms": int(time.time() * 1000)}))
    return wait_until("the decision is answered",
                      lambda: [a for a in answers(space, run) if a["request_id"] == request_id], 20, every=0.1)[0]


def test_an_approval_for_another_run_or_visit(space):
    begin(space)
    one, two = (space.start(NAME, INPUT) for _ in range(2))
    mine, other = space.wait_approval(one), space.wait_approval(two)
    assert mine["args_hash"] != other["args_hash"], "an approval is bound to its run"
    for visit, args_hash, why in ((1, other["args_hash"], "other arguments"), (2, mine["args_hash"], "visit 2")):
        answer = decide(space, one, visit, args_hash)
        assert not answer["accepted"] and why in answer["reason"]
    assert sends(space) == []
    space.cli("approve", one, "approve_final_email")
    space.wait_status(one, "completed")
    assert [line["run"] for line in sends(space)] == [one]


def test_one_approval_is_one_call(space):
    """A second decision on the same question finds nothing that waits; the e-mail is sent once."""
    begin(space)
    run = space.start(NAME, INPUT)
    asked = space.wait_approval(run)
    first, second = decide(space, run, 1, asked["args_hash"]), decide(space, run, 1, asked["args_hash"])
    assert first["accepted"] and not second["accepted"]
    space.wait_status(run, "completed")
    assert len(sends(space)) == 1


def test_a_rejection_goes_back_to_the_model_with_its_reason(space):
    begin(space)
    run = space.start(NAME, INPUT)
    space.wait_approval(run)
    space.cli("reject", run, "approve_final_email", "--reason", "too long")
    wait_until("it is drafted again", lambda: [a for a in space.json("approvals") if a["run"] == run and a["visit"] == 2], 30,
               every=0.1)
    asked = [line for line in space.model.ledger("received", run=run)]
    assert len(asked) == 8, "research 4 turns, two drafts, two judgements"
    space.cli("approve", run, "approve_final_email")
    state = space.wait_status(run, "completed")
    assert [a["decision"] for a in state["approvals"]] == ["rejected", "approved"]
    assert len(sends(space)) == 1
