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
    """By their keys: what was told was made, and nothing else; a write once, a read more often only where a worker was killed. Returns how
    many calls of each run were made again."""
    story = collections.Counter((run, call["key"]) for run, state in states.items() for call in state["tool_calls"])
    writes = {(run, call["key"]) for run, state in states.items() for call in state["committed_side_effects"]}
    made = collections.Counter((line["run"], line["key"]) for line in tools.ledger("acted") if not line.get("probe"))
    assert max(story.values()) == 1
    assert set(made) == set(story), f"made, or told, but not both: {list(set(made) ^ set(story))[:SHOWN]}"
    more = made - story
    again = writes & set(more)
    assert not again, f"writes made again: {sorted(again)[:SHOWN]}"
    assert killed or not more, f"reads made again: {more.most_common(SHOWN)}"
    calls = collections.Counter()
    for (run, _), times in more.items():
        calls[run] += times
    return calls


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
    Returns ({run: state}, {run: how many calls were made again})."""
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
