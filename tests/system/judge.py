"""One judge for whatever was done to workers and servers. It reads the doubles' ledgers and, with libraries that share no code with
Myelin, `history`; what Myelin's own commands say is compared with that."""

import collections

from harness import wait_until
from history import History, rebuild
from offsets import committed

SHOWN = 12  # of so many runs `myelin show` is compared whole, for it reads `history` each time; and so many are named


def told(history):
    """{run: its facts, in order}."""
    by_run = collections.defaultdict(list)
    for fact in history.drain().facts():
        by_run[fact["run"]].append(fact)
    return by_run


def wait_ended(history, runs, seconds):
    def open_runs():
        by_run = told(history)
        return [run for run in runs if not any(fact["kind"] == "RunEnded" for fact in by_run[run])]

    try:
        wait_until("every run has ended", lambda: not open_runs(), seconds, every=0.5)
    except AssertionError as late:
        left = open_runs()
        by_run = told(history)
        last = {run: [(fact["kind"], fact["step"], fact["body"]) for fact in by_run[run][-3:]] for run in left[:3]}
        raise AssertionError(f"{late}; {len(left)} of {len(runs)} are open: {left[:10]}; {last}") from None


def judge_calls(states, tools, killed):
    """A write acted exactly once, with one key; a read as often as `history` has it, or more often where a worker was killed."""
    writes = {(run, call["tool"]): call["key"] for run, state in states.items() for call in state["committed_side_effects"]}
    story = collections.Counter((run, call["tool"]) for run, state in states.items() for call in state["tool_calls"])
    acted = [line for line in tools.ledger("acted") if not line.get("probe")]
    ledger = collections.Counter((line["run"], line["tool"]) for line in acted)
    write_tools = {tool for _, tool in writes}
    assert {(line["run"], line["tool"]): line["key"] for line in acted if line["tool"] in write_tools} == writes
    missing, more = story - ledger, ledger - story
    assert not missing, f"told, but never made: {missing.most_common(SHOWN)}"
    assert not [call for call in more if call[1] in write_tools], f"writes made again: {[call for call in more if call[1] in write_tools]}"
    assert killed or not more, f"reads made again: {more.most_common(SHOWN)}"
    return more


def judge_offsets(space, topic):
    """Nothing that readers can see of a consumed topic is left to be consumed."""
    log = History(space, topic).drain()
    log.close()

    def left():
        marks = {p.partition: committed(space, p.partition, topic) for p in log.partitions}
        return [(m.partition(), m.offset()) for m in log.messages
                if m.offset() >= marks[m.partition()][0] and m.offset() not in marks[m.partition()][2]]

    wait_until(f"all of {topic} is consumed", lambda: not left(), 20)


def judge(space, runs, tools, killed=False, seconds=120, pools=("default",)):
    """Waits until all `runs` have ended. Then each is completed and told without gap or repeat, Myelin's commands tell the same, every tool
    was called as often as its class allows (`killed`: reads may repeat), no doubt is open, nothing is in `dead`, no offset is lost.
    Returns ({run: state}, what was called more often than it is told: {(run, tool): times})."""
    history = History(space)
    try:
        wait_ended(history, runs, seconds)
        by_run = told(history)
    finally:
        history.close()
    assert set(by_run) == set(runs)
    states = {run: rebuild(facts, run) for run, facts in by_run.items()}
    wrong = {run: (state["status"], state["reason"], state["gaps"], state["repeats"]) for run, state in states.items()
             if (state["status"], state["gaps"], state["repeats"]) != ("completed", 0, 0)}
    assert not wrong, (len(wrong), dict(list(wrong.items())[:SHOWN]))
    assert not [run for run, state in states.items() if not all(doubt["settled"] for doubt in state["doubts"])]
    more = judge_calls(states, tools, killed)
    wait_until("`runs` tells the same", lambda: {run["run"]: run["status"] for run in space.json("runs")} == dict.fromkeys(runs, "completed"))
    for run in sorted(runs)[:: max(1, len(runs) // SHOWN)]:
        shown = space.state(run)
        differs = {name: (value, shown[name]) for name, value in states[run].items() if shown[name] != value}
        assert not differs, (run, differs)
    assert space.json("dead", "list") == []
    for topic in ("inbox", *(f"steps.{pool}" for pool in pools)):
        judge_offsets(space, topic)
    return states, more
