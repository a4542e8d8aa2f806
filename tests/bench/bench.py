"""tests/bench/run: the parts in order, the table, build/bench.json. What each figure means: README.md."""

import json
import math
import os
import platform
import subprocess
import sys
import time
import traceback

import parts_rate
import parts_time
import peers
from stand import ROOT, SMALL, NotMeasured, Skipped, say

# Exactly the keys of build/bench.json, with unit, the part that measures it, and where it must arrive.
KEYS = {
    "ceiling_msgs_per_s": ("messages/s", "ceiling", ""),
    "steps_per_s": ("steps/s", "steps", ""),
    "share_of_ceiling": ("", "steps", ">= 0.5"),
    "http_steps_per_s": ("steps/s", "http", ""),
    "http_share_of_ceiling": ("", "http", ""),
    "low_load_p50_ms": ("ms", "low", "<= 20"),
    "low_load_p99_ms": ("ms", "low", ""),
    "burst_1000_ratio": ("x ideal", "burst", ""),
    "burst_5000_ratio": ("x ideal", "burst", "<= 1.25"),
    "cpu_s_per_1000_steps": ("s", "steps", ""),
    "worker_cpu_s_per_1000_steps": ("s", "steps", ""),
    "instructions_per_step": ("", "cpu", ""),
    "bytes_per_step": ("bytes", "steps", ""),
    "bytes_per_waiting_run": ("bytes", "memory", "<= 200"),
    "resident_mib_5000_in_flight": ("MiB", "memory", ""),
    "takeover_kill_p99_s": ("s", "takeover", "<= 7"),
    "takeover_slot_p99_s": ("s", "takeover", "<= 2"),
    "takeover_term_max_s": ("s", "takeover", "<= 1"),
    "restate_steps_per_s": ("steps/s", "peers", ""),
    "restate_low_load_p50_ms": ("ms", "peers", ""),
    "restate_http_steps_per_s": ("steps/s", "peers", ""),
}
PARTS = {
    "ceiling": parts_rate.ceiling, "steps": parts_rate.steps, "http": parts_rate.http, "low": parts_time.low,
    "burst": parts_time.burst, "cpu": parts_rate.instructions, "memory": parts_time.memory, "takeover": parts_time.takeover,
    "fsync": parts_rate.fsync, "peers": peers.peers,
}


class Results:
    """Figures that were measured in this run, what was seen beside them, and why others are missing."""

    def __init__(self):
        self.figures, self.notes, self.details, self.why = {}, {}, {}, {}
        self.failed = False

    def figure(self, key, value, note=""):
        assert key in KEYS, key
        if value is None or not math.isfinite(value):
            return
        self.figures[key], self.notes[key] = value, note
        say(f"{key} = {show(value)} {KEYS[key][0]}{'   ' + note if note else ''}")

    def detail(self, **values):
        self.details.update(values)

    def any(self, key, value):
        self.figure(key, value) if key in KEYS else self.detail(**{key: value})

    def get(self, key):
        return self.figures.get(key, self.details.get(key))

    def missing(self, part, why, failed):
        self.why[part] = why
        self.failed = self.failed or failed
        say(f"not measured: {why}")


def show(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    return {"cpus": os.cpu_count(), "cpu": model, "kernel": platform.release(), "load_at_start": os.getloadavg()[0],
            "revision": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
            "small": SMALL}


def table(results):
    print(f"\n  {'FIGURE':<30} {'VALUE':>12} {'':<11} {'GOAL':<8} NOTE")
    for key, (unit, part, goal) in KEYS.items():
        value = results.figures.get(key)
        note = results.notes.get(key, "") if value is not None else f"not measured: {results.why.get(part, 'this part did not run')}"
        print(f"  {key:<30} {show(value):>12} {unit:<11} {goal:<8} {note}")
    best = results.get("restate_steps_per_s")
    if best and results.get("steps_per_s"):
        print(f"\n  steps/s over Restate's best: {results.get('steps_per_s') / best:.1f}")


def write(results, about):
    def rounded(value):
        return float(f"{value:.6g}") if isinstance(value, float) else value

    figures = {key: rounded(results.figures[key]) if key in results.figures else None for key in KEYS}
    (ROOT / "build" / "bench.json").write_text(json.dumps(figures, indent=2) + "\n")
    details = {"machine": about, "not_measured": results.why, **results.details}
    (ROOT / "build" / "bench-details.json").write_text(json.dumps(details, indent=2, default=str) + "\n")


def main(names):
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        sys.exit(f"no part {unknown[0]}; parts: {' '.join(PARTS)}")
    chosen = [name for name in PARTS if name in names or not names and (name != "peers" or os.environ.get("PEERS") == "1")]
    results, about, began = Results(), machine(), time.monotonic()
    for number, name in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {name}, after {time.monotonic() - began:.0f} s", flush=True)
        try:
            PARTS[name](results)
        except (NotMeasured, AssertionError) as why:  # the latter: what wait_until did not see
            results.missing(name, (str(why).splitlines() or ["no reason given"])[0][:200], not isinstance(why, Skipped))
        except Exception as broken:  # a part that breaks takes no other with it
            traceback.print_exc()
            results.missing(name, f"{type(broken).__name__}: {broken}".splitlines()[0][:200], True)
        write(results, about)
    table(results)
    print(f"\n  build/bench.json, build/bench-details.json, after {time.monotonic() - began:.0f} s; "
          f"the machine: {about['cpus']} x {about['cpu']}, load {about['load_at_start']:.1f} when it began")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
