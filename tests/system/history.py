"""The outside judge: reads `history` (read_committed) with libraries that share no code with Myelin, and rebuilds the state of a
run from its facts alone, by the rules of schemas/README.md."""

import io
import json
import time
import uuid

import confluent_kafka
import fastavro
import fastavro.schema

from doubles import ROOT


def _plain(schema):
    """Without logical types: times stay the numbers that they are on the wire."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    return schema


def load_schemas():
    """{fingerprint: (name, schema)} of schemas/*.avsc."""
    known = {}
    for path in sorted((ROOT / "schemas").glob("*.avsc")):
        schema = json.loads(path.read_text())
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        known[bytes.fromhex(fingerprint)] = (path.stem, fastavro.parse_schema(_plain(schema)))
    return known


SCHEMAS = load_schemas()


def decode(value):
    """(record name, record) of one single-object encoded value."""
    assert value[:2] == b"\xc3\x01", "no single-object encoding"
    name, schema = SCHEMAS.get(value[2:10]) or SCHEMAS[value[2:10][::-1]]
    return name, fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None, return_record_name=True,
                                            return_record_name_override=False)


def encode(name, record):
    """One record of schemas/NAME.avsc as it is on the wire."""
    fingerprint, schema = next((fp, schema) for fp, (stem, schema) in SCHEMAS.items() if stem == name)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return b"\xc3\x01" + fingerprint + out.getvalue()


def produce_all(space, topic, records):
    """Puts raw bytes, (key, value) each, on a topic of the namespace, past everything that Myelin checks."""
    producer = confluent_kafka.Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "partitioner": "murmur2_random"})
    for key, value in records:
        producer.produce(f"{space.name}.{topic}", value, key)
    assert producer.flush(20) == 0


def produce(space, topic, key, value):
    produce_all(space, topic, [(key, value)])


def request(space, contract, inputs):
    """Asks for runs as a producer does, all at once: {run: input}."""
    version = space.json("contract", "list", contract)[-1]["hash"]
    producer = confluent_kafka.Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "partitioner": "murmur2_random"})
    for run, data in inputs.items():
        record = {"run": run, "request_id": str(uuid.uuid4()), "contract": contract, "contract_hash": version, "by": "test",
                  "at_ms": int(time.time() * 1000), "input": json.dumps(data)}
        producer.produce(f"{space.name}.inbox", encode("RunRequested", record), run)
    assert producer.flush(30) == 0
    return list(inputs)


class History:
    """All records of a topic of a namespace, from its beginning; poll() gives what is new."""

    def __init__(self, space, topic="history"):
        self.topic = f"{space.name}.{topic}"
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": f"judge-{space.name}", "enable.auto.commit": False,
            "isolation.level": "read_committed", "auto.offset.reset": "earliest", "enable.partition.eof": True,
            "fetch.wait.max.ms": 20})
        partitions = self.consumer.list_topics(self.topic, 10).topics[self.topic].partitions
        self.partitions = [confluent_kafka.TopicPartition(self.topic, p, 0) for p in partitions]
        self.consumer.assign(self.partitions)
        self.messages = []

    def poll(self, seconds=0.2):
        """The next message, or None."""
        message = self.consumer.poll(seconds)
        if message is None or message.error():
            return None
        self.messages.append(message)
        return message

    def _ends(self):
        """Of each partition the last stable offset, or None: its leader may have died a moment ago."""
        try:
            return {p.partition: self.consumer.get_watermark_offsets(p, 10)[1] for p in self.partitions}
        except confluent_kafka.KafkaException:
            return None

    def drain(self, seconds=20):
        """Reads to the last stable offset as of now."""
        until = time.monotonic() + seconds
        ends = at = None
        while time.monotonic() < until:
            ends = ends or self._ends()
            self.poll(0.05)
            at = {p.partition: p.offset for p in self.consumer.position(self.partitions)}
            if ends and all(at[p] >= end or end == 0 for p, end in ends.items()):
                return self
        raise AssertionError(f"{self.topic} was not read to its end: {ends}, at {at}")

    def facts(self, run=None):
        """The facts read so far, in the order of each partition; body and its kind unpacked."""
        found = []
        for message in self.messages:
            fact = decode(message.value())[1]
            kind, body = fact["body"]
            if run in (None, fact["run"]):
                found.append({**fact, "kind": kind.split(".")[-1], "body": body})
        return found

    def close(self):
        self.consumer.close()


# ---- the fold ----


def _json(text):
    return None if text is None else json.loads(text)


def _time(ms):
    return ms if ms and ms > 0 else None


def _known(number):
    return None if number < 0 else number


def _symbol(value):
    return value.lower() if isinstance(value, str) else value


class Fold:
    """The state of one run; the parts and their names are those of durable_state."""

    def __init__(self, run):
        self.state = {"run": run, "status": "running"}
        for name in ("contract", "contract_hash", "requested_by", "goal", "started_at_ms", "deadline_at_ms", "ended_at_ms",
                     "reason", "input", "output"):
            self.state[name] = None
        for name in ("completed_steps", "failed_steps", "tool_calls", "model_calls", "retries", "approvals",
                     "committed_side_effects", "refusals", "doubts", "criteria"):
            self.state[name] = []
        self.state["generated_artifacts"] = {}
        self.usage = dict.fromkeys(("steps", "model_calls", "tool_calls", "writes", "retries", "refusals", "tokens_in",
                                    "tokens_out", "tokens_unknown", "micro_usd", "micro_usd_unknown"), 0)
        self.active, self.source, self.step, self.next_seq = {}, None, None, 0
        self.facts = self.gaps = self.repeats = 0
        self.ended = None

    def add(self, fact):
        if fact["run"] != self.state["run"] or fact["seq"] < 0:
            return
        if fact["seq"] < self.next_seq:
            self.repeats += 1
            return
        self.gaps += fact["seq"] - self.next_seq
        self.next_seq = fact["seq"] + 1
        self.facts += 1
        source = (fact["source_topic"], fact["source_partition"], fact["source_offset"])
        step = (fact["step"], fact["visit"])
        if source != self.source or (step != self.step and fact["kind"] == "CallRefused"):
            self.source, self.step = source, step
            self.usage["steps"] += fact["source_offset"] >= 0 and ".steps." in (fact["source_topic"] or "")
        if self.ended:
            return
        if fact["kind"] != "RunEnded":
            self._stand(fact, fact["step"], fact["visit"], fact["attempt"])
        getattr(self, "on_" + fact["kind"])(fact, fact["body"])

    def result(self):
        status = self.ended or ("waiting" if self.active and all(a["owner"] == "waiting" for a in self.active.values())
                                else "running")
        return {**self.state, "status": status, "current_step": list(self.active.values()), "usage": self.usage,
                "facts": self.facts, "gaps": self.gaps, "repeats": self.repeats}

    # where the run is

    def _stand(self, fact, step, visit, attempt):
        old = self.active.get(fact["branch"])
        doubtful = old and (old["step"], old["visit"], old["status"]) == (step, visit, "in_doubt")
        self.active[fact["branch"]] = {
            "step": step, "branch": fact["branch"], "visit": visit, "attempt": attempt,
            "status": "in_doubt" if doubtful else "running", "owner": "worker", "who": "worker", "waits_for": None,
            "reason": None, "since_ms": fact["at_ms"], "due_at_ms": None}

    def _move(self, fact, target):
        if target in (None, "", "end"):
            self.active.pop(fact["branch"], None)
            return
        visits = [e["visit"] for e in self.state["completed_steps"] + self.state["failed_steps"]
                  if (e["step"], e["branch"]) == (target, fact["branch"])]
        self._stand(fact, target, max(visits, default=0) + 1, 1)

    def _entry(self, name, fact, **fields):
        entry = {key: fact[key] for key in ("step", "branch", "visit", "attempt", "at_ms")} | fields
        self.state[name].append(entry)
        return entry

    def _open_doubt(self, key):
        return next((d for d in self.state["doubts"] if d["key"] == key and not d["settled"]), None)

    # the facts

    def on_RunStarted(self, fact, body):
        self.state |= {"contract": body["contract"], "contract_hash": fact["contract_hash"],
                       "requested_by": body["requested_by"], "goal": body["goal"], "started_at_ms": fact["at_ms"],
                       "deadline_at_ms": body["deadline_at_ms"], "input": _json(body["input"])}

    def on_ModelAnswered(self, fact, body):
        known = {key: _known(body[key]) for key in ("tokens_in", "tokens_out", "tokens_cached", "micro_usd")}
        self._entry("model_calls", fact, turn=fact["turn"], agent=body["agent"], model=body["model"],
                    response_model=body["response_model"], judge=body["judge"], tools_asked=len(body["calls"]),
                    finish_reason=body["finish_reason"], duration_ms=body["duration_ms"], origin=_symbol(body["origin"]),
                    key=body["key"], **known)
        self.usage["model_calls"] += 1
        self.usage["tokens_unknown"] += known["tokens_in"] is None or known["tokens_out"] is None
        self.usage["micro_usd_unknown"] += known["micro_usd"] is None
        for name in ("tokens_in", "tokens_out", "micro_usd"):
            self.usage[name] += known[name] or 0

    def on_ToolAnswered(self, fact, body):
        shared = {"call": fact["call"], "tool": body["tool"], "key": body["key"], "arguments": _json(body["arguments"]),
                  "result": _json(body["result"]), "approval": body["approval"]}
        self._entry("tool_calls", fact, **shared, effect=body["effect"], origin=_symbol(body["origin"]),
                    http_status=body["http_status"], duration_ms=body["duration_ms"], args_hash=body["args_hash"])
        self.usage["tool_calls"] += 1
        for approval in reversed(self.state["approvals"] if body["approval"] else []):
            if approval["step"] == body["approval"] and approval["decision"] == "approved":
                approval |= {"spent": True, "spent_by": {"step": fact["step"], "visit": fact["visit"], "key": body["key"]}}
                break
        if body["effect"] != "write":
            return
        self.usage["writes"] += 1
        self._entry("committed_side_effects", fact, **shared, known=_symbol(body["origin"]))
        if doubt := self._open_doubt(body["key"]):
            doubt |= {"settled": True, "how": "ledger", "outcome": "done", "by": None}
        self.active[fact["branch"]]["status"] = "running"

    def _retry(self, fact, what, rule, reason, due):
        self._entry("retries", fact, what=what, rule=rule, reason=reason, due_at_ms=_time(due))
        self.usage["retries"] += 1

    def on_CallFailed(self, fact, body):
        if body["retry"]:
            self._retry(fact, body["target"], "call", body["reason"], body["due_at_ms"])

    def on_CallRefused(self, fact, body):
        self._entry("refusals", fact, **{k: body[k] for k in ("tool", "arguments", "arguments_valid", "rule", "reason")})
        self.usage["refusals"] += 1

    def on_OutputRejected(self, fact, body):
        if body["retry"]:
            self._retry(fact, fact["step"], body["rule"], body["reason"], 0)

    def on_CriterionChecked(self, fact, body):
        self._entry("criteria", fact, **{k: body[k] for k in ("says", "judge", "holds", "reason")})

    def on_InDoubt(self, fact, body):
        doubt = self._open_doubt(body["key"]) or self._entry("doubts", fact)
        doubt |= {"tool": body["tool"], "key": body["key"], "arguments": _json(body["arguments"]), "reason": body["reason"],
                  "policy": body["policy"], "until_ms": _time(body["until_ms"]), "settled": False, "how": None,
                  "outcome": None, "by": None}
        self.active[fact["branch"]]["status"] = "in_doubt"

    def on_DoubtSettled(self, fact, body):
        settled = body["outcome"] != "unknown" or body["how"] == "fail"
        if doubt := self._open_doubt(body["key"]):
            doubt |= {"settled": settled, "how": body["how"], "outcome": body["outcome"], "by": body["by"]}
        if settled:
            self.active[fact["branch"]]["status"] = "running"

    def _question(self, fact):
        for approval in self.state["approvals"]:
            if (approval["step"], approval["branch"], approval["visit"], approval["decision"]) == (
                    fact["step"], fact["branch"], fact["visit"], "waiting"):
                return approval
        absent = ("guards", "tool", "arguments", "args_hash", "planned", "due_at_ms", "by", "reason", "timed_out",
                  "decided_at_ms", "spent_by")
        return self._entry("approvals", fact, decision="waiting", spent=False, **dict.fromkeys(absent))

    def on_StepWaiting(self, fact, body):
        active = self.active[fact["branch"]]
        active |= {"status": "in_doubt" if active["status"] == "in_doubt" else "waiting", "owner": "waiting",
                   "who": "timer" if body["waits_for"] == "timer" else "person", "waits_for": body["waits_for"],
                   "reason": body["reason"], "due_at_ms": _time(body["due_at_ms"])}
        if body["waits_for"] == "approval":
            self._question(fact).update(guards=body["guards"], tool=body["tool"], arguments=_json(body["arguments"]),
                                        args_hash=body["args_hash"], planned=body["planned"],
                                        due_at_ms=_time(body["due_at_ms"]))

    def on_ApprovalDecided(self, fact, body):
        self._question(fact).update({k: body[k] for k in ("guards", "args_hash", "decision", "by", "reason", "timed_out")},
                                    decided_at_ms=fact["at_ms"])

    def on_StepCompleted(self, fact, body):
        output = _json(body["output"])
        self._entry("completed_steps", fact, edge=body["edge"], target=body["target"], output=output)
        if body["artifact"]:
            self.state["generated_artifacts"][body["artifact"]] = {"step": fact["step"], "visit": fact["visit"],
                                                                   "output": output}
        self._move(fact, body["target"])

    def on_StepFailed(self, fact, body):
        self._entry("failed_steps", fact, status="refused" if body["refused"] else "failed",
                    **{k: body[k] for k in ("reason", "edge", "target")})
        self._move(fact, body["target"])

    def on_RunEnded(self, fact, body):
        self.ended = _symbol(body["status"])
        self.active = {}
        self.usage = dict(body["usage"]) | {"micro_usd_unknown": self.usage["micro_usd_unknown"]}
        self.state |= {"reason": body["reason"], "output": _json(body["output"]), "ended_at_ms": fact["at_ms"]}

    def on_RequestAnswered(self, fact, body):
        pass


def rebuild(facts, run):
    fold = Fold(run)
    for fact in facts:
        fold.add(fact)
    return fold.result()
