"""Three brokers, everything kept three times, two of them needed for a commit: one is killed in the middle of a load and started again."""

import os
import subprocess
import threading

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from doubles import ROOT
from harness import Space, wait_until
from history import History, request
from judge import judge
from test_faults import INPUT, LOOK, SEND, contract

NODES = 3
INTERNAL = ("__consumer_offsets", "__transaction_state")


class Cluster:
    """Three brokers of the test's own."""

    def __init__(self, local):
        self.env = {**os.environ, "MYELIN_LOCAL": str(local), "MYELIN_KAFKA_PORT": "27510", "MYELIN_KAFKA_BROKERS": str(NODES),
                    "MYELIN_DEADLINE": "150"}
        self.run("start")
        self.address = (local / "env").read_text().split("MYELIN_KAFKA=")[1].split()[0]
        self.admin = AdminClient({"bootstrap.servers": self.address})

    def run(self, command, *node):
        done = subprocess.run(["ops/kafka/broker", command, *map(str, node)], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr

    def partitions(self):
        return [part for topic in self.admin.list_topics(timeout=20).topics.values() for part in topic.partitions.values()]

    def whole(self):
        """Every copy of everything is up to date."""
        return all(len(part.isrs) == NODES for part in self.partitions())

    def coordinator(self, group):
        """The broker that leads the partition of its offsets, which the group's name decides (Java's String.hashCode)."""
        number = 0
        for letter in group.encode():
            number = (31 * number + letter) & 0xFFFFFFFF
        offsets = self.admin.list_topics(timeout=20).topics["__consumer_offsets"].partitions
        return offsets[(number & 0x7FFFFFFF) % len(offsets)].leader

    def needed(self, topic):
        """How many copies of a topic must have what is acknowledged."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return self.admin.describe_configs([resource])[resource].result(20)["min.insync.replicas"].value


@pytest.fixture
def cluster(tmp_path):
    cluster = None
    try:
        cluster = Cluster(tmp_path / "local")
        yield cluster
    finally:
        subprocess.run(["ops/kafka/broker", "wipe"], cwd=ROOT, env={**os.environ, "MYELIN_LOCAL": str(tmp_path / "local")}, check=False,
                       capture_output=True, timeout=60)


class Load:
    """New runs, a few at a time, until it is told to stop."""

    def __init__(self, space, name):
        self.space, self.name, self.runs, self.stopping, self.failure = space, name, [], threading.Event(), None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stopping.wait(0.3):
                self.runs += request(self.space, self.name, {f"r{len(self.runs) + i:04d}": INPUT for i in range(4)})
        except Exception as failure:
            self.failure = failure

    def stop(self):
        self.stopping.set()
        self.thread.join()
        if self.failure is not None:
            raise self.failure
        return self.runs


def test_one_of_three_brokers_is_killed_under_load(cluster, tmp_path):
    """The one that knows where the group is, and leads a third of everything: workers stay, others lead within seconds, no call is made
    again; nor when it comes back."""
    with Space(tmp_path / "space", partitions=6, settings={"backoff": '"50ms"'}) as space:
        space.env["MYELIN_KAFKA"] = cluster.address
        tools = space.double("tool_double", script=[{"match": {"tool": "crm"}, "answer": {"delay_ms": 150}}])
        space.create()
        name = contract(space, "both", LOOK % "send" + SEND)
        workers = [space.worker(slot) for slot in ("a", "b")]
        load, history = Load(space, name), History(space)
        wait_until("the load goes", lambda: ended(history, load) > 8)
        for topic in (f"{space.name}.history", f"{space.name}.steps.default", *INTERNAL):
            assert cluster.needed(topic) == "2", topic
        wait_until("all copies are up to date", cluster.whole, 60, every=0.2)
        node = cluster.coordinator(space.name)
        cluster.run("kill", node)
        before = ended(history, load)
        wait_until("the load goes on without it", lambda: ended(history, load) > before + 30, 60, every=0.5)
        cluster.run("start", node)
        wait_until("all copies are up to date", cluster.whole, 60, every=0.2)
        history.close()
        judge(space, load.stop(), tools)
        assert all(worker.alive() for worker in workers)
        assert [worker.terminate() for worker in workers] == [0, 0]


def ended(history, load):
    assert load.failure is None, load.failure
    return sum(fact["kind"] == "RunEnded" for fact in history.drain(60).facts())
