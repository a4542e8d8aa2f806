"""Full load: the bare loop's ceiling, steps without outside calls, steps with HTTP calls, CPU and disk per step."""

import re
import shutil
import uuid

from stand import (BUILD, LOGS, Cpu, FastTool, NotMeasured, SMALL, Skipped, Stand, drop_topics, kafka, make_topics, program,
                   read_committed, say, scaled)

IN_FLIGHT = BATCH = 4000  # of the worker, and messages a transaction of the bare loop: the same room for both
CALLS_IN_FLIGHT = 1000
RUNS, HTTP_RUNS = scaled(10000), scaled(4000)
CEILING_MESSAGES, CEILING_CALLS = scaled(400000), scaled(60000)
ROUNDS = 1 if SMALL else 3  # of every rate, ours and others'; the best counts: neighbours and cold code only ever make it worse


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
        events = [m.value() for m in read_committed(f"{stand.name}.steps.default")]  # of the steps one, three and five
        facts = [m.value() for m in read_committed(f"{stand.name}.history")]
    paths = {"event": events[1], "refused": facts[-5], "failed": facts[-4]}  # the middle of the run
    for name, value in paths.items():
        (directory / name).write_bytes(value)
        paths[name] = directory / name
    return run, paths, {"step_event": len(events[1]), "facts": [len(facts[-5]), len(facts[-4])]}


def bare_loop(run, into, messages, event, config=None, **options):
    """The best of some rounds of a ceiling: {messages, seconds, ..., rate}. `into`: a file for each record that a message becomes."""
    return max((bare_round(run, list(into), messages, event, config or {}, options) for _ in range(ROUNDS)), key=lambda found: found["rate"])


def bare_round(run, into, messages, event, config, options):
    name = f"ceiling.{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.in"] + [f"{name}.out{i}" for i in range(len(into))]
    make_topics(topics, **config)
    common = ["--brokers", kafka(), "--id", run]
    program("ceiling", *common, "--fill", messages + 2, "--out", f"{topics[0]}={event}")
    outs = [word for i, path in enumerate(into) for word in ("--out", f"{topics[1 + i]}={path}")]
    more = [word for key, value in options.items() for word in (f"--{key}", value)]
    found = program("ceiling", *common, "--group", name, "--in", topics[0], "--messages", messages + 2, *outs, *more)
    drop_topics(f"{name}.")
    if found["calls_failed"]:
        raise NotMeasured(f"{found['calls_failed']} calls of the bare loop failed")
    return {**found, "rate": found["messages"] / found["seconds"]}


def ceiling(results):
    run, paths, sizes = templates()
    results.detail(record_sizes=sizes)
    plain = bare_loop(run, [paths["event"]], CEILING_MESSAGES, paths["event"], batch=BATCH)
    results.figure("ceiling_msgs_per_s", plain["rate"],
                   f"one step event in, one out; {plain['messages'] // plain['transactions']} a transaction; best of {ROUNDS}")
    same = bare_loop(run, paths.values(), CEILING_MESSAGES // 2, paths["event"], batch=BATCH)
    results.detail(ceiling_same_records_steps_per_s=same["rate"])
    say(f"the records of a real step (an event, two facts): {same['rate']:,.0f} steps/s")


# ---- steps ----


def shares(results, name, verdict):
    for of, key in (("ceiling_msgs_per_s", "share_of_ceiling"), ("ceiling_same_records_steps_per_s", "share_of_same_records")):
        if (top := results.get(of)) and verdict:
            results.any(f"{name}{key}", verdict.steps_per_s / top)


def loaded(name, contract, runs, in_flight_max, tool=None, **options):
    """The best round of a load: its verdict, CPU seconds by process, bytes by topic, and what the worker says of its commits."""
    rounds = []
    for _ in range(ROUNDS):
        with Stand(name, contract, in_flight_max=in_flight_max, **options) as stand:
            if tool:
                stand.env["TOOLS_URL"] = tool.url
            verdict, spent = load(stand, runs, tool=tool)
            commits = stand.metric("myelin_commit_duration_seconds_count")
            said = {"commits": commits, "records_a_commit": stand.metric("myelin_commit_records_sum") / commits,
                    "mean_commit_ms": 1000 * stand.metric("myelin_commit_duration_seconds_sum") / commits,
                    "facts": dict(verdict.kinds), "seconds": verdict.seconds}
            rounds.append((verdict, spent, stand.bytes_by_topic(), said))
    return max(rounds, key=lambda found: found[0].steps_per_s)


def steps(results):
    verdict, spent, size, said = loaded("steps", "refused", RUNS, IN_FLIGHT)
    results.figure("steps_per_s", verdict.steps_per_s, f"five steps without calls, {RUNS} runs, one worker; best of {ROUNDS}")
    shares(results, "", verdict)
    cpu(results, verdict, spent)
    disk(results, size, verdict.steps + 100)
    results.detail(refused=said)
    for name, what in (("travel", "five steps that travel, a step event and a transaction each"), ("walk", "five pure steps, walked as the run starts")):
        verdict, spent, _, said = loaded(name, name, RUNS, IN_FLIGHT)
        results.detail(**{f"{name}_steps_per_s": verdict.steps_per_s, f"{name}_cpu_s_per_1000_steps": cpu_of(verdict, spent), name: said})
        say(f"{what}: {verdict.steps_per_s:,.0f} steps/s")
        shares(results, f"{name}_", verdict)


def cpu_of(verdict, spent):
    return {name: 1000 * value / verdict.steps for name, value in spent.items()}


def cpu(results, verdict, spent):
    each = cpu_of(verdict, spent)
    results.figure("cpu_s_per_1000_steps", sum(each.values()), ", ".join(f"{k} {v:.3f}" for k, v in each.items()))
    results.figure("worker_cpu_s_per_1000_steps", each["worker"], "at the same load")


def disk(results, size, count):
    each = {topic: bytes_ / count for topic, bytes_ in size.items()}
    results.figure("bytes_per_step", sum(each.values()), ", ".join(f"{k} {v:.0f}" for k, v in each.items() if v >= 0.5))
    results.detail(bytes_per_step_by_topic=each)


# ---- HTTP ----


def http(results):
    run, paths, _ = templates()
    tool = FastTool(LOGS / "http")
    bare = bare_loop(run, [paths["event"]], CEILING_CALLS, paths["event"], url=tool.url + "/ask", **{"in-flight": CALLS_IN_FLIGHT})
    top = bare["rate"]
    results.detail(http_ceiling_calls_per_s=top)
    say(f"bare libcurl multi beside the bare Kafka loop: {top:,.0f} calls/s")
    for effect, said in (("read", '"read"'), ("write", '"write"; on_doubt = "retry"')):
        verdict, spent, _, _ = loaded(f"http-{effect}", "calls", HTTP_RUNS, CALLS_IN_FLIGHT, tool, effect=said)
        each = cpu_of(verdict, spent)
        say(f"{effect}s: {verdict.steps_per_s:,.0f} steps/s; CPU s per 1,000: " + ", ".join(f"{k} {v:.3f}" for k, v in each.items()))
        results.detail(**{f"http_{effect}_steps_per_s": verdict.steps_per_s, f"http_{effect}_cpu_s_per_1000_steps": each})
        if effect == "read":
            results.figure("http_steps_per_s", verdict.steps_per_s, f"five calls a run, {HTTP_RUNS} runs, one worker; best of {ROUNDS}")
            results.figure("http_share_of_ceiling", verdict.steps_per_s / top, f"of {top:,.0f} calls/s")
    results.detail(http_requests_answered=tool.stop())


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
    plain = bare_loop(run, [paths["event"]], CEILING_MESSAGES // 2, paths["event"], config={"flush.messages": "1"}, batch=BATCH)
    verdict = loaded("fsync", "travel", RUNS // 2, IN_FLIGHT, flush=True)[0]
    results.detail(fsync_ceiling_msgs_per_s=plain["rate"], fsync_steps_per_s=verdict.steps_per_s)
    say(f"flush.messages=1: ceiling {plain['rate']:,.0f} messages/s, {verdict.steps_per_s:,.0f} steps/s")
