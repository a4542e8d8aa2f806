"""The committer (worker/io/log_commit.c, log_producer.c, log_doubt.c) when requests and answers are lost, late, or errors: each source
record is finished in exactly one committed transaction, as a read_committed reader that is not ours sees it."""

import collections
import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from doubles import ROOT
from harness import local_env, preload, wait_until
from kafka_proxy import (ADD_OFFSETS_TO_TXN, DELAY, END_TXN, FIND_COORDINATOR, HIDE, INIT_PRODUCER_ID, LATE, LOSE, PASS, SWALLOW,
                         SWALLOW_ANSWER, TXN_OFFSET_COMMIT, Proxy, made_up, no_coordinator)
from test_log import namespace  # noqa: F401

GROUP_AUTHORIZATION_FAILED, INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE = 30, 47, 48
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


class Broker:
    """One of the test's own, which may be stopped and killed."""

    def __init__(self, local):
        self.process_env = {**os.environ, "MYELIN_LOCAL": str(local), "MYELIN_KAFKA_PORT": "29092"}
        self.run("start")
        port = (local / "kafka" / "port").read_text().strip()
        self.env = {**local_env(), "MYELIN_KAFKA": f"127.0.0.1:{port}"}

    def run(self, command):
        done = subprocess.run(["ops/kafka/broker", command], cwd=ROOT, env=self.process_env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def signal(self, number):
        os.kill(int(self.run("pid")), number)

    def leads(self, space):
        """A broker that was frozen leads its partitions again once the controller has heard of it."""
        topics = AdminClient({"bootstrap.servers": self.env["MYELIN_KAFKA"]}).list_topics(timeout=10).topics
        mine = [topic for name, topic in topics.items() if name.startswith(space.name + ".")]
        return mine and all(part.leader >= 0 for topic in mine for part in topic.partitions.values())


@contextlib.contextmanager
def own_broker(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("broker"))
    try:
        yield broker
    finally:
        broker.run("wipe")


class Trickle:
    """New runs, a few at a time, until it is told to stop; `count` says how many there are."""

    def __init__(self, space, size=3):
        self.space, self.size, self.count, self.stopping, self.failure = space, size, 0, threading.Event(), None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.stopping.is_set():
                self.space.run("load", self.count, self.size)
                self.count += self.size
                self.stopping.wait(0.05)
        except Exception as failure:
            self.failure = failure

    def stop(self):
        self.stopping.set()
        self.thread.join()
        if self.failure is not None:
            raise self.failure
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


def test_single_file(proxy):
    """▲ Each producer begins when the commit of the other one is confirmed, and not while it is in doubt: that is over when
    init_transactions has returned."""
    space, open_now, overlaps, lost, slow = proxy.space, set(), [], [], []
    ids = [f"{space.name}-a-a", f"{space.name}-a-b"]

    def of(request):
        return next((one for one in ids if request.of(one)), None)

    def rule(request):
        mine = of(request)
        if request.key == TXN_OFFSET_COMMIT and not request.of(f"{space.name}.control"):
            overlaps.extend((mine, other) for other in open_now - {mine})
            open_now.add(mine)
        if request.key == END_TXN and mine in open_now and len(slow) < 4:
            slow.append(mine)
            return DELAY
        if request.key == END_TXN and mine in open_now and not lost:
            lost.append(mine)
            return SWALLOW
        return DELAY if request.key == INIT_PRODUCER_ID else PASS

    def answered(request):
        if request.key in (END_TXN, INIT_PRODUCER_ID):
            open_now.discard(of(request))

    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    proxy.answered, proxy.rule = answered, rule
    load = Trickle(space)
    worker.says("event=doubt.settled was=aborted")
    verify(space, load.stop())
    assert not overlaps


def test_closed_connection_taints(proxy):
    """▲ Taint: a producer that saw its connection end is made anew before it is used again, whatever the time it took."""
    space = proxy.space
    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    space.run("load", 0, 20)
    verify(space, 20)
    ready = {letter: f"event=producer.ready producer={space.name}-a-{letter} " for letter in "ab"}
    before = {letter: worker.log().count(text) for letter, text in ready.items()}
    proxy.cut()
    for letter, text in ready.items():
        wait_until(f"-{letter} was made anew", lambda text=text, letter=letter: worker.log().count(text) > before[letter])
    space.run("load", 20, 20)
    verify(space, 40)


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
    wait_until("it was made anew", lambda: worker.log().count(f"event=producer.ready producer={ours} ") >= 2)
    verify(space, load.stop())
    assert said(worker, "commit.doubt") == []


def test_broker_stalls_while_static_members_commit(namespace, tmp_path_factory):  # noqa: F811
    """A static member whose broker does not answer for longer than a session asks twice to join, and is then refused for the sake of
    itself: it must not take that for another process. Nobody ends, no step is lost or repeated."""
    with own_broker(tmp_path_factory) as broker:
        space = namespace(partitions=6, env=broker.env)
        workers = [space.serve(slot, "pinned").serving() for slot in "abc"]
        load = Trickle(space)
        for seconds in (6.5, 8):
            time.sleep(1)
            broker.signal(signal.SIGSTOP)
            time.sleep(seconds)
            broker.signal(signal.SIGCONT)
            wait_until("the broker leads", lambda: broker.leads(space))
        verify(space, load.stop())
        for worker in workers:
            assert worker.process.poll() is None, worker.log()[-3000:]
            assert worker.end(signal.SIGTERM) == 0, worker.log()[-3000:]


def test_abortable_error_is_aborted_and_done_again(proxy):
    """▲ The same outcomes are produced again, by the same producer: nothing is asked of the loop a second time (it would end with
    "opened twice"), nothing is in doubt."""
    space, refused = proxy.space, []

    def rule(request):
        if request.key == ADD_OFFSETS_TO_TXN and len(refused) < 6:
            refused.append(request)
            return made_up(request, GROUP_AUTHORIZATION_FAILED)
        return PASS

    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    proxy.rule = rule
    load = Trickle(space)
    wait_until("all were refused", lambda: len(refused) == 6)
    verify(space, load.stop())
    log = worker.log()
    assert log.count("event=transaction.aborted error=GROUP_AUTHORIZATION_FAILED") == 6, log[-3000:]
    assert said(worker, "commit.doubt") == []
    assert log.count("event=producer.ready") < 2 + 6, log[-3000:]  # not anew for each; a slow machine may have one made for its time


def test_fatal_error_is_a_doubt(proxy):
    """▲ EndTxn is executed, or is not, and the answer is an error after which the producer cannot be used: commit_seq decides."""
    space, told = proxy.space, []

    def rule(request):
        if request.key == END_TXN and len(told) < 2 and request.of(f"{space.name}-a-"):
            told.append(request)
            return made_up(request, INVALID_TXN_STATE)
        return PASS

    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    proxy.rule = rule
    load = Trickle(space)
    wait_until("both were told", lambda: len(told) == 2)
    worker.says("was=aborted")
    verify(space, load.stop())
    assert worker.log().count("commit.doubt") >= 1
    assert worker.process.poll() is None


def test_calls_that_do_not_come_back(proxy):
    """librdkafka may wait for ever where a transaction's offsets go to, when the broker does not know it for a moment: first in a commit,
    then while the producer is made anew. It is given up each time; nothing is lost or repeated, and the worker can be stopped."""
    space, lost, refused = proxy.space, [], []

    def rule(request):
        if request.key == TXN_OFFSET_COMMIT and not lost and request.of(f"{space.name}-a-a"):
            lost.append(request)
            return LOSE
        if request.key == FIND_COORDINATOR and request.frame[-1] == 0 and lost and len(refused) < 6:  # a group's
            refused.append(request)
            return no_coordinator(request)
        return PASS

    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    proxy.rule = rule
    load = Trickle(space)
    wait_until("both were given up", lambda: len(said(worker, "producer.abandoned")) == 2, 60)
    verify(space, load.stop())
    assert len(refused) == 6
    assert worker.end(signal.SIGTERM) == 0


def test_fenced_at_the_second_producer_only(proxy):
    """▲ Of two live processes with one slot whoever has -a goes on: one that is fenced at -b and has -a is not told to end."""
    space, told = proxy.space, []

    def rule(request):
        if request.key == END_TXN and not told and request.of(f"{space.name}-a-b"):
            told.append(request)
            return made_up(request, INVALID_PRODUCER_EPOCH)
        return PASS

    worker = space.serve("a", MYELIN_KAFKA=proxy.address).serving()
    proxy.rule = rule
    load = Trickle(space)
    worker.says("event=doubt.settled was=aborted")
    verify(space, load.stop())
    assert worker.process.poll() is None


def test_idle_static_member_is_told(namespace):  # noqa: F811
    """The slot of a static member that commits nothing is taken: it hears of it by the group, and ends; the younger one goes on."""
    space = namespace()
    old = space.serve("a", "pinned").serving()
    young = space.serve("a", "pinned").serving()
    assert old.process.wait(20) == 69
    assert "another live process holds slot a" in old.log()
    space.run("load", 0, 20)
    verify(space, 20)
    assert young.end(signal.SIGTERM) == 0


SLEEPY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <unistd.h>

/* The third commit comes when the coordinator has long ended the transaction. */
rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *producer, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_commit_transaction");
    static int times;
    if (++times == 3)
        sleep(8);
    return real(producer, timeout_ms);
}
"""


SLEEPY_ABORT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <unistd.h>

static int commits, records, spoilt;

rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *producer, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_commit_transaction");
    commits++;
    return real(producer, timeout_ms);
}

rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *producer)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *) = dlsym(RTLD_NEXT, "rd_kafka_begin_transaction");
    records = 0;
    return real(producer);
}

/* After some commits, the second record of a transaction of -a is not taken. */
rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *producer, const rd_kafka_vu_t *parts, size_t count)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, const rd_kafka_vu_t *, size_t) = dlsym(RTLD_NEXT, "rd_kafka_produceva");
    if (spoilt == 0 && commits >= 4 && commits % 2 == 0 && ++records == 2) {
        spoilt = 1;
        return rd_kafka_error_new(RD_KAFKA_RESP_ERR__FAIL, "made up by the test");
    }
    return real(producer, parts, count);
}

/* Its abort comes when the coordinator has long ended it. */
rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *producer, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_abort_transaction");
    if (spoilt == 1) {
        spoilt = 2;
        sleep(8);
    }
    return real(producer, timeout_ms);
}
"""


@pytest.mark.parametrize("source", [SLEEPY, SLEEPY_ABORT], ids=["commit", "abort"])
def test_fenced_by_our_own_timeout(namespace, tmp_path, source):  # noqa: F811
    """▲ A transaction that the coordinator ended because it was too old fails with the error of a real fence, when it is committed or when
    it is aborted. It is a doubt, once."""
    space = namespace()
    worker = space.serve("a", "session.timeout.ms=20000", **preload(tmp_path, "sleepy", source)).serving()
    load = Trickle(space)
    worker.says("error=_FENCED")
    worker.says("event=doubt.settled was=aborted")
    verify(space, load.stop())
    assert worker.process.poll() is None


FENCED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>

/* Three times a consumer is told that it was fenced. */
rd_kafka_message_t *rd_kafka_consumer_poll(rd_kafka_t *consumer, int timeout_ms)
{
    rd_kafka_message_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_consumer_poll");
    static int polls;
    if (++polls % 300 == 0 && polls <= 900)
        rd_kafka_test_fatal_error(consumer, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, "made up by the test");
    return real(consumer, timeout_ms);
}
"""


def test_static_member_fenced_by_itself(namespace, tmp_path):  # noqa: F811
    """The slot is still ours: the consumer is made anew, and again."""
    space = namespace()
    worker = space.serve("a", "pinned", **preload(tmp_path, "fenced", FENCED)).serving()
    load = Trickle(space)
    wait_until("it was fenced three times", lambda: worker.log().count("event=consumer.fenced") >= 3)
    verify(space, load.stop())
    assert worker.end(signal.SIGTERM) == 0


FAT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* While the file is there, the broker refuses offsets of partition 0 of steps: metadata of more than 4,096 characters. */
rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(rd_kafka_t *producer, const rd_kafka_topic_partition_list_t *list,
                                                       const rd_kafka_consumer_group_metadata_t *group, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, const rd_kafka_topic_partition_list_t *,
                              const rd_kafka_consumer_group_metadata_t *, int) =
        dlsym(RTLD_NEXT, "rd_kafka_send_offsets_to_transaction");
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *one = &list->elems[i];
        if (one->partition != 0 || strstr(one->topic, ".steps.") == NULL || access(getenv("FAT_WHILE"), F_OK) != 0)
            continue;
        one->metadata = realloc(one->metadata, 5000);
        memset(one->metadata, 'x', 5000);
        one->metadata_size = 5000;
    }
    return real(producer, list, group, timeout_ms);
}
"""


def said(worker, *events):
    """What a worker said of them, but for a commit that ran out of time: a busy machine may let it."""
    return [line for line in worker.log().splitlines()
            if any(f"event={event}" in line for event in events) and "error=_TIMED_OUT" not in line]


def runs_by_partition(space):
    """Of each run in inbox, the partition."""
    topic = f"{space.name}.inbox"
    consumer = Consumer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": f"{space.name}-asker", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found, ended = {}, set()
    while len(ended) < len(partitions):
        message = consumer.poll(10)
        if message.error():
            ended.add(message.partition())
        else:
            found[message.key().decode()] = message.partition()
    consumer.close()
    return found


def test_what_fails_again_and_again_fails_alone(namespace, tmp_path):  # noqa: F811
    """▲ The same abortable error twice: the burst is split. What is refused for longer waits, and nobody waits with it."""
    space, runs, bad = namespace(), 60, tmp_path / "bad"
    bad.touch()
    space.run("load", 0, runs)
    others = {run for run, partition in runs_by_partition(space).items() if partition != 0}
    assert 0 < len(others) < runs
    worker = space.serve("a", **preload(tmp_path, "fat", FAT), FAT_WHILE=str(bad)).serving()
    wait_until("all others have ended", lambda: {fact.split()[0] for fact in facts(space) if fact.endswith(" end")} == others, 60, 0.5)
    assert "error=OFFSET_METADATA_TOO_LARGE" in worker.log()
    bad.unlink()
    verify(space, runs)
    assert said(worker, "record.refused", "commit.doubt") == []


def test_batch_too_large_for_the_broker(namespace):  # noqa: F811
    """Records that are small enough each, in batches that are not: split by runs, and then within one. Nothing is refused."""
    space = namespace()
    limit = ConfigResource(ResourceType.TOPIC, f"{space.name}.dead", incremental_configs=[
        ConfigEntry("max.message.bytes", "20000", incremental_operation=AlterConfigOpType.SET)])
    admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    for done in admin.incremental_alter_configs([limit]).values():
        done.result()
    space.run("load", 0, 20)
    worker = space.serve("a", "twins").serving()
    verify(space, 20)
    log = worker.log()
    assert "event=transaction.aborted error=MSG_SIZE_TOO_LARGE" in log and "record.refused" not in log, log[-3000:]
