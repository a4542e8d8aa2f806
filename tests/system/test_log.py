"""The log (worker/io/log*.c) alone, under tests/doubles/log_driver.c: whatever happens to workers and broker, each record, each
timer and each row of a keeper's table is worked on in exactly one committed transaction."""

import os
import pathlib
import random
import signal
import subprocess
import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from doubles import BUILD, ROOT
from harness import CRASH_BUILD, local_env, preload, wait_until

POINTS = ["after_poll", "after_begin", "after_produce", "after_offsets", "before_commit", "after_commit", "while_rebuilding"]


class Driver:
    """One `log_driver serve` process."""

    def __init__(self, namespace, slot, *options, hops=4, delay_ms=10, build=BUILD, **env):
        self.log_path = namespace.directory / f"{slot}-{uuid.uuid4().hex[:6]}.log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [build / "tests" / "log_driver", "serve", namespace.name, slot, str(hops), str(delay_ms), *options],
                env={**namespace.env, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def says(self, text, seconds=30):
        def said():
            assert self.process.poll() is None or text in self.log(), f"ended: {self.log()[-2000:]}"
            return text in self.log()

        wait_until(f"the log says {text}", said, seconds)
        return self

    def serving(self):
        return self.says("what=_ASSIGN_PARTITIONS")

    def end(self, number, seconds=30):
        self.process.send_signal(number)
        return self.process.wait(seconds)


class Namespace:
    def __init__(self, directory, partitions=4, env=None):
        self.name = f"l{uuid.uuid4().hex[:10]}"
        self.env = env or local_env()
        self.directory = pathlib.Path(directory) / self.name
        self.directory.mkdir(parents=True)
        self.drivers = []
        self.run("topics", partitions)

    def run(self, command, *words, check=True, seconds=90):
        done = subprocess.run(
            [BUILD / "tests" / "log_driver", command, self.name, *map(str, words)], env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout

    def serve(self, *words, **options):
        driver = Driver(self, *words, **options)
        self.drivers.append(driver)
        return driver

    def verify(self, runs, hops=4, seconds=40):
        """All runs end, and each fact is there exactly once."""
        try:
            self.run("watch", runs, seconds)
            time.sleep(0.1)
            self.run("check", runs, hops)
        except AssertionError as failure:
            tails = "\n".join(f"--- {d.log_path.name}\n{d.log()[-1500:]}" for d in self.drivers)
            raise AssertionError(f"{failure}\n{tails}") from None

    def close(self):
        for driver in self.drivers:
            if driver.process.poll() is None:
                driver.end(signal.SIGKILL)


@pytest.fixture
def namespace(tmp_path):
    made = []

    def make(**options):
        made.append(Namespace(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_ring_under_thread_sanitizer(tmp_path):
    """The two rings are all that the two threads share; Debian's librdkafka cannot be run under ThreadSanitizer, they can."""
    program = tmp_path / "ring"
    subprocess.run(["gcc", "-std=c11", "-D_GNU_SOURCE", "-I.", "-g", "-O1", "-fsanitize=thread", "tests/unit/test_ring.c",
                    "worker/io/log_ring.c", "-o", program, "-lcmocka", "-lpthread"], cwd=ROOT, check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space layout is not for this ThreadSanitizer")
    assert done.returncode == 0 and "WARNING: ThreadSanitizer" not in done.stderr, done.stderr[-3000:]


def test_every_crash_point(namespace):
    """Killed at each point, the same slot started again: nothing lost, nothing twice. Side by side."""
    runs, spaces = 20, [namespace() for _ in POINTS]
    for space, point in zip(spaces, POINTS):
        if point == "while_rebuilding":  # there must be something to rebuild
            first = space.serve("a", "pinned").serving()
            space.run("load", 0, runs)
            time.sleep(0.3)
            first.end(signal.SIGKILL)
        else:
            space.run("load", 0, runs)
        space.serve("a", "pinned", build=CRASH_BUILD, MYELIN_CRASH_AT=f"{point}:{2 if point == 'while_rebuilding' else 3}")
    for space, point in zip(spaces, POINTS):
        assert space.drivers[-1].process.wait(30) == -signal.SIGKILL, (point, space.drivers[-1].log()[-2000:])
        space.serve("a", "pinned")
    for space in spaces:
        space.verify(runs)


def test_two_workers_killed_and_stopped_at_random(namespace):
    """One static member, one dynamic; killed or told to stop again and again under load."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice, runs, space = random.Random(seed), 250, namespace()
    kinds = {"a": ("pinned",), "b": ()}
    drivers = {slot: space.serve(slot, *kind) for slot, kind in kinds.items()}
    loaded, until = 0, time.monotonic() + 7
    while time.monotonic() < until:
        space.run("load", loaded, 10)
        loaded += 10
        time.sleep(dice.uniform(0.1, 0.5))
        slot = dice.choice(list(drivers))
        if dice.random() < 0.5:
            number = dice.choice([signal.SIGKILL, signal.SIGTERM])
            code = drivers[slot].end(number)
            assert code == (0 if number == signal.SIGTERM else -signal.SIGKILL), drivers[slot].log()[-2000:]
            drivers[slot] = space.serve(slot, *kinds[slot])
    space.run("load", loaded, runs - loaded)
    space.verify(runs)
    for driver in drivers.values():
        assert driver.end(signal.SIGTERM) == 0


def test_broker_frozen_then_killed(namespace, tmp_path_factory):
    """Six seconds without an answer in the middle of commits, then kill -9 and a restart: workers stay."""
    local = tmp_path_factory.mktemp("broker")
    env = {**os.environ, "MYELIN_LOCAL": str(local), "MYELIN_KAFKA_PORT": "29092"}

    def broker(command):
        done = subprocess.run(["ops/kafka/broker", command], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        broker("start")
        port = (local / "kafka" / "port").read_text().strip()
        space, runs = namespace(env={**local_env(), "MYELIN_KAFKA": f"127.0.0.1:{port}"}), 300
        workers = [space.serve(slot).serving() for slot in "ab"]
        space.run("load", 0, 100)
        time.sleep(0.4)
        pid = int(broker("pid"))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(6)
        os.kill(pid, signal.SIGCONT)
        space.run("load", 100, 100)
        time.sleep(1)
        broker("kill")
        time.sleep(1)
        broker("start")
        space.run("load", 200, 100)
        space.verify(runs)
        assert all(worker.process.poll() is None for worker in workers), workers[0].log()[-3000:] + workers[1].log()[-3000:]
        assert [worker.end(signal.SIGTERM) for worker in workers] == [0, 0]
    finally:
        broker("wipe")


DOUBT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <string.h>

/* Of two transactions that commit an offset again (a timer, or one that was in doubt), and of four others, one is made and not
 * confirmed, and one is neither. */
static struct { char topic[200]; int32_t partition; int64_t offset; } sent[64];
static int again;

rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(rd_kafka_t *producer, const rd_kafka_topic_partition_list_t *list,
                                                       const rd_kafka_consumer_group_metadata_t *group, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, const rd_kafka_topic_partition_list_t *,
                              const rd_kafka_consumer_group_metadata_t *, int) =
        dlsym(RTLD_NEXT, "rd_kafka_send_offsets_to_transaction");
    again = 0;
    for (int i = 0; i < list->cnt; i++) {
        int at = 0;
        while (sent[at].topic[0] != 0 &&
               (strcmp(sent[at].topic, list->elems[i].topic) != 0 || sent[at].partition != list->elems[i].partition))
            at++;
        again |= sent[at].topic[0] != 0 && sent[at].offset == list->elems[i].offset;
        strcpy(sent[at].topic, list->elems[i].topic);
        sent[at].partition = list->elems[i].partition;
        sent[at].offset = list->elems[i].offset;
    }
    return real(producer, list, group, timeout_ms);
}

rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *producer, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_commit_transaction");
    static int first_times, second_times;
    int kind = again ? ++second_times % 2 : ++first_times % 4;
    rd_kafka_error_t *error = kind == 1 ? NULL : real(producer, timeout_ms);
    if (error == NULL && (again || kind == 1 || kind == 2))
        error = rd_kafka_error_new(RD_KAFKA_RESP_ERR__TIMED_OUT, "made up by the test");
    return error;
}
"""


def test_doubtful_commits(namespace, tmp_path):
    """▲ The committed metadata's commit_seq decides what became of a commit that was not confirmed; timers included, which
    commit the same offset again."""
    space, runs = namespace(), 90
    worker = space.serve("a", **preload(tmp_path, "doubt", DOUBT)).serving()
    for first in range(12):  # one at a time: then a timer is alone in its transaction
        space.run("load", first, 1)
        time.sleep(0.4)
    for first in range(12, runs, 6):
        space.run("load", first, 6)
        time.sleep(0.05)
    space.verify(runs)
    assert worker.log().count("was=committed") >= 3 and worker.log().count("was=aborted") >= 3, worker.log()[-3000:]
    assert worker.end(signal.SIGTERM) == 0


def test_the_end_of_waiting(namespace):
    """▲ A table is read to where the log ended when the committed offset was told, also when a transaction is open before that: its rows
    count if it is committed."""
    space = namespace(partitions=2)
    foreign = Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "transactional.id": f"{space.name}-foreign",
                        "transaction.timeout.ms": 60000})
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(f"{space.name}.waiting", "open", "r7", partition=0)
    assert foreign.flush(30) == 0
    worker = space.serve("a").says("rebuilt 1 of 0 rows")
    assert "rebuilt 0" not in worker.log()
    foreign.commit_transaction(30)
    worker.says("rebuilt 0 of 1 rows")


def test_slot_taken_by_another_process(namespace):
    """Two live processes with one slot: the older one says so and ends; the younger one goes on."""
    for options in ((), ("pinned",)):
        space = namespace()
        old = space.serve("a", *options).serving()
        space.run("load", 0, 20)
        young = space.serve("a", *options)
        for first in range(20, 60, 5):
            space.run("load", first, 5)
            time.sleep(0.2)
        assert old.process.wait(20) == 69
        assert "another live process holds slot a" in old.log()
        space.verify(60)
        assert young.end(signal.SIGTERM) == 0


def test_records_that_no_broker_takes(namespace):
    """Too large for librdkafka, and too large for the broker: the loop hears of it, all others are committed."""
    for limit in ("client", "broker"):
        space = namespace()
        options = ["message.max.bytes=20000"] if limit == "client" else []
        if limit == "broker":
            resource = ConfigResource(ResourceType.TOPIC, f"{space.name}.history", incremental_configs=[
                ConfigEntry("max.message.bytes", "20000", incremental_operation=AlterConfigOpType.SET)])
            admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
            for done in admin.incremental_alter_configs([resource]).values():
                done.result()
        space.run("load", 0, 40)
        worker = space.serve("a", "fat", *options)
        space.verify(40)
        assert worker.log().count("event=record.refused") == 4, worker.log()[-3000:]


def test_stops_although_a_topic_is_gone(namespace):
    """librdkafka before 2.6.1 cannot be torn down when something of a deleted topic is left in a partition's queue."""
    space = namespace()
    worker = space.serve("a", "topic.metadata.refresh.interval.ms=500").serving()
    space.run("load", 0, 10)
    admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    for done in admin.delete_topics([f"{space.name}.steps.default"]).values():
        done.result()
    worker.says("UNKNOWN_TOPIC_OR_PART")
    assert worker.end(signal.SIGTERM, 15) == 0


def commit(space, topic, partition, offset, metadata):
    """What somebody else may have left in the group."""
    consumer = Consumer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": space.name, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, partition, offset, metadata)], asynchronous=False)
    consumer.close()


def adopt(space, *words):
    done = subprocess.run([BUILD / "myelin", "doctor", "--adopt", *words], env={**space.env, "MYELIN_NAMESPACE": space.name},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_partitions_that_must_not_be_served(namespace):
    """▲ No committed offset, metadata of a newer version, with a map that is none, or of somebody else, a log that begins above its base or
    ends below it: not served, loudly; the others are. `myelin doctor --adopt` says what that costs, and repairs them."""
    space = namespace(partitions=8)
    admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    steps = f"{space.name}.steps.default"
    for partition, metadata in enumerate(["2 7 AAAA", "1 7 AAAA", "hello", "1", "1 07"]):
        commit(space, steps, partition, 0, metadata)
    producer = Producer({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    for _ in range(3):
        producer.produce(steps, partition=5, key="r0", value="0")
    producer.flush()
    for done in admin.delete_records([TopicPartition(steps, 5, 2)]).values():
        done.result()
    commit(space, steps, 6, 9, "1 3")
    worker = space.serve("a").serving()
    reasons = ["version 2", "map of its committed offset is not one", "is not Myelin's", "no commit_seq", "no commit_seq",
               "0 to 1 are gone", "behind its end 0"]
    for partition, reason in enumerate(reasons):
        worker.says(f"event=partition.not_served topic={steps} partition={partition} ")
        line = next(l for l in worker.log().splitlines() if f"not_served topic={steps} partition={partition} " in l)
        assert reason in line, line
    assert f"not_served topic={steps} partition=7 " not in worker.log()
    assert "not_served topic=" + f"{space.name}.inbox" not in worker.log()
    code, said = adopt(space, "--yes")
    assert code == 1 and "has members" in said, said
    worker.end(signal.SIGTERM)
    code, said = adopt(space)
    assert code == 1 and "nothing was changed" in said and said.count("steps.default ") == 7, said
    assert "steps.default 5: served from 2 on; SKIPPED for ever: 0 to 1" in said and "version 2" in said, said
    assert adopt(space, "steps.default", "7", "--yes")[0] == 66  # it is served
    code, said = adopt(space, "steps.default", "5", "--yes")
    assert code == 0 and said.count("adopted") == 1, said
    code, said = adopt(space, "--yes")
    assert code == 0 and said.count("adopted") == 6, said
    assert adopt(space)[0] == 66
    worker = space.serve("a")
    for partition in range(8):
        worker.says(f"assigned steps {partition} at {2 if partition == 5 else 0}\n")
    assert "not_served" not in worker.log()
