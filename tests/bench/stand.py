"""What every part of the benchmark stands on: a namespace, its load, its judge, and what the kernel says about processes."""

import atexit
import collections
import json
import os
import pathlib
import subprocess
import time
import urllib.request
import uuid

import confluent_kafka
import confluent_kafka.admin

from doubles import BUILD, ROOT
from harness import Space, local_env, wait_until
from history import decode, encode

HERE = pathlib.Path(__file__).resolve().parent
LOGS = ROOT / "build" / "bench-logs"
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
SMALL = os.environ.get("BENCH_SMALL", "") not in ("", "0")
RUN_ID_SIZE = 36


class NotMeasured(Exception):
    """Why a figure is not there. The run has failed."""


class Skipped(NotMeasured):
    """The same, because this machine lacks what it takes. The run is sound all the same."""


def scaled(number, least=1):
    """A tenth of everything with BENCH_SMALL=1."""
    return max(least, number // 10) if SMALL else number


def say(text):
    print(f"  {text}", flush=True)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


# ---- processes ----


def cpu_s(pid):
    """User and system seconds of a process, all threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mib(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def server_pid(server):
    script = ROOT / "ops" / server / {"kafka": "broker", "redis": "server"}[server]
    return int(subprocess.run([script, "pid"], capture_output=True, text=True, check=True).stdout)


class Cpu:
    """CPU seconds of named processes between its making and now."""

    def __init__(self, **pids):
        self.pids = {"kafka": server_pid("kafka"), "redis": server_pid("redis"), **pids}
        self.before = {name: cpu_s(pid) for name, pid in self.pids.items()}

    def spent(self):
        return {name: cpu_s(pid) - self.before[name] for name, pid in self.pids.items()}


# ---- a tool that costs nothing ----


class FastTool:
    """build/tests/fast_tool."""

    def __init__(self, directory, delay_ms=0):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        port_file = directory / f"fast_tool-{uuid.uuid4().hex[:6]}.port"
        self.process = subprocess.Popen([BUILD / "tests/fast_tool", "--delay-ms", str(delay_ms), "--port-file", port_file],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)  # should its part fail
        wait_until("fast_tool listens", lambda: port_file.exists() and port_file.read_text().strip(), 5)
        self.pid = self.process.pid
        self.url = f"http://127.0.0.1:{port_file.read_text().strip()}"

    def stop(self):
        """Returns how many requests it answered."""
        self.process.terminate()
        return int(self.process.communicate(timeout=10)[1].split()[-1])


# ---- a namespace under load ----


def kafka():
    return local_env()["MYELIN_KAFKA"]


QUIET = {"log_level": 3}  # librdkafka's own lines are no news here


def producer_of(linger_ms):
    return confluent_kafka.Producer({"bootstrap.servers": kafka(), "partitioner": "murmur2_random", "linger.ms": linger_ms,
                                     "queue.buffering.max.messages": 1000000, **QUIET})


def admin_client():
    return confluent_kafka.admin.AdminClient({"bootstrap.servers": kafka(), **QUIET})


def make_topics(names, partitions=8, **config):
    admin = admin_client()
    made = admin.create_topics([confluent_kafka.admin.NewTopic(name, partitions, 1, config=config) for name in names])
    for future in made.values():
        future.result(20)


def drop_topics(prefix):
    """Disk and cache of a part that is over do not burden the next one."""
    admin = admin_client()
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]
    for future in admin.delete_topics(names, operation_timeout=20).values() if names else ():
        future.result(30)


class Stand(Space):
    """A Space with a contract, its requests in bulk, and a judge that reads `history` afterwards."""

    def __init__(self, name, contract, partitions=8, in_flight_max=1000, effect=None, flush=False):
        space = f"b{name}{uuid.uuid4().hex[:6]}"
        super().__init__(LOGS / name, name=space, partitions=partitions,
                         settings={"in_flight_max": in_flight_max, "calls_per_endpoint": in_flight_max, "log_level": '"info"',
                                   "pools": '["default", "other"]'})
        self.contract, self.partitions = contract, partitions
        self.create()
        if flush:
            self._flush_each_append()
        text = (HERE / "contracts" / f"{contract}.cfg").read_text().replace("@EFFECT@", effect or '"read"')
        path = self.directory / f"{contract}.cfg"
        path.write_text(text)
        self.publish(path)
        self.hash = next(known["hash"] for known in self.json("contract", "list") if known["contract"] == contract)
        self.template, self.requested = None, 0

    def _flush_each_append(self):
        admin = admin_client()
        entry = confluent_kafka.admin.ConfigEntry("flush.messages", "1",
                                                  incremental_operation=confluent_kafka.admin.AlterConfigOpType.SET)
        resources = [confluent_kafka.admin.ConfigResource("topic", topic, incremental_configs=[entry])
                     for topic in admin.list_topics(timeout=10).topics if topic.startswith(self.name + ".")]
        for future in admin.incremental_alter_configs(resources).values():
            future.result(20)

    def close(self):
        super().close()
        drop_topics(self.name + ".")

    def record(self):
        """The id and the bytes of one more request. One is encoded; a run's id is put into its place."""
        place = "0" * RUN_ID_SIZE
        if self.template is None:
            self.template = encode("RunRequested", {
                "run": place, "request_id": place, "contract": self.contract, "contract_hash": self.hash, "input": '{"n": 7}',
                "by": "bench", "at_ms": int(time.time() * 1000)})
        self.requested += 1
        run = f"01a204c8-b278-7d06-{self.requested % 65536:04x}-{uuid.uuid4().hex[:12]}"
        return run, self.template.replace(place.encode(), run.encode())

    def request(self, count):
        """Asks for `count` runs at once; returns their ids."""
        producer = producer_of(5)
        ids = []
        for _ in range(count):
            run, record = self.record()
            ids.append(run)
            producer.produce(f"{self.name}.inbox", record, run)
            if self.requested % 10000 == 0:
                producer.poll(0)
        assert producer.flush(60) == 0
        return ids

    def metric(self, name, **labels):
        """A number of all living workers, summed."""
        total = 0.0
        for worker in self.workers:
            if not worker.alive():
                continue
            for line in self.page(worker).splitlines():
                head, _, value = line.rpartition(" ")
                if head.split("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                    total += float(value)
        return total

    def page(self, worker):
        if not hasattr(worker, "admin_port"):
            line = next(line for line in worker.log().splitlines() if "event=admin.listens" in line)
            worker.admin_port = int(dict(word.partition("=")[::2] for word in line.split())["port"])
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.admin_port}/metrics", timeout=60) as page:
            return page.read().decode()

    def wait_ended(self, count, seconds):
        """Until this life's workers ended so many runs. Looked at rarely: reading costs the worker time."""
        until, seen = time.monotonic() + seconds, 0
        while (ended := self.metric("myelin_runs_ended_total")) < count:
            if time.monotonic() > until:
                raise NotMeasured(f"{ended:.0f} of {count} runs ended within {seconds} s")
            if ended > seen + count // 4:
                say(f"{ended:.0f} of {count} runs")
                seen = ended
            time.sleep(0.1)
        wait_until("all is committed", self.quiet, 60, every=0.1)

    def quiet(self):
        return all(self.metric(f"myelin_{name}") == 0 for name in ("steps_in_flight", "records_waiting_for_commit", "runs_open"))

    def verdict(self, ids):
        """What was decided becomes visible with its commit: read until it is whole, or for 20 s."""
        until = time.monotonic() + 20
        while True:
            try:
                return Verdict(self, ids)
            except NotMeasured:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def bytes_by_topic(self):
        """Of the log segments on disk, without their indexes."""
        found = collections.Counter()
        data = pathlib.Path(os.environ["MYELIN_LOCAL"]) / "kafka" / "data"
        for path in data.glob(f"{self.name}.*/*.log"):
            found[path.parent.name[len(self.name) + 1:].rpartition("-")[0]] += path.stat().st_size
        return dict(found)


# ---- the judge ----


def read_committed(topic, isolation="read_committed"):
    """Every message of a topic up to its last stable offset of now."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka(), "group.id": "judge", "enable.auto.commit": False,
                                         "isolation.level": isolation, "auto.offset.reset": "earliest",
                                         "enable.partition.eof": True, "fetch.wait.max.ms": 20, **QUIET})
    parts = [confluent_kafka.TopicPartition(topic, p, 0) for p in consumer.list_topics(topic, 10).topics[topic].partitions]
    consumer.assign(parts)
    open_parts = {p.partition for p in parts}
    until = time.monotonic() + 300
    while open_parts and time.monotonic() < until:
        for message in consumer.consume(5000, 0.2):
            if message.error() is None:
                yield message
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                open_parts.discard(message.partition())
    consumer.close()
    assert not open_parts, f"{topic} was not read to its end"


class Verdict:
    """What `history` says of the runs: that each is whole, and how long it took from the first fact to the last."""

    def __init__(self, stand, ids, steps=5):
        wanted, seqs, ended, stepped = set(ids), collections.defaultdict(set), {}, collections.Counter()
        self.kinds, self.first_ms, self.last_ms, self.facts, self.bytes, self.duplicates = collections.Counter(), None, None, 0, 0, 0
        for message in read_committed(f"{stand.name}.history"):
            fact = decode(message.value())[1]
            if fact["run"] not in wanted:
                continue
            kind, body = fact["body"]
            kind = kind.split(".")[-1]
            self.kinds[kind] += 1
            self.facts += 1
            self.bytes += len(message.value())
            if fact["seq"] >= 0:
                self.duplicates += fact["seq"] in seqs[fact["run"]]
                seqs[fact["run"]].add(fact["seq"])
            if kind in ("StepCompleted", "StepFailed"):
                stepped[fact["run"]] += 1
            if kind == "RunEnded":
                ended[fact["run"]] = body["status"]
            at = message.timestamp()[1]
            self.first_ms = at if self.first_ms is None else min(self.first_ms, at)
            self.last_ms = at if self.last_ms is None else max(self.last_ms, at)
        bad = [run for run in wanted if ended.get(run) != "completed" or stepped[run] != steps
               or len(seqs[run]) != max(seqs[run], default=-1) + 1]
        if bad or self.duplicates:
            raise NotMeasured(f"{len(bad)} of {len(wanted)} runs are not whole in history ({self.duplicates} facts twice), as "
                              f"{bad[:1]} with {[(ended.get(r), stepped[r]) for r in bad[:1]]}")
        self.steps = steps * len(wanted)
        self.seconds = (self.last_ms - self.first_ms) / 1000
        self.steps_per_s = self.steps / self.seconds


def program(name, *arguments, seconds=300):
    """Runs a program of tests/bench to its end; its line of JSON."""
    done = subprocess.run([BUILD / "tests/bench" / name, *map(str, arguments)], capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        raise NotMeasured(f"{name}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout) if done.stdout.strip() else {}
