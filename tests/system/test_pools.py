"""Pools: heavy steps get machines of their own. One group, each worker serves what its settings name."""

from confluent_kafka.admin import AdminClient, NewTopic

from harness import Space, preload, wait_until
from history import History, rebuild
from test_boundary import CONTRACT, INPUT, NAME, SCRIPT, fast
from test_log import namespace  # noqa: F401
from test_offset_map import Steered

HEAVY = CONTRACT.read_text().replace('tool = "draft_email"; artifact', 'pool = "heavy"; tool = "draft_email"; artifact')


def settings_of(space, name, **values):
    """The space's settings with others in their place."""
    text = (space.directory / "worker.cfg").read_text()
    for key, (old, new) in values.items():
        assert f"{key} = {old};" in text
        text = text.replace(f"{key} = {old};", f"{key} = {new};")
    path = space.directory / f"{name}.cfg"
    path.write_text(text)
    return str(path)


def test_steps_run_where_their_pool_is_served(tmp_path):
    contract = tmp_path / "heavy.cfg"
    assert 'pool = "heavy"' in HEAVY
    contract.write_text(HEAVY)
    with Space(tmp_path, partitions=4, settings={"pools": '["default", "heavy"]'}) as space:
        tools = space.double("tool_double")
        space.double("model_double", script=fast(SCRIPT))
        space.create().publish(contract)
        both = '["default", "heavy"]'
        light = space.worker("light", MYELIN_CONFIG=settings_of(space, "light", pools=(both, '["default"]')))
        runs = [space.start(NAME, INPUT, run=f"run-{i}") for i in range(8)]

        def drafts_wait():
            states = [space.state(run) for run in runs]
            return all(s["current_step"] and s["current_step"][0]["step"] == "draft" for s in states)

        wait_until("each run waits for its heavy step", drafts_wait)
        space.worker("heavy", MYELIN_CONFIG=settings_of(space, "heavy", pools=(both, '["heavy"]'), serve_inbox=("true", "false")))
        for run in runs:
            space.wait_approval(run)
            space.cli("approve", run, "approve_final_email")
        for run in runs:
            space.wait_status(run, "completed")
        history = History(space).drain()
        facts = history.facts()
        history.close()
        assert [(s["gaps"], s["repeats"]) for s in (rebuild(facts, run) for run in runs)] == [(0, 0)] * len(runs)
        calls = {(f["step"], f["worker"].split(":")[0]) for f in facts if f["kind"] in ("ModelAnswered", "ToolAnswered")}
        assert calls == {("research", "light"), ("draft", "heavy"), ("send", "light")}
        assert sorted(line["run"] for line in tools.ledger("acted", tool="send")) == sorted(runs)
        assert light.alive()


def test_a_pool_without_a_topic_is_refused_at_publish(tmp_path):
    contract = tmp_path / "heavy.cfg"
    contract.write_text(HEAVY)
    with Space(tmp_path) as space:
        space.create()
        done = space.cli("contract", "publish", contract, check=False)
        assert done.returncode != 0 and f"{space.name}.steps.heavy" in done.stderr and "pools" in done.stderr, done.stderr
        assert space.json("contract", "list") == []


NOSY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>

static _Thread_local int is_open; /* a transaction of this thread */

rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *producer)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *) = dlsym(RTLD_NEXT, "rd_kafka_begin_transaction");
    is_open = 1;
    return real(producer);
}

rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *producer, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_commit_transaction");
    is_open = 0;
    return real(producer, timeout_ms);
}

rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *producer, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_abort_transaction");
    is_open = 0;
    return real(producer, timeout_ms);
}

rd_kafka_resp_err_t rd_kafka_metadata(rd_kafka_t *client, int all, rd_kafka_topic_t *topic, const struct rd_kafka_metadata **found,
                                      int timeout_ms)
{
    rd_kafka_resp_err_t (*real)(rd_kafka_t *, int, rd_kafka_topic_t *, const struct rd_kafka_metadata **, int) =
        dlsym(RTLD_NEXT, "rd_kafka_metadata");
    fprintf(stderr, "topics are asked for in %s transaction\n", is_open ? "an open" : "no");
    return real(client, all, topic, found, timeout_ms);
}
"""


def test_a_new_pool_is_asked_for_before_the_transaction(namespace, tmp_path):  # noqa: F811
    """What no transaction is open for: to ask whether there is a topic for a pool, and to learn it. One that is there is written to;
    what is for one that is not is refused."""
    space = namespace(partitions=1)
    worker = Steered(space, "a", **preload(tmp_path, "nosy", NOSY))
    worker.wait("it serves", lambda: worker.lines("assigned"))
    new = NewTopic(f"{space.name}.steps.new", 1, 1)
    admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    for done in admin.create_topics([new]).values():
        done.result()
    space.run("flood", 2, 10)
    first, second = worker.wait_got(2).got()
    before = worker.log().count("asked for in no transaction")
    worker.say([f"pool {first[0]} {first[1]} new"])
    worker.wait("it is committed", lambda: worker.committed() == 1)
    assert worker.log().count("asked for in no transaction") >= before + 3  # whether it is there; and each producer learns it
    worker.say([f"pool {second[0]} {second[1]} old"])
    worker.wait("it is refused", lambda: len(worker.lines("refused")) == 1)
    assert "asked for in an open transaction" not in worker.log()
