"""Workers come and go under load: nothing is lost, no write is made twice, and who comes and goes in order repeats no call at all."""

import collections
import json
import pathlib
import random
import re
import signal
import threading
import time
import uuid

import confluent_kafka
import pytest
from harness import Space, wait_until
from history import History, encode, rebuild
from offsets import committed
from test_offset_map import needs_range

PARTITIONS = 4
CONTRACT = """
contract = {
  name = "two_of_each";
  goal = "Read and write, twice.";
  input = { required = ["pace"]; properties = { pace = { type = "string"; }; }; };
  limits = { deadline = "10m"; steps = 60; llm_tokens = 1000; usd = "1"; };
  boundaries = { allowed_tools = ["crm", "send"]; };
  tools = {
    crm  = { url = "${TOOLS_URL}/crm"; effect = "read"; timeout = "40s"; };
    send = { url = "${TOOLS_URL}/send"; effect = "write"; timeout = "@TIMEOUT@"; on_doubt = "probe";
             probe = { url = "${TOOLS_URL}/send/{key}"; done = ".status == 'sent'"; not_done = ".status == 'unknown'"; after = "500ms"; }; };
  };
  start = "look";
  steps = {
    look       = { tool = "crm"; args = "{pace: .input.pace, turn: 1}"; next = "send"; };
    send       = { tool = "send"; args = "{pace: .input.pace, turn: 1}"; next = "look_again"; };
    look_again = { tool = "crm"; args = "{pace: .input.pace, turn: 2}"; next = "send_again"; };
    send_again = { tool = "send"; args = "{pace: .input.pace, turn: 2}"; next = "end"; };
  };
};
"""
PACES_MS = {"fast": 20, "brisk": 150, "slow": 700, "slower": 2000}
SCRIPT = [{"match": {"tool": tool, "args_contain": {"pace": pace}}, "answer": {how: ms}}
          for tool, how in (("crm", "delay_ms"), ("send", "act_and_answer_late")) for pace, ms in PACES_MS.items()]


class Passer:
    """A member of the group that wants none of its partitions: by joining and leaving it makes all of them change hands."""

    def __init__(self, space):
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": space.name, "enable.auto.commit": False,
            "session.timeout.ms": 6000, "partition.assignment.strategy": "range"})
        self.joined = False
        self.consumer.subscribe([f"{space.name}.control"], on_assign=lambda *_: setattr(self, "joined", True))

        def served():
            self.consumer.poll(0.05)
            return self.joined

        wait_until("a member joins", served)

    def leave(self):
        self.consumer.close()


class Fleet:
    """A namespace with its load, and workers that are dynamic members: each claims its slot, and leaves at once."""

    def __init__(self, directory, script=SCRIPT, write_timeout="4s", librdkafka=None, **settings):
        self.space = Space(directory, partitions=PARTITIONS, settings={"settle": '"300ms"', "backoff": '"50ms"', **settings})
        self.tools = self.space.double("tool_double", script=script)
        path = directory / "two_of_each.cfg"
        path.write_text(CONTRACT.replace("@TIMEOUT@", write_timeout))
        self.space.create().publish(path)
        self.library = {"LD_PRELOAD": str(librdkafka), "ASAN_OPTIONS": "verify_asan_link_order=0"} if librdkafka else {}
        self.count, self.runs, self.history = 0, {}, None
        self.producer = confluent_kafka.Producer({"bootstrap.servers": self.space.env["MYELIN_KAFKA"], "linger.ms": 0,
                                                  "partitioner": "murmur2_random"})

    def worker(self, ready=True):
        self.count += 1
        name = f"w{self.count}"
        worker = self.space.worker(name, ready=False, MYELIN_SLOT="", **self.library)
        return worker.ready() if ready else worker

    def version(self, worker):
        """Of the contract, as the worker knows it."""
        known = worker.wait_log("contract=two_of_each hash=").log()
        return re.search(r"contract=two_of_each hash=(\w+)", known).group(1)

    def ask(self, version, pace):
        run = f"run-{len(self.runs):04d}"
        self.runs[run] = pace
        request = {"run": run, "request_id": str(uuid.uuid4()), "contract": "two_of_each", "contract_hash": version, "by": "test",
                   "at_ms": int(time.time() * 1000), "input": json.dumps({"pace": pace})}
        self.producer.produce(f"{self.space.name}.inbox", encode("RunRequested", request), run)
        self.producer.poll(0)

    def load(self, version, per_second, until):
        """A thread that asks for runs at that rate until `until` (time.monotonic)."""
        def feed():
            due = time.monotonic()
            while due < until:
                self.ask(version, random.choice(list(PACES_MS)))
                due += 1 / per_second
                time.sleep(max(0, due - time.monotonic()))
            assert self.producer.flush(30) == 0

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        return thread

    def ended(self):
        self.history = self.history or History(self.space)
        self.history.drain()
        return len({fact["run"] for fact in self.history.facts() if fact["kind"] == "RunEnded"})

    def wait_ended(self, seconds):
        try:
            wait_until("every run ended", lambda: self.ended() >= len(self.runs), seconds, every=0.3)
        except AssertionError as late:
            facts = self.history.facts()
            missing = set(self.runs) - {fact["run"] for fact in facts if fact["kind"] == "RunEnded"}
            last = {run: [(f["kind"], f["step"]) for f in facts if f["run"] == run][-1:] for run in sorted(missing)[:5]}
            raise AssertionError(f"{late}: {len(missing)} of {len(self.runs)} did not, {last}\n"
                                 + "\n".join(w.log()[-1500:] for w in self.space.workers if w.alive())) from None

    def judge(self):
        """Every run is complete, each write was made once, each offset is done, and `history` has no gap and no repeat."""
        facts = collections.defaultdict(list)
        for fact in self.history.facts():
            facts[fact["run"]].append(fact)
        states = {run: rebuild(facts[run], run) for run in self.runs}
        assert {run: (s["status"], s["gaps"], s["repeats"]) for run, s in states.items()} == dict.fromkeys(
            self.runs, ("completed", 0, 0))
        acted = collections.Counter((line["run"], line["args"]["turn"]) for line in self.tools.ledger("acted", tool="send"))
        assert acted == {(run, turn): 1 for run in self.runs for turn in (1, 2)}, acted.most_common(5)
        assert self.space.json("dead", "list") == []
        assert [self.undone(partition) for partition in range(PARTITIONS)] == [0] * PARTITIONS

    def undone(self, partition):
        """How many step events lie above the committed offset."""
        base = committed(self.space, partition)[0]
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": self.space.env["MYELIN_KAFKA"], "group.id": uuid.uuid4().hex, "enable.auto.commit": False,
            "isolation.level": "read_committed", "enable.partition.eof": True})
        consumer.assign([confluent_kafka.TopicPartition(f"{self.space.name}.steps.default", partition, base)])
        count = 0
        while not (message := consumer.poll(20)).error():
            count += 1
        assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
        consumer.close()
        return count

    def repeats(self, tool):
        """Calls that reached the tool more often than once."""
        calls = collections.Counter((line["run"], line["args"]["turn"]) for line in self.tools.ledger("received", tool=tool)
                                    if not line.get("probe"))
        return {call: count for call, count in calls.items() if count > 1}

    def close(self):
        if self.history:
            self.history.close()
        self.space.close()


@pytest.fixture
def fleet(tmp_path):
    made = []

    def make(**options):
        made.append(Fleet(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_storm(fleet):
    """For a minute a worker joins or leaves each second, in order or by kill -9."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice, one = random.Random(seed), fleet()
    alive, told, killed, last_kill, until = [one.worker()], [], 0, 0, time.monotonic() + 60
    loading = one.load(one.version(alive[0]), 8, until)
    for second in range(60):
        if len(alive) < 2 or (len(alive) < 5 and dice.random() < 0.5):
            alive.append(one.worker(ready=False))
        elif second - last_kill > 12:
            alive.pop(dice.randrange(len(alive))).kill()
            last_kill, killed = second, killed + 1
        else:
            told.append(alive.pop(dice.randrange(len(alive))))
            told[-1].process.terminate()
        time.sleep(max(0, until - 59 + second - time.monotonic()))
    loading.join()
    one.wait_ended(60)
    one.judge()
    print(len(one.runs), "runs,", one.count, "workers,", killed, "killed; reads made again:", len(one.repeats("crm")),
          "writes that were sent again:", len(one.repeats("send")))
    # One that was told before it had begun to listen, and to speak, dies of it.
    assert [worker.log()[-1000:] for worker in told if worker.process.wait(30) != 0 and worker.log()] == []


def times(fleet):
    """The longest time without any fact in `history`; and how much longer runs took than their calls, the median and the longest."""
    facts = fleet.history.facts()
    stamps = sorted(message.timestamp()[1] for message in fleet.history.messages)
    took = collections.Counter()
    for fact in facts:
        took[fact["run"]] += fact["at_ms"] * {"RunStarted": -1, "RunEnded": 1}.get(fact["kind"], 0)
    over = sorted(ms - 4 * PACES_MS[fleet.runs[run]] for run, ms in took.items())
    return (f"the longest time without any fact {max(after - before for before, after in zip(stamps, stamps[1:]))} ms; a run took "
            f"{over[len(over) // 2]} ms longer than its calls, at most {over[-1]} ms")


def bundled():
    """The librdkafka that the Python client brings."""
    found = list((pathlib.Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*.so*"))
    assert len(found) == 1, f"which is the librdkafka of {confluent_kafka.__file__}? {found}"
    return found[0]


@pytest.mark.parametrize("whose", ["installed", "of the Python client"])
def test_scaled_out_and_in(fleet, whose):
    """One worker becomes four and one again under load, each of them stopped in order in the middle of its calls: not one call is
    made twice, neither read nor write, and no write is in doubt, for whoever let it go stores its result. Also with a newer
    librdkafka, where the group's protocol is cooperative."""
    librdkafka = bundled() if whose == "of the Python client" else None
    one = fleet(librdkafka=librdkafka)
    workers, begin = [one.worker()], time.monotonic()
    if librdkafka:
        workers[0].wait_log("assignor=cooperative-sticky")
    loading = one.load(one.version(workers[0]), 10, begin + 24)
    for _ in range(3):
        time.sleep(2)
        workers.append(one.worker())
    for worker in workers[:3]:
        time.sleep(2)
        assert worker.terminate() == 0
    loading.join()
    one.wait_ended(60)
    one.judge()
    print(f"{len(one.runs)} runs; {times(one)}")
    assert one.repeats("crm") == one.repeats("send") == {}
    assert "InDoubt" not in {fact["kind"] for fact in one.history.facts()}


def test_calls_are_kept(fleet):
    """▲ Partitions change hands again and again, and come back untouched, while reads and writes are stuck: each call goes on as
    that of the new tenure. None is made again, and none is waited for: no answer is taken from Redis, no write is in doubt."""
    calls = 12
    one = fleet(write_timeout="30s", script=[
        {"match": {"tool": "crm", "args_contain": {"turn": 1}}, "answer": {"delay_ms": 15000}},
        {"match": {"tool": "send", "args_contain": {"turn": 1}}, "answer": {"act_and_answer_late": 15000}}])
    worker = one.worker()
    needs_range(worker)
    version = one.version(worker)
    for _ in range(calls):
        one.ask(version, "fast")
    back, _ = 0, one.producer.flush(30)
    for tool in ("crm", "send"):
        wait_until("all calls are on their way", lambda: len(one.tools.ledger("received", tool=tool)) == calls, 40)
        for _ in range(2):
            passer = Passer(one.space)
            back += PARTITIONS
            wait_until("all partitions came back", lambda: worker.log().count("event=assign.kept") == back)
            passer.leave()
            back += PARTITIONS
            wait_until("and again", lambda: worker.log().count("event=assign.kept") == back)
    one.wait_ended(30)
    one.judge()
    assert one.repeats("crm") == one.repeats("send") == {}
    kinds = {fact["kind"] for fact in one.history.facts()}
    assert "InDoubt" not in kinds and "StepWaiting" not in kinds, kinds
    origins = {fact["body"]["origin"].lower() for fact in one.history.facts() if fact["kind"] == "ToolAnswered"}
    assert origins == {"called"}, origins
    kept = re.findall(r"event=assign.kept topic=\S+ partition=\d+ tenure=\d+ before=\d+ calls=(\d+)", worker.log())
    assert sum(map(int, kept)) == 8 * calls, kept


def test_calls_are_kept_although_all_was_lost(fleet):
    """▲ A worker is frozen for longer than its session while its writes are stuck. Nobody else was there: they go on."""
    calls = 12
    one = fleet(write_timeout="40s", script=[{"match": {"tool": "send", "args_contain": {"turn": 1}}, "answer": {"act_and_answer_late": 16000}}])
    worker = one.worker()
    version = one.version(worker)
    for _ in range(calls):
        one.ask(version, "fast")
    one.producer.flush(30)
    wait_until("all writes are on their way", lambda: len(one.tools.ledger("acted", tool="send")) == calls, 40)
    worker.process.send_signal(signal.SIGSTOP)
    time.sleep(8)  # as long as a session, and two looks of the coordinator
    worker.process.send_signal(signal.SIGCONT)
    worker.wait_log("what=lost")
    one.wait_ended(40)
    one.judge()
    assert one.repeats("send") == {}
    assert {fact["body"]["origin"].lower() for fact in one.history.facts() if fact["kind"] == "ToolAnswered"} == {"called"}
    kept = re.findall(r"event=assign.kept topic=\S+ partition=\d+ tenure=\d+ before=\d+ calls=(\d+)", worker.log())
    assert sum(map(int, kept)) == calls, kept
