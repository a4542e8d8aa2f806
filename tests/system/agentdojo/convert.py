#!/usr/bin/env python3
"""Recorded runs of a real model, made ready for the doubles: convert.py OUTPUT_DIRECTORY

Reads agentdojo-gpt-4o.jsonl.xz in EVAL_DIR (default ../shared/eval beside the repository), takes the user tasks that ran
without an attack, and writes for each suite
    <suite>.model.jsonl   what the model double plays     {"id", "user", "answers": [{"content", "tool_calls"}]}
    <suite>.tools.jsonl   what the tool double plays      {"id", "calls": [{"tool", "args", "content"}]}
    <suite>.runs.jsonl    what to start and to expect     {"id", "input", "calls": [{"tool", "args"}], "answer"}
The id is the run's, agentdojo-<suite>-<user task>: both doubles know the conversation by the header X-Myelin-Run.
"""

import collections
import json
import lzma
import os
import pathlib
import sys

NAME = "agentdojo-gpt-4o.jsonl.xz"


def eval_file():
    """Where the recordings are, whether or not they exist."""
    root = pathlib.Path(__file__).resolve().parents[3]
    return pathlib.Path(os.environ.get("EVAL_DIR") or root / "../shared/eval") / NAME


def recorded_runs():
    with lzma.open(eval_file(), "rt", encoding="utf-8") as lines:
        for run in map(json.loads, lines):
            if run["attack"] == "none" and run["user_task"].startswith("user_task"):
                yield run


def model_call(call):
    return {"id": call["id"], "name": call["function"], "arguments": json.dumps(call["args"], ensure_ascii=False)}


def model_answer(message):
    calls = [model_call(call) for call in message["tool_calls"] or []]
    return {"content": message["content"]} | ({"tool_calls": calls} if calls else {})


def converted(run):
    """(for the model double, for the tool double, what to expect)"""
    messages = run["messages"]
    assistant = [m for m in messages if m["role"] == "assistant"]
    user = next(m["content"] for m in messages if m["role"] == "user")
    name = f"agentdojo-{run['suite']}-{run['user_task']}"
    calls = [{"tool": c["function"], "args": c["args"]} for m in assistant for c in m["tool_calls"] or []]
    # A failed tool has no content: its error is what the model was shown.
    said = [m["error"] or m["content"] for m in messages if m["role"] == "tool"]
    if len(calls) != len(said):
        raise ValueError(f"{name}: {len(calls)} tool calls, {len(said)} tool results")
    return (
        {"id": name, "user": user, "answers": [model_answer(m) for m in assistant]},
        {"id": name, "calls": [call | {"content": text} for call, text in zip(calls, said)]},
        {"id": name, "input": {"task": user}, "calls": calls, "answer": assistant[-1]["content"]},
    )


def convert(directory):
    """Writes the files; returns how many runs each suite has."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    suites = collections.defaultdict(list)
    for run in recorded_runs():
        suites[run["suite"]].append(converted(run))
    for suite, runs in suites.items():
        for kind, lines in zip(("model", "tools", "runs"), zip(*runs)):
            with open(directory / f"{suite}.{kind}.jsonl", "w", encoding="utf-8") as out:
                out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return {suite: len(runs) for suite, runs in suites.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(convert(sys.argv[1]))
