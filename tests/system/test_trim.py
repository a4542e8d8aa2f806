"""What is committed of steps and inbox is deleted by the partition's owner, and nothing else ever is: on a real broker."""

import signal
import subprocess
import threading
import time

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from harness import Space, wait_until
from offsets import committed, fetch_offset
from test_boundary import CONTRACT, INPUT, NAME, SCRIPT, fast
from test_log import DOUBT, namespace  # noqa: F401 (a fixture)
from test_offset_map import Steered, produce

TRIM = "trim=300"  # milliseconds
LEAST = 1000  # fewer offsets are not worth a request


class Edges:
    """Where logs begin and end."""

    def __init__(self, space):
        self.space = space
        self.consumer = Consumer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": "edges"})

    def of(self, topic, partition=0):
        return self.consumer.get_watermark_offsets(TopicPartition(f"{self.space.name}.{topic}", partition), 10)

    def begins_near(self, topic, base):
        wait_until(f"{topic} begins near {base}", lambda: base - LEAST < self.of(topic)[0] <= base, 30, every=0.1)


def test_what_is_not_done_stays(namespace):
    """▲ One call hangs in the middle of thousands: its event stays, what is below it goes; killed and started again it is served."""
    space, stuck, count, every_s = namespace(partitions=1), 1500, 4000, 5
    edges = Edges(space)
    produce(space, count)
    first = Steered(space, "a", f"trim={every_s * 1000}", "in_flight=10000").wait_got(count)
    finished_s = time.monotonic()
    first.finish([record for record in first.got() if record[1] != stuck])
    wait_until("the log is trimmed", lambda: edges.of("steps.default")[0] > 0)
    assert time.monotonic() - finished_s >= every_s  # only what was committed by the last time
    wait_until("up to the stuck one", lambda: edges.of("steps.default")[0] >= stuck)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = Steered(space, "a", TRIM).wait_got(1)
    second.wait("what it gets is settled", lambda: "assigned" in second.paths[0].read_text())
    assert second.got() == [(0, stuck)] and second.suspects() == {(0, stuck)}
    assert edges.of("steps.default")[0] == committed(space)[0] == stuck
    second.finish([(0, stuck)])
    end = committed(space)[0]
    assert end > count - 1
    edges.begins_near("steps.default", end)
    produce(space, 10)  # an empty log goes on
    second.wait_got(11)
    second.finish(second.got()[1:])
    second.stop()


class Watch(threading.Thread):
    """Looks for a log that begins above its committed offset, at any moment. The beginning is asked for first: the offset only grows."""

    def __init__(self, space, topics):
        super().__init__(daemon=True)
        self.space, self.topics, self.edges = space, topics, Edges(space)
        self.ending, self.wrong, self.looks, self.failure = threading.Event(), [], 0, None

    def run(self):
        try:
            while not self.ending.is_set():
                for topic in self.topics:
                    self.look(topic)
        except Exception as failure:
            self.failure = failure

    def look(self, topic):
        begin = self.edges.of(topic)[0]
        offset, _, error = fetch_offset(self.space.env["MYELIN_KAFKA"], self.space, f"{self.space.name}.{topic}", 0)
        self.looks += error == 0  # else a transaction is open
        if error == 0 and begin > offset:
            self.wrong.append((topic, begin, offset))

    def end(self):
        self.ending.set()
        self.join(30)


def test_under_load_killed_and_in_doubt(namespace, tmp_path):
    """▲ Killed again and again, with commits in doubt: at no moment does a log begin above its base; nothing else is trimmed."""
    (tmp_path / "doubt.c").write_text(DOUBT)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "doubt.so", tmp_path / "doubt.c", "-ldl"], check=True)
    space, runs = namespace(partitions=1), 1400
    edges, topics = Edges(space), ("steps.default", "inbox")
    watch = Watch(space, topics)
    worker = space.serve("a", TRIM, "pinned").serving()
    watch.start()
    try:
        for first in range(0, runs, 200):
            space.run("load", first, 200)
            wait_until("the log grows", lambda: edges.of("steps.default")[1] > first * 4, 60)
            if first % 400 == 0:
                worker.end(signal.SIGKILL)
                doubt = {"LD_PRELOAD": str(tmp_path / "doubt.so"), "ASAN_OPTIONS": "verify_asan_link_order=0"}
                worker = space.serve("a", TRIM, "pinned", **(doubt if first % 800 == 0 else {}))
        space.verify(runs, seconds=90)
        for topic in topics:
            edges.begins_near(topic, fetch_offset(space.env["MYELIN_KAFKA"], space, f"{space.name}.{topic}", 0)[0])
    finally:
        watch.end()
    assert (watch.wrong, watch.failure) == ([], None) and watch.looks > 100, (watch.wrong, watch.failure, watch.looks)
    assert not any("not_served" in driver.log() for driver in space.drivers)
    for topic in ("waiting", "history", "control", "dead"):
        assert edges.of(topic)[0] == 0
    assert worker.end(signal.SIGTERM) == 0


def policy(space, value):
    resource = ConfigResource(ResourceType.TOPIC, f"{space.name}.steps.default", incremental_configs=[
        ConfigEntry("cleanup.policy", value, incremental_operation=AlterConfigOpType.SET)])
    admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()


def test_what_cannot_be_deleted(namespace):
    """The broker refuses: said once, with what to do; work goes on, and it is tried again."""
    space, count = namespace(partitions=1), 3000
    edges = Edges(space)
    policy(space, "compact")
    produce(space, count)
    worker = Steered(space, "a", TRIM, "in_flight=10000").wait_got(count)
    worker.finish(worker.got())
    worker.wait("it says so", lambda: "event=trim.failed" in worker.log())
    produce(space, 2000)
    worker.wait_got(count + 2000)
    worker.finish(worker.got()[count:])
    assert "cleanup.policy" in worker.log().split("event=trim.failed")[1]
    policy(space, "delete")
    edges.begins_near("steps.default", committed(space)[0])
    assert worker.log().count("event=trim.failed") == 1
    worker.stop()


def test_commands_need_nothing_that_was_deleted(tmp_path):
    """Everything that is committed is gone from steps and inbox: what a person asks is answered as before, and work goes on."""
    with Space(tmp_path, partitions=1, settings={"trim_every": '"1s"'}) as space:
        space.double("tool_double")
        space.double("model_double", script=fast(SCRIPT))
        space.create().publish(CONTRACT)
        worker = space.worker("a")
        for run in ("done", "waits"):
            space.start(NAME, INPUT, run=run)
            space.wait_approval(run)
        space.cli("approve", "done", "approve_final_email")
        space.wait_status("done", "completed")
        commands = (["runs", "--json"], ["approvals", "--json"], *(["show", run, "--since", "1h", "--json"] for run in ("waits", "done")))
        before = [space.cli(*command).stdout for command in commands]
        bases = [TopicPartition(f"{space.name}.{topic}", 0, fetch_offset(space.env["MYELIN_KAFKA"], space, f"{space.name}.{topic}", 0)[0])
                 for topic in ("steps.default", "inbox")]
        assert all(base.offset > 0 for base in bases)
        admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
        for done in admin.delete_records(bases).values():
            done.result()
        assert [space.cli(*command).stdout for command in commands] == before
        assert "RUN waits" in space.cli("show", "waits", "--since", "1h").stdout
        doctor = space.cli("doctor", check=False, seconds=90).stdout
        assert "not served" not in doctor and "are gone" not in doctor, doctor
        worker.kill()
        worker = space.worker("a")
        space.cli("approve", "waits", "approve_final_email")
        space.start(NAME, INPUT, run="new")
        space.wait_status("waits", "completed")
        space.wait_approval("new")
        assert "not_served" not in worker.log()
