"""The committer (worker/io/log_commit.c, log_producer.c, log_doubt.c) when requests and answers are lost, late, or errors: each source
record is finished in exactly one committed transaction, as a read_committed reader that is not ours sees it."""

import collections
import itertools
import signal
import subprocess
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from harness import wait_until
from kafka_proxy import (ADD_OFFSETS_TO_TXN, DELAY, END_TXN, HIDE, LATE, LOSE, PASS, SWALLOW, SWALLOW_ANSWER, TXN_OFFSET_COMMIT,
                         Proxy, made_up)
from test_log import namespace  # noqa: F401

GROUP_AUTHORIZATION_FAILED, INVALID_PRODUCER_EPOCH = 30, 47
HOPS = 4


def facts(space):
    """What a read_committed client finds in `history`."""
    topic, found = f"{space.name}.history", collections.Counter()
    consumer = Consumer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": f"{space.name}-reader", "enable.auto.commit": False,
                         "isolation.level": "read_committed", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    ended = set()
    while len(ended) < len(partitions):
        message = consumer.poll(10)
        assert message is not None, "the reader hears nothing"
        if message.error():
            ended.add(message.partition())
        else:
            found[message.value().decode()[:40]] += 1
    consumer.close()
    return found


def verify(space, runs, seconds=90):
    space.verify(runs, HOPS, seconds)
    found = facts(space)
    wanted = {f"r{run} {what}" for run in range(runs) for what in ["open", "tick", "end", *map(str, range(HOPS))]}
    assert set(found) == wanted and set(found.values()) == {1}, (wanted ^ set(found), found.most_common(5))


@pytest.fixture
def proxy(namespace):  # noqa: F811
    made = namespace()
    with Proxy(made.env["MYELIN_KAFKA"]) as one:
        one.space = made
        yield one


class Trickle:
    """New runs, a few at a time, until it is told to stop; `count` says how many there are."""

    def __init__(self, space, size=3):
        self.space, self.size, self.count, self.stopping = space, size, 0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.is_set():
            self.space.run("load", self.count, self.size)
            self.count += self.size
            self.stopping.wait(0.05)

    def stop(self):
        self.stopping.set()
        self.thread.join()
        return self.count


def test_requests_and_answers_lost_and_late(proxy):
    """EndTxn and TxnOffsetCommit are lost, swallowed, executed without an answer, answered late, and sent again much later."""
    space, turn = proxy.space, itertools.count()
    fates = itertools.cycle([(key, fate) for fate in (HIDE, LOSE, SWALLOW_ANSWER, LATE, SWALLOW, DELAY)
                             for key in (END_TXN, TXN_OFFSET_COMMIT)])
    todo, seen = [next(fates) for _ in range(24)], []

    def rule(request):
        if not todo or request.key != todo[0][0] or next(turn) % 9 != 8:
            return PASS
        seen.append(todo.pop(0))
        return seen[-1][1]

    workers = [space.serve("a", "pinned", MYELIN_KAFKA=proxy.address).serving(), space.serve("b", MYELIN_KAFKA=proxy.address).serving()]
    proxy.rule = rule
    load = Trickle(space)

    def all_had():
        if proxy.kept and next(turn) % 5 == 0:
            proxy.release()
        return not todo

    wait_until("each fate was met", all_had, 240)
    proxy.release()
    verify(space, load.stop())
    log = workers[0].log() + workers[1].log()
    for word in ("event=producer.tainted", "was=committed", "was=aborted"):
        assert word in log, word
    assert [worker.end(signal.SIGTERM) for worker in workers] == [0, 0]


@pytest.mark.parametrize("key", [END_TXN, TXN_OFFSET_COMMIT])
def test_late_copy_of_a_request(proxy, key):
    """▲ Taint: librdkafka sends again what it got no answer to, and reports success. The first copy arrives in the next transaction of
    the same producer: that must be another producer by then, of another epoch."""
    space, state = proxy.space, {"at": "armed"}
    ours = f"{space.name}-a-a"

    def rule(request):
        if not request.of(ours):
            return PASS
        if state["at"] == "armed" and request.key == key:
            state["at"] = "kept"
            return LATE
        if state["at"] == "kept" and request.key == END_TXN:
            state["at"] = "next"
        elif state["at"] == "next" and request.key == TXN_OFFSET_COMMIT and key == END_TXN:
            proxy.release()
            state["at"] = "hit"
        return PASS

    def answered(request):
        if request.of(ours) and request.key == TXN_OFFSET_COMMIT and key == TXN_OFFSET_COMMIT and state["at"] == "next":
            proxy.release()
            state["at"] = "hit"
        elif request.of(ours) and request.key == END_TXN and state["at"] == "hit":
            state["at"] = "over"
            worker.process.kill()  # what the broker has now is what the next owner finds

    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    proxy.answered, proxy.rule = answered, rule
    load = Trickle(space)
    wait_until("the late copy arrived in another transaction", lambda: state["at"] == "over", 60)
    worker.process.wait(10)
    space.serve("a").serving()
    verify(space, load.stop())
    assert "event=producer.tainted" in worker.log()


def test_slow_transaction_taints(proxy):
    """▲ Taint: a transaction that took over 400 ms may have been repeated silently; its producer is made anew, whatever it said. The other
    one goes on meanwhile."""
    space, slow = proxy.space, []
    ours = f"{space.name}-a-b"

    def rule(request):
        if request.key == END_TXN and request.of(ours) and not slow:
            slow.append(request)
            return DELAY
        return PASS

    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    assert worker.log().count(f"event=producer.ready producer={ours} ") == 1
    proxy.rule = rule
    load = Trickle(space)
    wait_until("it was made anew", lambda: worker.log().count(f"event=producer.ready producer={ours} ") == 2)
    verify(space, load.stop())
    assert worker.log().count("commit.doubt") == 0
