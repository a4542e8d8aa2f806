"""The command line by itself: exit codes, messages, and what it makes of records that stand on the topics. No worker runs
here: facts and rows are put there as a worker writes them, and a thread answers requests in a worker's place."""

import json
import os
import pty
import re
import subprocess
import threading
import time
import uuid

import confluent_kafka
import pytest

from doubles import BUILD, ROOT
from harness import Refused, Space
from history import Fold, decode, encode, produce
from kafka_proxy import LOSE, METADATA, PASS, Proxy

CONTRACT = ROOT / "config" / "contracts" / "customer_research_to_followup.cfg"
NAME = "customer_research_to_followup"
INPUT = {"company": "Acme GmbH", "contact": "jane@acme.example"}
ARGS = {"to": "jane@acme.example", "subject": "Your Q3 rollout", "body": "Dear Jane,\nall is well.\nsubject : forged"}
NOW = int(time.time() * 1000)


def uuid7(at_ms):
    return f"{at_ms >> 16:08x}-{at_ms & 0xFFFF:04x}-7{uuid.uuid4().hex[:3]}-8{uuid.uuid4().hex[:3]}-{uuid.uuid4().hex[:12]}"


def myelin(*command, input=None, **env):
    return subprocess.run([BUILD / "myelin", *map(str, command)], env={**os.environ, **env}, input=input, capture_output=True,
                          text=True, timeout=60, stdin=None if input is not None else subprocess.DEVNULL)


# ---- what needs no server ----


@pytest.mark.parametrize("command, code, says", [
    ([], 64, "usage: myelin COMMAND"),
    (["--help"], 0, "exit codes:"),
    (["contract"], 64, "myelin contract publish FILE"),
    (["aprove", "a", "b"], 64, 'did you mean "approve"?'),
    (["contract", "chek", "x"], 64, 'did you mean "contract check"?'),
    (["run", "x", "--inptu", "{}"], 64, "did you mean --input"),
    (["run", "x", "--input"], 64, "--input needs a value"),
    (["run", "x"], 64, "--input is missing"),
    (["run", "x", "y", "--input", "{}"], 64, "too many arguments"),
    (["run", "x", "--input", "{}", "--id", "a b"], 64, "cannot name a run"),
    (["run", "x", "--input", "{}", "--id", "x" * 129], 64, "cannot name a run"),
    (["run", "x", "--input", "{}", "--follow=yes"], 64, "--follow takes no value"),
    (["runs", "-x"], 64, "options are written in full"),
    (["runs", "--timeout", "5"], 64, 'for example "5s"'),
    (["runs", "--timeout", "0s"], 64, 'for example "5s"'),
    (["show", "a/b"], 64, "is no run id"),
    (["follow", "x", "--until", "done"], 64, "--until"),
    (["resolve", "a", "b"], 64, "say exactly one of"),
    (["resolve", "a", "b", "--fail", "--not-done"], 64, "say exactly one of"),
    (["resolve", "a", "b", "--done", "{"], 65, "not valid JSON"),
    (["dead", "show", "17"], 64, "PARTITION@OFFSET"),
    (["doctor", "--yes"], 64, "--adopt"),
    (["doctor", "--adopt", "inbox"], 64, "--adopt"),
    (["contract", "check", "/nonexistent.cfg"], 1, "/nonexistent.cfg: cannot be opened"),
    (["contract", "show", "/nonexistent.cfg"], 65, "1 error"),
    (["runs", "--config", "/nonexistent.cfg"], 78, "/nonexistent.cfg: cannot be opened"),
])
def test_usage(command, code, says):
    done = myelin(*command)
    assert (done.returncode, says in done.stdout + done.stderr) == (code, True), done


def test_every_command_has_help_with_an_example():
    commands = re.findall(r"^  ((?:contract|topics|dead) \w+|\w+)  ?", myelin("--help").stdout.split("exit codes")[0], re.M)
    assert len(commands) == 17
    for command in commands:
        done = myelin(*command.split(), "--help")
        assert done.returncode == 0 and f"  myelin {command}" in done.stdout and "--json" in done.stdout, command


def test_contract_check_and_show():
    done = myelin("contract", "check", CONTRACT)
    assert done.returncode == 0 and f": ok, {NAME}@" in done.stdout
    rows = [json.loads(line) for line in myelin("contract", "show", CONTRACT, "--json").stdout.splitlines()]
    assert [(r["step"], r["writes"]) for r in rows] == [("research", "-"), ("draft", "-"), ("approve_final_email", "-"), ("send", "YES")]


def test_a_bad_contract_is_told_as_objects(tmp_path):
    path = tmp_path / "bad.cfg"
    path.write_text(CONTRACT.read_text().replace('agent = "researcher"', 'agent = "resercher"'))
    done = myelin("contract", "check", path, "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and told[-1]["ok"] is False
    assert any(t.get("line", 0) > 0 and 'did you mean "researcher"?' in t["text"] for t in told)


def test_a_model_that_the_worker_does_not_have(tmp_path):
    path = tmp_path / "bad.cfg"
    path.write_text(CONTRACT.read_text().replace('model = "small"', 'model = "smal"'))
    line = path.read_text()[: path.read_text().index('"smal"')].count("\n") + 1
    done = myelin("contract", "check", path)
    assert done.returncode == 1
    assert f'bad.cfg:{line}: agents.reviewer.model: no such model "smal", did you mean "small"?' in done.stderr + done.stdout
    settings = tmp_path / "worker.cfg"
    settings.write_text('models = { smal = { url = "http://127.0.0.1:1"; model = "m"; }; default = { url = "http://127.0.0.1:1"; model = "m"; }; };\n')
    assert myelin("contract", "check", path, "--worker-config", settings).returncode == 0
    assert myelin("contract", "check", path, "--worker-config", tmp_path / "none.cfg").returncode == 78


def test_kafka_that_is_not_there():
    done = myelin("doctor", "--timeout", "1s", MYELIN_KAFKA="127.0.0.1:1", MYELIN_REDIS="127.0.0.1:1")
    assert done.returncode == 1 and "FAIL  kafka      cannot reach 127.0.0.1:1" in done.stdout
    assert "FAIL  redis      cannot reach Redis at 127.0.0.1:1" in done.stdout


# ---- on topics of its own ----


class Story:
    """Facts of one run, written as a worker writes them."""

    def __init__(self, space, run):
        self.space, self.run, self.seq, self.offset = space, run, 0, 0
        self.fold = Fold(run)

    def fact(self, kind, step="", visit=0, after_s=0.0, seq=None, **body):
        record = {"run": self.run, "contract_hash": self.space.hash, "seq": self.seq if seq is None else seq,
                  "at_ms": NOW + int(after_s * 1000), "branch": "", "step": step, "visit": visit, "attempt": 1, "turn": 0,
                  "call": 0, "worker": "a:1", "source_topic": f"{self.space.name}.steps.default", "source_partition": 3,
                  "source_offset": self.offset}
        self.seq += seq is None
        self.offset += 1
        produce(self.space, "history", self.run, encode("Fact", {**record, "body": (f"myelin.{kind}", body)}))
        return self

    def started(self):
        return self.fact("RunStarted", contract=NAME, requested_by="me", goal="g", input=json.dumps(INPUT),
                         deadline_at_ms=NOW + 3 * 86400000)

    def model(self, step, calls=(), content=None, **body):
        return self.fact("ModelAnswered", step, 1, 0.1, agent="researcher", model="default", judge=False, content=content,
                         calls=[{"id": "c", "tool": tool, "arguments": json.dumps(args)} for tool, args in calls],
                         tokens_in=1000, tokens_out=200, tokens_cached=-1, micro_usd=4500, duration_ms=120, origin="called",
                         **body)

    def tool(self, step, tool, effect, origin="called", key="k1", **body):
        return self.fact("ToolAnswered", step, 1, 0.3, tool=tool, effect=effect, key=key, arguments=json.dumps(ARGS),
                         result='{"status": "sent"}', http_status=200, duration_ms=35, origin=origin, **body)

    def completed(self, step, target, after_s=0.5, **body):
        return self.fact("StepCompleted", step, 1, after_s, output='{"subject": "s"}', edge="next", target=target, **body)

    def until_approval(self):
        self.started().model("research", [("search_company", {"query": "Acme"})]).tool("research", "search_company", "read")
        self.fact("CallRefused", "research", 1, 0.4, tool="export_contact_list\x1b[2J\x1b[8m", arguments="{}", arguments_valid=True,
                  rule="boundaries.forbidden_actions", reason="it is forbidden")
        self.completed("research", "draft").completed("draft", "approve_final_email", artifact="email_draft")
        return self.fact("StepWaiting", "approve_final_email", 1, 0.7, waits_for="approval", reason="approval of send",
                         due_at_ms=NOW + 86400000, guards="send", tool="send_email", arguments=json.dumps(ARGS),
                         args_hash="91be" * 16, planned=True)

    def ended(self, status="completed", reason="completed"):
        usage = {"steps": 4, "model_calls": 1, "tool_calls": 2, "writes": 1, "retries": 0, "refusals": 1, "tokens_in": 1000,
                 "tokens_out": 200, "tokens_unknown": 0, "micro_usd": 4500}
        return self.fact("RunEnded", "send", 1, 9.9, status=status, reason=reason, output='{"status": "sent"}', usage=usage)


def put(space, key, value, partition=-1):
    """A row of `waiting`; returns its partition."""
    where = []
    producer = confluent_kafka.Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "partitioner": "murmur2_random"})
    options = {} if partition < 0 else {"partition": partition}
    producer.produce(f"{space.name}.waiting", value, key, on_delivery=lambda _, message: where.append(message.partition()), **options)
    assert producer.flush(20) == 0
    return where[0]


def row(space, run, status="running", **more):
    return put(space, run, encode("RunRow", {
        "run": run, "contract": NAME, "contract_hash": space.hash, "input_hash": "0" * 64, "status": status, "requested_by": "me",
        "started_at_ms": NOW, "deadline_at_ms": NOW + 3 * 86400000, "ended_at_ms": 0, **more}))


def park(space, run, step="approve_final_email", waits_for="approval", **more):
    """The run's row, and a parked step in the same partition: it is the inbox's."""
    put(space, f"{run}/", partition=row(space, run), value=encode("StepParked", {
        "run": run, "branch": "", "step": step, "visit": 1, "waits_for": waits_for, "reason": "approval of send",
        "parked_at_ms": NOW, "due_at_ms": NOW + 86400000, "run_deadline_at_ms": NOW + 3 * 86400000, "timeout_action": "pause",
        "guards": "send", "tool": "send_email", "arguments": json.dumps(ARGS), "args_hash": "91be" * 16, "contract": NAME,
        "contract_hash": space.hash, "event": b"", **more}))


class Keeper(threading.Thread):
    """Answers each request on `inbox` as told, in a worker's place."""

    def __init__(self, space, accepted=True, reason=None):
        super().__init__(daemon=True)
        self.space, self.accepted, self.reason, self.requests, self.done = space, accepted, reason, [], threading.Event()
        self.consumer = confluent_kafka.Consumer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": "keeper",
                                                  "enable.auto.commit": False, "fetch.wait.max.ms": 20})
        topic = f"{space.name}.inbox"
        parts = [confluent_kafka.TopicPartition(topic, p) for p in self.consumer.list_topics(topic, 10).topics[topic].partitions]
        for part in parts: # from now on; known before the first request is sent
            part.offset = self.consumer.get_watermark_offsets(part, 10)[1]
        self.consumer.assign(parts)

    def run(self):
        while not self.done.is_set():
            message = self.consumer.poll(0.05)
            if message is None or message.error():
                continue
            kind, record = decode(message.value())
            self.requests.append((kind.split(".")[-1], record))
            fact = {"run": record["run"], "seq": -1, "at_ms": NOW, "branch": "", "step": "", "visit": 0, "attempt": 0, "turn": 0,
                    "call": 0, "source_partition": message.partition(), "source_offset": message.offset(),
                    "body": ("myelin.RequestAnswered", {"request_id": record["request_id"], "request": "x",
                                                        "accepted": self.accepted, "reason": self.reason})}
            produce(self.space, "history", record["run"], encode("Fact", fact))
        self.consumer.close()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join(10)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    with Space(tmp_path_factory.mktemp("cli"), partitions=4) as made:
        made.create().publish(CONTRACT)
        made.hash = made.json("contract", "list")[0]["hash"]
        yield made


def failing(space, *command, **options):
    with pytest.raises(Refused) as refused:
        space.cli(*command, **options)
    return refused.value.code, refused.value.stderr


def test_topics_that_are_there_are_left_alone(space):
    told = space.json("topics", "create")
    assert all(not t["problem"] for t in told) and {t["text"] for t in told[:-1]} == {"is there, 4 partitions", "is there, 1 partition"}
    assert told[-1] == {"topic": "schemas", "text": "are there", "problem": False}
    assert space.cli("topics", "check").returncode == 0
    path = space.directory / "other.cfg"
    path.write_text((space.directory / "worker.cfg").read_text().replace('pools = ["default"]', 'pools = ["heavy"]'))
    code, stderr = failing(space, "topics", "check", "--config", path)
    assert code == 1 and "are not as a worker needs them" in stderr


def test_a_broker_goes_while_it_is_asked(space, monkeypatch):
    """Another one, or the same one when it is back, is asked again within the time that there is."""
    asked = []

    def rule(request):
        asked.extend([request] * (request.key == METADATA))
        return LOSE if request.key == METADATA and len(asked) <= 6 else PASS

    with Proxy(space.env["MYELIN_KAFKA"], rule) as proxy:
        monkeypatch.setitem(space.env, "MYELIN_KAFKA", proxy.address)
        assert {one["contract"] for one in space.json("contract", "list")} == {NAME}
    assert len(asked) > 6


def test_publish_is_idempotent_and_by_content(space, tmp_path):
    path = tmp_path / "same.cfg"
    path.write_text("# another comment\n" + CONTRACT.read_text())
    assert "already published" in space.cli("contract", "publish", path).stdout
    path.write_text(CONTRACT.read_text().replace("Cite every claim.", "Cite each claim."))
    assert "already published" not in space.cli("contract", "publish", path).stdout
    assert [v["latest"] for v in space.json("contract", "list", NAME)] == [False, True]
    assert "the latest version from now on" in space.cli("contract", "publish", CONTRACT).stdout
    listed = space.json("contract", "list", NAME)
    assert [v["latest"] for v in listed] == [False, True] and listed[1]["hash"] == space.hash
    path.write_text(CONTRACT.read_text().replace('next = "approve_final_email"', 'next = "send"'))
    code, _ = failing(space, "contract", "publish", path)
    assert code == 1 and len(space.json("contract", "list", NAME)) == 2


@pytest.mark.parametrize("contract, data, code, says", [
    ("customer_research", INPUT, 66, 'did you mean "customer_research_to_followup"?'),
    (f"{NAME}@0000", INPUT, 66, "has no published version 0000"),
    (NAME, {"company": "Acme"}, 65, "the input does not fit"),
    (NAME, {"company": 5, "contact": "jane@acme.example"}, 65, "company"),
    (NAME, {"company": "Acme", "contact": "jane"}, 65, "contact"),
])
def test_run_checks_before_it_asks(space, contract, data, code, says):
    got, stderr = failing(space, "run", contract, "--input", json.dumps(data))
    assert got == code and says in stderr


def test_run_without_a_worker_says_where_to_look(space):
    code, stderr = failing(space, "run", NAME, "--input", json.dumps(INPUT), "--timeout", "1s")
    assert code == 75 and "no worker answered within 1s" in stderr and "myelin doctor" in stderr


def test_run_prints_the_id_alone(space):
    with Keeper(space) as keeper:
        done = space.cli("run", f"{NAME}@{space.hash[:10]}", "--input", "-", input=json.dumps(INPUT))
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n", done.stdout)
        kind, request = keeper.requests[0]
        assert kind == "RunRequested" and request["run"] == done.stdout.strip() and request["contract_hash"] == space.hash
        assert json.loads(request["input"]) == INPUT
        at_ms = int(request["run"].replace("-", "")[:12], 16)
        assert abs(at_ms - time.time() * 1000) < 60000
        told = space.json("run", NAME, "--input", json.dumps(INPUT), "--id", "order-4711")[0]
        assert told["run"] == "order-4711" and told["accepted"]


def test_a_refusal_is_told_with_its_reason(space):
    with Keeper(space, False, "another input was given before"):
        code, stderr = failing(space, "run", NAME, "--input", json.dumps(INPUT), "--id", "order-1")
        assert code == 77 and "another input was given before" in stderr
        done = space.cli("run", NAME, "--input", json.dumps(INPUT), "--json", check=False)
        assert json.loads(done.stdout.splitlines()[-1])["exit"] == 77


def test_follow_tells_and_ends_with_the_run(space):
    run = uuid7(NOW)
    story = Story(space, run).until_approval()
    done = space.cli("follow", run, "--until", "waiting", check=False)
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert re.search(r'^ +0\.1s research +model asks search_company\("Acme"\) .* 3@1$', done.stdout, re.M)
    assert "REFUSED before the call: export_contact_list?[2J?[8m: boundaries.forbidden_actions" in done.stdout
    assert any("WAITING for a person: approval of send" in line for line in lines)
    assert f"myelin approve {run} approve_final_email" in done.stdout
    assert "           subject : Your Q3 rollout" in lines
    assert "                   | subject : forged" in lines, "a text cannot pretend to be another argument"
    code, stderr = failing(space, "follow", run, "--timeout", "1s")
    assert code == 75 and "has not ended within 1s" in stderr
    timer = threading.Timer(0.5, lambda: story.fact("ApprovalDecided", "approve_final_email", 1, 9.0, decision="approved", by="me",
                                                    args_hash="91be" * 16, timed_out=False).ended())
    timer.start()
    done = space.cli("follow", run)
    assert done.returncode == 0 and "approved by me, bound to sha256:91be91be" in done.stdout
    assert re.search(r"9\.9s send +COMPLETED 4 steps, 1,200 LLM tokens, \$0\.0045, 1 refused", done.stdout)
    assert [json.loads(line)["seq"] for line in space.cli("follow", run, "--json").stdout.splitlines()] == list(range(9))


def test_follow_of_a_failed_run(space):
    run = uuid7(NOW)
    Story(space, run).started().ended("failed", "limits.usd: spent")
    done = space.cli("follow", run, check=False)
    assert done.returncode == 1 and "FAILED limits.usd: spent" in done.stdout


def sections(text):
    """{title: lines} of `show`."""
    found, title = {}, "HEAD"
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z ]+", line):
            title = line
        else:
            found.setdefault(title, []).append(line.strip())
    return found


def test_show_of_a_run_that_waits(space):
    run = uuid7(NOW)
    Story(space, run).until_approval()
    park(space, run)
    told = sections(space.cli("show", run).stdout)
    assert "waiting" in told["HEAD"][0] and NAME in told["HEAD"][0]
    assert "approve_final_email, visit 1" in told["WHAT IS PENDING"][0]
    assert "to      : jane@acme.example" in told["WHAT IS PENDING"]
    assert told["WHO ACTS NEXT"] == ["a person"]
    assert told["WHAT MUST NEVER RUN TWICE"] == ["nothing was written yet"]
    assert re.search(rf"{space.name}\.waiting \d@\d+", told["WHERE IT RESUMES AFTER A CRASH"][0])
    assert "1,000 tokens in, 200 out; $0.0045" in told["WHAT IT COST"][1]
    assert told["TYPE NEXT"][0] == f"myelin approve {run} approve_final_email"
    assert any("refused before the call: export_contact_list?[2J?[8m" in line for line in told["WHAT HAPPENED"])


def test_show_of_a_run_that_ended(space):
    run = uuid7(NOW)
    story = Story(space, run).until_approval()
    story.fact("ApprovalDecided", "approve_final_email", 1, 1, decision="approved", by="me", args_hash="91be" * 16, timed_out=False)
    story.completed("approve_final_email", "send").tool("send", "send_email", "write", "probed", "5f0c", approval="approve_final_email")
    story.completed("send", "end").ended()
    told = sections(space.cli("show", run).stdout)
    assert told["WHAT MUST NEVER RUN TWICE"] == ["send_email  step send, visit 1  DONE (probed)  key 5f0c"]
    assert told["WHAT IS PENDING"] == ["nothing: the run has ended"] and told["WHO ACTS NEXT"] == ["nobody"]
    state = space.json("show", run)[0]
    assert state["status"] == "completed" and state["gaps"] == 0 and state["approvals"][0]["spent"]
    assert set(state) >= {"current_step", "completed_steps", "tool_calls", "retries", "approvals", "generated_artifacts",
                          "committed_side_effects", "usage"}


def test_show_of_a_doubt(space):
    run = uuid7(NOW)
    story = Story(space, run).started().completed("draft", "send")
    story.fact("InDoubt", "send", 1, 1, tool="send_email", key="5f0c", arguments="{}", reason="reserved by another", policy="ask",
               until_ms=0)
    story.fact("StepWaiting", "send", 1, 2, waits_for="resolution", reason="reserved by another", due_at_ms=0, tool="send_email",
               arguments=json.dumps(ARGS), key="5f0c", planned=False)
    told = sections(space.cli("show", run).stdout)
    assert "IN DOUBT: reserved by another" in told["WHAT MUST NEVER RUN TWICE"][0]
    assert told["WHAT MAY BE RETRIED"] == ["nothing, until the doubt is settled"]
    assert told["TYPE NEXT"] == [f"myelin resolve {run} send --done JSON | --not-done | --fail"]
    story.ended("failed", "limits.deadline: 3 d have passed")  # a new run would do again what may have been done
    told = sections(space.cli("show", run).stdout)
    assert "whether send_email happened is not known" in told["WHO ACTS NEXT"][0]
    assert not any("myelin run" in line for line in told["TYPE NEXT"])
    assert any("First look whether send_email has happened (key 5f0c)" in line for line in told["TYPE NEXT"]), told["TYPE NEXT"]


def test_show_of_a_run_whose_worker_died(space):
    run = uuid7(NOW)
    Story(space, run).started().completed("research", "draft", after_s=0)
    partition = confluent_kafka.Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "partitioner": "murmur2_random"})
    where = []
    for _ in range(2):
        partition.produce(f"{space.name}.steps.default", b"x", run, on_delivery=lambda _, m: where.append((m.partition(), m.offset())))
    partition.flush(20)
    told = sections(space.cli("show", run).stdout)
    assert told["WHO ACTS NEXT"] == ["a worker"]
    assert told["WHERE IT RESUMES AFTER A CRASH"][0].endswith("{}.steps.default {}@{}".format(space.name, *where[-1]))
    assert told["WHAT MAY BE RETRIED"][0].startswith("model calls and reads of draft: attempt 1 of 4")


def test_ids_that_are_not_ours(space):
    Story(space, "order-4712").started()
    code, stderr = failing(space, "show", "order-4712")
    assert code == 66 and "no run order-4712 is open or remembered" in stderr
    assert space.json("show", "order-4712", "--since", "1h")[0]["run"] == "order-4712"
    row(space, "order-4712")
    assert space.json("show", "order-4712")[0]["run"] == "order-4712"
    assert space.json("show", "order-471")[0]["run"] == "order-4712", "the beginning of an id is enough"
    row(space, "order-4713")
    code, stderr = failing(space, "show", "order-471")
    assert code == 66 and "2 runs begin with order-471" in stderr


def test_gaps_are_told(space):
    run = uuid7(NOW)
    Story(space, run).started().fact("StepCompleted", "research", 1, seq=4, edge="next", target="draft")
    done = space.cli("show", run)
    assert "3 facts of the run are missing" in done.stderr
    assert space.json("show", run)[0]["gaps"] == 3


def test_runs(space):
    failed, waits = "runs-failed", "runs-waits"
    row(space, failed, "failed", ended_at_ms=NOW + 5000, reason="limits.usd: spent")
    park(space, waits)
    listed = {r["run"]: r for r in space.json("runs")}
    assert listed[failed]["status"] == "failed" and listed[failed]["reason"] == "limits.usd: spent"
    assert (listed[waits]["status"], listed[waits]["waits_for"], listed[waits]["step"]) == ("waiting", "approval", "approve_final_email")
    assert failed not in {r["run"] for r in space.json("runs", "--open")}
    assert re.search(rf"{waits} .*waits for a person \(approve_final_email\)", space.cli("runs").stdout)
    put(space, f"{waits}/", None, partition=row(space, waits))
    assert {r["run"]: r for r in space.json("runs")}[waits]["status"] == "running"


def test_approvals_show_everything(space):
    park(space, "asks")
    told = next(a for a in space.json("approvals") if a["run"] == "asks")
    assert told["arguments"] == ARGS and told["args_hash"] == "91be" * 16 and told["guards"] == "send"
    text = space.cli("approvals").stdout
    assert "a yes lets step send call send_email once, with exactly these arguments (sha256:91be91be91be91be)" in text
    assert "            | subject : forged" in text


def test_a_decision_is_bound_to_what_was_shown(space):
    park(space, "decides")
    with Keeper(space) as keeper:
        done = space.cli("approve", "decides", "approve_final_email", "--reason", "fine")
        assert "to      : jane@acme.example" in done.stdout
        kind, decision = keeper.requests[0]
        assert kind == "Decision" and decision["approved"] and decision["visit"] == 1 and decision["args_hash"] == "91be" * 16
        assert decision["reason"] == "fine" and decision["by"]
        space.cli("reject", "decides", "approve_final_email", "--shown", "91be91be")
        assert not keeper.requests[1][1]["approved"]
        code, stderr = failing(space, "approve", "decides", "approve_final_email", "--shown", "77aa77aa")
        assert code == 77 and "not the arguments that you were shown" in stderr and len(keeper.requests) == 2
    with Keeper(space, False, "it was decided already"):
        code, stderr = failing(space, "approve", "decides", "approve_final_email")
        assert code == 77 and "it was decided already" in stderr


@pytest.mark.parametrize("command, says", [
    (["approve", "misses", "send"], "step send is guarded by approve_final_email"),
    (["approve", "misses", "draft"], "what waits is approve_final_email"),
    (["resolve", "misses", "approve_final_email", "--fail"], "waits for an approval: myelin approve misses"),
    (["approve", "ended-run", "approve_final_email"], "has ended (failed)"),
    (["approve", "busy-run", "approve_final_email"], "a worker is at it"),
    (["approve", "sleeps", "draft"], "waits for its time"),
])
def test_a_decision_that_nothing_waits_for(space, command, says):
    park(space, "misses")
    row(space, "ended-run", "failed", ended_at_ms=NOW)
    row(space, "busy-run")
    park(space, "sleeps", "draft", "timer")
    code, stderr = failing(space, *command)
    assert code == 66 and says in stderr


def test_resolve(space):
    park(space, "doubts", "send", "resolution", key="5f0c", guards=None)
    with Keeper(space) as keeper:
        done = space.cli("resolve", "doubts", "send", "--done", '{"id": 7}')
        assert "may or may not have executed this (Idempotency-Key 5f0c)" in done.stdout
        for option in ("--not-done", "--fail"):
            space.cli("resolve", "doubts", "send", option)
        assert [(kind, r["kind"], r["result"]) for kind, r in keeper.requests] == [
            ("Resolved", "done", '{"id":7}'), ("Resolved", "not_done", None), ("Resolved", "fail", None)]


def test_dead_letters(space):
    produce(space, "dead", "k", encode("DeadLetter", {
        "reason": "not a record: 5 bytes", "source_topic": f"{space.name}.inbox", "source_partition": 2, "source_offset": 17,
        "key": b"k", "value": b"hello\x00\xff", "at_ms": NOW, "worker": "a:1"}))
    told = space.json("dead", "list")
    assert told[-1]["reason"] == "not a record: 5 bytes" and "value" not in told[-1]
    place = f"{told[-1]['partition']}@{told[-1]['offset']}"
    text = space.cli("dead", "show", place).stdout
    assert f"{space.name}.inbox 2@17" in text and "68 65 6c 6c 6f 00 ff" in text and "hello.." in text
    assert space.json("dead", "show", place)[0]["value"] == "hello\x00\xff"
    assert failing(space, "dead", "show", "0@99999")[0] == 66


def test_garbage_on_the_topics_is_stepped_over(space):
    run = uuid7(NOW)
    Story(space, run).started()
    for topic, key in (("history", run), ("waiting", "x/"), ("control", "contract/x/y"), ("dead", "x")):
        produce(space, topic, key, b"\xc3\x01garbage")
    for command in (["show", run], ["runs"], ["dead", "list"], ["contract", "list"]):
        done = space.cli(*command)
        assert "warning: " in done.stderr
    assert space.json("show", run)[0]["facts"] == 1


def test_doctor(space):
    done = space.cli("doctor", check=False, seconds=90)
    assert re.search(r"ok +topics +all are as a worker needs them", done.stdout)
    assert re.search(r"warn +workers +none is in the group", done.stdout)
    assert re.search(r"ok +redis ", done.stdout)
    assert re.search(rf"ok +contract +{NAME}@", done.stdout)
    env = {**space.env, "MODEL_URL": "http://127.0.0.1:1/v1"}
    env.pop("TOOLS_URL")
    done = subprocess.run([BUILD / "myelin", "doctor", "--json"], env=env, capture_output=True, text=True, timeout=60)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert any(t["verdict"] == "FAIL" and t["what"] == "model" for t in told)
    assert any(t["verdict"] == "warn" and "TOOLS_URL" in t["text"] for t in told)


def test_colours_only_on_a_terminal(space):
    def on_terminal(**env):
        parent, child = pty.openpty()
        process = subprocess.Popen([BUILD / "myelin", "topics", "check"], env={**space.env, "TERM": "xterm", **env}, stdout=child,
                                   stderr=child, stdin=subprocess.DEVNULL)
        os.close(child)
        said = b""
        while True:
            try:
                part = os.read(parent, 4096)
            except OSError:
                break
            said += part
        process.wait(20)
        os.close(parent)
        return said

    assert b"\x1b[32m" in on_terminal()
    assert b"\x1b" not in on_terminal(NO_COLOR="1")
    assert "\x1b" not in space.cli("topics", "check").stdout


def test_output_that_cannot_be_written(space):
    with open("/dev/full", "w") as full:
        done = subprocess.run([BUILD / "myelin", "contract", "list"], env=space.env, stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=30)
    assert done.returncode == 74 and "could not be written" in done.stderr
