"""Full load: the bare loop's ceiling, steps without outside calls, steps with HTTP calls, CPU and disk per step."""

import re
import shutil

from stand import (BUILD, LOGS, Cpu, FastTool, NotMeasured, Skipped, Stand, drop_topics, kafka, make_topics, program, read_committed,
                   say, scaled)

IN_FLIGHT = BATCH = 4000  # of the worker, and messages a transaction of the bare loop: the same room for both
CALLS_IN_FLIGHT = 1000
RUNS, HTTP_RUNS = scaled(10000), scaled(4000)
CEILING_MESSAGES, CEILING_CALLS = scaled(400000), scaled(60000)


def load(stand, runs, seconds=300, tool=None, **env):
    """`runs` runs at once through one worker; the verdict, and CPU seconds by process."""
    worker = stand.worker("a", **env)
    stand.request(20)  # what is made on first use is made
    stand.wait_ended(20, 60)
    cpu = Cpu(worker=worker.pid, **({"tool": tool.pid} if tool else {}))
    ids = stand.request(runs)
    stand.wait_ended(runs + 20, seconds)
    spent = cpu.spent()
    return stand.verdict(ids), spent


# ---- the ceiling ----


def templates():
    """Files with a step event and the two facts of a step as a worker wrote them, and the run's id in them."""
    directory = LOGS / "templates"
    directory.mkdir(parents=True, exist_ok=True)
    with Stand("templates", "travel") as stand:
        stand.worker("a")
        run = stand.request(1)[0]
        stand.wait_ended(1, 60)
        events = [m.value() for m in read_committed(f"{stand.name}.steps.default")]
        facts = [m.value() for m in read_committed(f"{stand.name}.history")]
    paths = {"event": events[2], "refused": facts[-5], "failed": facts[-4]}  # the middle of the run
    for name, value in paths.items():
        (directory / name).write_bytes(value)
        paths[name] = directory / name
    return run, paths, {"step_event": len(events[2]), "facts": [len(facts[-5]), len(facts[-4])]}


def bare_loop(name, run, into, messages, event, **options):
    """One ceiling: {messages, seconds, ...}. `into`: a file for each record that a message becomes."""
    topics = [f"ceiling.{name}.in"] + [f"ceiling.{name}.out{i}" for i in range(len(into))]
    make_topics(topics, **options.pop("config", {}))
    common = ["--brokers", kafka(), "--id", run]
    program("ceiling", *common, "--fill", messages + 2, "--out", f"{topics[0]}={event}")
    outs = [word for i, path in enumerate(into) for word in ("--out", f"{topics[1 + i]}={path}")]
    more = [word for key, value in options.items() for word in (f"--{key}", value)]
    found = program("ceiling", *common, "--group", f"ceiling-{name}", "--in", topics[0], "--messages", messages + 2, *outs, *more)
    drop_topics(f"ceiling.{name}.")
    if found["calls_failed"]:
        raise NotMeasured(f"{found['calls_failed']} calls of the bare loop failed")
    return found


def ceiling(results):
    run, paths, sizes = templates()
    results.detail(record_sizes=sizes)
    plain = bare_loop("plain", run, [paths["event"]], CEILING_MESSAGES, paths["event"], batch=BATCH)
    results.figure("ceiling_msgs_per_s", plain["messages"] / plain["seconds"],
                   f"one step event in, one out; {plain['messages'] // plain['transactions']} a transaction")
    same = bare_loop("same", run, paths.values(), CEILING_MESSAGES // 2, paths["event"], batch=BATCH)
    results.detail(ceiling_same_records_steps_per_s=same["messages"] / same["seconds"])
    say(f"the records of a real step (an event, two facts): {same['messages'] / same['seconds']:,.0f} steps/s")


# ---- steps ----


def shares(results, name, verdict):
    for of, key in (("ceiling_msgs_per_s", "share_of_ceiling"), ("ceiling_same_records_steps_per_s", "share_of_same_records")):
        if (top := results.get(of)) and verdict:
            results.any(f"{name}{key}", verdict.steps_per_s / top)


def steps(results):
    with Stand("steps", "travel", in_flight_max=IN_FLIGHT) as stand:
        verdict, spent = load(stand, RUNS)
        commits, records = stand.metric("myelin_commit_duration_seconds_count"), stand.metric("myelin_commit_records_sum")
        commit_s = stand.metric("myelin_commit_duration_seconds_sum")
        disk(results, stand, verdict.steps + 100)
    results.figure("steps_per_s", verdict.steps_per_s, f"five steps that travel, {RUNS} runs, one worker")
    shares(results, "", verdict)
    cpu(results, verdict, spent)
    results.detail(travel={"facts": dict(verdict.kinds), "commits": commits, "records_a_commit": records / commits,
                           "mean_commit_ms": 1000 * commit_s / commits, "seconds": verdict.seconds})
    with Stand("walk", "walk", in_flight_max=IN_FLIGHT) as stand:
        walked, spent = load(stand, RUNS)
    results.detail(walk_steps_per_s=walked.steps_per_s, walk_cpu_s_per_1000_steps=cpu_of(walked, spent))
    say(f"five pure steps, walked in one transaction: {walked.steps_per_s:,.0f} steps/s")
    shares(results, "walk_", walked)


def cpu_of(verdict, spent):
    return {name: 1000 * value / verdict.steps for name, value in spent.items()}


def cpu(results, verdict, spent):
    each = cpu_of(verdict, spent)
    results.figure("cpu_s_per_1000_steps", sum(each.values()), ", ".join(f"{k} {v:.3f}" for k, v in each.items()))
    results.figure("worker_cpu_s_per_1000_steps", each["worker"], "at the same load")


def disk(results, stand, count):
    each = {topic: size / count for topic, size in stand.bytes_by_topic().items()}
    results.figure("bytes_per_step", sum(each.values()), ", ".join(f"{k} {v:.0f}" for k, v in each.items() if v >= 0.5))
    results.detail(bytes_per_step_by_topic=each)


# ---- HTTP ----


def http(results):
    run, paths, _ = templates()
    tool = FastTool(LOGS / "http")
    bare = bare_loop("http", run, [paths["event"]], CEILING_CALLS, paths["event"], url=tool.url + "/ask", **{"in-flight": CALLS_IN_FLIGHT})
    top = bare["messages"] / bare["seconds"]
    results.detail(http_ceiling_calls_per_s=top)
    say(f"bare libcurl multi beside the bare Kafka loop: {top:,.0f} calls/s")
    for effect in ("read", "write"):
        with Stand(f"http-{effect}", "calls", in_flight_max=CALLS_IN_FLIGHT,
                   effect='"read"' if effect == "read" else '"write"; on_doubt = "retry"') as stand:
            stand.env["TOOLS_URL"] = tool.url
            verdict, spent = load(stand, HTTP_RUNS, tool=tool)
        each = cpu_of(verdict, spent)
        say(f"{effect}s: {verdict.steps_per_s:,.0f} steps/s; CPU s per 1,000: " + ", ".join(f"{k} {v:.3f}" for k, v in each.items()))
        results.detail(**{f"http_{effect}_steps_per_s": verdict.steps_per_s, f"http_{effect}_cpu_s_per_1000_steps": each})
        if effect == "read":
            results.figure("http_steps_per_s", verdict.steps_per_s, f"five calls a run, {HTTP_RUNS} runs, one worker")
            results.figure("http_share_of_ceiling", verdict.steps_per_s / top, f"of {top:,.0f} calls/s")
    answered = tool.stop()
    results.detail(http_requests_answered=answered)


# ---- counted, not timed ----


def counted(stand, runs, out):
    """Instructions and allocations of a whole life of a worker that does `runs` runs."""
    directory = stand.directory / "wrapped"
    directory.mkdir(exist_ok=True)
    wrapper = directory / "myelin-worker"
    wrapper.write_text(f"#!/bin/sh\nexec valgrind --tool=callgrind --callgrind-out-file={out} {BUILD}/myelin-worker \"$@\"\n")
    wrapper.chmod(0o755)
    worker = stand.worker("a", build=directory, ready=False)
    worker.ready(120)
    ids = stand.request(runs)
    stand.wait_ended(runs, 300)
    worker.terminate(120)
    stand.verdict(ids)
    text = out.read_text()
    summary = int(re.search(r"^(?:summary|totals): (\d+)", text, re.M).group(1))
    return summary, calls_of(text, ("malloc", "calloc", "realloc"))


def calls_of(text, names):
    """How often these functions were called, from callgrind's file: `cfn=` names the callee, `calls=` says how often."""
    known, callee, total = {}, None, 0
    for line in text.splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            if name:
                known[number] = name
            if line.startswith("c"):
                callee = known.get(number)
        elif line.startswith("calls=") and callee in names:
            total += int(line[6:].split()[0])
    return total


def instructions(results):
    if shutil.which("valgrind") is None:
        raise Skipped("valgrind is not installed (ops/setup bench)")
    few, many, found = 20, 20 + scaled(400, 40), []
    for runs in (few, many):
        with Stand(f"counted-{runs}", "travel") as stand:
            found.append(counted(stand, runs, LOGS / f"callgrind.{runs}"))
    per = 5 * (many - few)
    results.figure("instructions_per_step", (found[1][0] - found[0][0]) / per, f"all threads; {many} runs less {few} runs")
    results.detail(allocations_per_step=(found[1][1] - found[0][1]) / per)
    say(f"allocations a step: {(found[1][1] - found[0][1]) / per:.0f}")


# ---- an fsync for each append ----


def fsync(results):
    run, paths, _ = templates()
    plain = bare_loop("fsync", run, [paths["event"]], CEILING_MESSAGES // 2, paths["event"], batch=BATCH, config={"flush.messages": "1"})
    with Stand("fsync", "travel", in_flight_max=IN_FLIGHT, flush=True) as stand:
        verdict, _ = load(stand, RUNS // 2)
    results.detail(fsync_ceiling_msgs_per_s=plain["messages"] / plain["seconds"], fsync_steps_per_s=verdict.steps_per_s)
    say(f"flush.messages=1: ceiling {plain['messages'] / plain['seconds']:,.0f} messages/s, {verdict.steps_per_s:,.0f} steps/s")
