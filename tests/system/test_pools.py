"""Pools: heavy steps get machines of their own. One group, each worker serves what its settings name."""

from harness import Space, wait_until
from history import History, rebuild
from test_boundary import CONTRACT, INPUT, NAME, SCRIPT, fast

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
