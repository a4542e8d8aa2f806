"""Steps that turn out to need no call are decided with the step before them: one commit, no step event of their own."""

import collections
import json

from confluent_kafka import Consumer, TopicPartition

from doubles import ROOT
from harness import Space
from history import History, rebuild

CONTRACT = ROOT / "tests" / "scenario" / "ahead.cfg"


PAGE = "large payload " * 500  # stored in a fact, and named by the step event of a later step


def step_events(space, pool):
    consumer = Consumer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": f"{space.name}-reader", "isolation.level": "read_committed",
                         "enable.partition.eof": True, "enable.auto.commit": False})
    topic = f"{space.name}.steps.{pool}"
    consumer.assign([TopicPartition(topic, number, 0) for number in consumer.list_topics(topic, 10).topics[topic].partitions])
    ends, found = 0, 0
    while ends < 4:
        message = consumer.poll(10)
        assert message is not None
        ends, found = (ends + 1, found) if message.error() else (ends, found + 1)
    consumer.close()
    return found


def test_steps_without_a_call_have_no_event(tmp_path):
    with Space(tmp_path, partitions=4, settings={"pools": '["default", "other"]'}) as space:
        tools = space.double("tool_double", script=[{"match": {"tool": "look"}, "answer": {"result": {"page": PAGE}}}])
        contract = tmp_path / "ahead.cfg"
        contract.write_text(CONTRACT.read_text().replace("http://127.0.0.1", tools.url))
        space.create().publish(contract)
        space.worker("a")
        runs = [space.start("ahead", {}, run=f"run-{i}") for i in range(5)]
        for run in runs:
            space.wait_status(run, "completed")
        facts = History(space).drain().facts()
        for run in runs:
            state = rebuild(facts, run)
            assert (state["gaps"], state["repeats"]) == (0, 0)
            before = [fact for fact in facts if fact["run"] == run and fact["kind"] != "RunEnded"]
            assert rebuild(before, run)["usage"]["steps"] == state["usage"]["steps"] == 6  # counted from facts, and by the run
            kinds = collections.Counter(fact["kind"] for fact in facts if fact["run"] == run)
            assert kinds["CallRefused"] == kinds["StepFailed"] == 4 and kinds["ToolAnswered"] == 2
            assert {"n": len(PAGE)} in [json.loads(line["args"]) if isinstance(line["args"], str) else line["args"]
                                        for line in tools.ledger("received", run=run)]
        # The steps `one` and `two` come with `first`; `away` is of another pool, `back` of another than that, `last` calls.
        assert step_events(space, "default") == 3 * len(runs)
        assert step_events(space, "other") == len(runs)
