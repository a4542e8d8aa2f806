"""The map of what is done above a committed offset, on a real broker: work is finished in any order, committed at once, and the
next owner of a partition is handed exactly what is not done. A test steers the loop: tests/doubles/log_driver/steer.c."""

import random
import signal
import subprocess
import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from doubles import BUILD
from harness import preload, wait_until
from offsets import committed
from test_log import DOUBT, namespace  # noqa: F401 (a fixture)

WINDOW = 16384


class Steered:
    """One `log_driver steer` process, which finishes what it is told to."""

    def __init__(self, space, slot, *options, **env):
        self.paths = [space.directory / f"{slot}-{uuid.uuid4().hex[:6]}.{kind}" for kind in ("out", "log")]
        with open(self.paths[0], "w") as out, open(self.paths[1], "w") as log:
            self.process = subprocess.Popen([BUILD / "tests" / "log_driver", "steer", space.name, slot, *options],
                                            env={**space.env, **env}, stdin=subprocess.PIPE, stdout=out, stderr=log, text=True)
        space.drivers.append(self)

    def log(self):
        return self.paths[1].read_text(errors="replace")

    def lines(self, word):
        whole = self.paths[0].read_text().rpartition("\n")[0]
        return [line.split()[1:] for line in whole.splitlines() if line.startswith(word + " ")]

    def got(self):
        """(partition, offset) in the order in which they came."""
        return [(int(partition), int(offset)) for partition, offset, *_ in self.lines("got")]

    def suspects(self):
        return {(int(partition), int(offset)) for partition, offset, _, how in self.lines("got") if how == "suspect"}

    def committed(self):
        return sum(int(count) for count, in self.lines("committed"))

    def wait(self, what, condition, seconds=40):
        def holds():
            assert self.process.poll() is None, f"ended: {self.log()[-2000:]}"
            return condition()

        try:
            wait_until(what, holds, seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.paths[0].read_text()[-500:]}\n{self.log()[-2000:]}") from None
        return self

    def wait_got(self, count):
        return self.wait(f"{count} records came", lambda: len(self.got()) >= count)

    def say(self, lines):
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def finish(self, records, wait=True):
        """Hands them over, and waits until they are committed."""
        due = self.committed() + len(records)
        self.say(f"done {partition} {offset}" for partition, offset in records)
        if wait:
            self.wait(f"{due} are committed", lambda: self.committed() >= due)

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(30)

    def stop(self):
        self.say(["stop"])
        assert self.process.wait(30) == 0, self.log()[-2000:]


def needs_range(worker):
    """For tests in which a rebalance takes everything and gives some of it back."""
    if "assignor=range" not in worker.log():
        pytest.skip("with cooperative-sticky what stays is never taken")


def facts(space):
    """Each committed fact of `history`, in no order."""
    consumer = Consumer({"bootstrap.servers": space.env["MYELIN_KAFKA"], "group.id": uuid.uuid4().hex, "enable.auto.commit": False,
                         "isolation.level": "read_committed", "enable.partition.eof": True})
    topic, found = f"{space.name}.history", []
    partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    open_ones = set(partitions)
    while open_ones:
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            open_ones.discard(message.partition())
        else:
            found.append(tuple(map(int, message.value().split())))
    consumer.close()
    return found


def produce(space, count, partition=0, pieces=None):
    """`count` records; with `pieces`, in transactions of about that many, of which each third is aborted."""
    settings = {"bootstrap.servers": space.env["MYELIN_KAFKA"], "linger.ms": 5, "queue.buffering.max.messages": 1000000}
    producer = Producer({**settings, "transactional.id": uuid.uuid4().hex} if pieces else settings)
    if pieces:
        producer.init_transactions()
    kept, turn = 0, 0
    while kept < count:
        size = min(pieces or count, count - kept)
        if pieces:
            producer.begin_transaction()
        for i in range(size):
            producer.produce(f"{space.name}.steps.default", partition=partition, key=f"r{kept + i}", value="0")
            if i % 1000 == 0:
                producer.poll(0)
        turn += 1
        if pieces and turn % 3 == 0:
            producer.flush()
            producer.abort_transaction()
            continue
        producer.commit_transaction() if pieces else producer.flush()
        kept += size


def test_any_order_then_killed(namespace):  # noqa: F811
    """▲ Records finished in random order among aborted ones and control records: the metadata says what is done, another reader
    understands it, and after kill -9, again and again, the next owner is handed exactly the rest, all of it suspect."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice, space = random.Random(seed), namespace(partitions=1)
    produce(space, 400, pieces=9)
    worker = Steered(space, "a", "pinned").wait_got(400)
    todo, everything = worker.got(), worker.got()
    assert todo == sorted(todo) and todo[-1][1] > 450  # some offsets never came
    seq = 0
    for _ in range(4):
        first, rest = todo[0], todo[1:]
        dice.shuffle(rest)
        some = rest[:len(rest) // 2]
        for at in range(0, len(some), 40):
            worker.finish(some[at:at + 40])
        todo = [one for one in todo if one not in some]
        base, new_seq, done = committed(space)
        assert base == first[1] and new_seq > seq, (base, new_seq)
        open_ones, seq = {offset for _, offset in todo}, new_seq
        assert done == {o for o in range(base, everything[-1][1] + 1) if o not in open_ones}
        worker.end(signal.SIGKILL)
        worker = Steered(space, "a", "pinned").wait_got(len(todo))
        assert worker.suspects() == set(todo)
    worker.finish(todo[1:])
    worker.finish(todo[:1])
    base, _, done = committed(space)
    assert base == everything[-1][1] + 1 and done == set()
    assert worker.got() == todo  # and nothing came after
    worker.stop()
    assert sorted(facts(space)) == everything


def test_three_thousand_above_a_stuck_one(namespace):  # noqa: F811
    """Of 5,000 in flight the first is stuck and 3,000 are done: killed, its successor repeats exactly the other 2,000."""
    space = namespace(partitions=1)
    produce(space, 5000)
    worker = Steered(space, "a", "in_flight=5000").wait_got(5000)
    done = random.sample(worker.got()[1:], 3000)
    worker.finish(done)
    assert committed(space)[0] == 0
    worker.end(signal.SIGKILL)
    rest = sorted({(0, offset) for offset in range(5000)} - set(done))
    heir = Steered(space, "b", "in_flight=5000").wait_got(2000)
    assert heir.got() == rest
    heir.finish(random.sample(rest, len(rest)))
    assert committed(space)[::2] == (5000, set())
    heir.stop()
    assert sorted(facts(space)) == [(0, offset) for offset in range(5000)]


def test_others_are_committed_around_a_refused_one(namespace):  # noqa: F811
    """No broker takes what one record made: its neighbours do not wait for it, and it can be finished with something else."""
    space = namespace(partitions=1)
    produce(space, 20)
    worker = Steered(space, "a").wait_got(20)
    worker.say(["fat 0 3 2000000"])
    worker.wait("the loop hears of it", lambda: worker.lines("refused") == [["0", "3"]])
    worker.finish([(0, offset) for offset in range(20) if offset != 3])
    assert committed(space)[::2] == (3, set(range(4, 20)))
    worker.finish([(0, 3)])
    assert committed(space)[::2] == (20, set())
    worker.stop()
    assert sorted(facts(space)) == [(0, offset) for offset in range(20)]


def test_doubt_while_the_first_is_stuck(namespace, tmp_path):  # noqa: F811
    """▲ Each commit leaves the committed offset where it is, and none is confirmed, whether it was made or not: commit_seq tells."""
    space = namespace(partitions=1)
    produce(space, 40)
    worker = Steered(space, "a", **preload(tmp_path, "doubt", DOUBT)).wait_got(40)
    done = random.sample(worker.got()[1:], 30)
    for at in range(0, 30, 10):
        worker.finish(done[at:at + 10])
    assert committed(space)[0] == 0 and committed(space)[2] == {offset for _, offset in done}
    assert "was=committed" in worker.log() and "was=aborted" in worker.log(), worker.log()[-2000:]
    worker.end(signal.SIGKILL)
    heir = Steered(space, "b").wait_got(10)
    heir.finish(heir.got())
    heir.stop()
    assert sorted(facts(space)) == [(0, offset) for offset in range(40)]


def test_handed_on_in_a_rebalance(namespace):  # noqa: F811
    """Revoked with work half done: the map goes to whoever gets the partition, also back again."""
    space = namespace(partitions=2)
    for partition in range(2):
        produce(space, 60, partition)
    old = Steered(space, "a").wait_got(120)
    needs_range(old)
    done = [one for one in old.got() if one[1] % 2 == 1]
    old.finish(done)
    young = Steered(space, "b")
    old.wait("both share", lambda: len(young.got()) >= 30 and len(old.got()) >= 150)
    again = old.got()[120:] + young.got()
    assert sorted(again) == [(p, o) for p in range(2) for o in range(0, 60, 2)]
    young.finish([one for one in young.got() if one[1] > 0])
    young.stop()
    old.wait("it has all again", lambda: len({one for one in old.got()[150:]}) >= 31)
    last = old.got()[150:]
    old.finish(last)
    old.stop()
    assert len(last) == 31 and sorted(facts(space)) == [(p, o) for p in range(2) for o in range(60)]


def test_kept_when_nobody_committed(namespace):  # noqa: F811
    """▲ A partition that comes back is told to be kept when its last commit is our own, however much we committed; a partition of
    which somebody else did one record is new."""
    space = namespace(partitions=2)
    for partition in range(2):
        produce(space, 20, partition)
    old = Steered(space, "a").wait_got(40)
    needs_range(old)
    assert [how for _, _, how in old.lines("assigned")] == ["new", "new"]
    old.finish(old.got()[:5] + old.got()[-5:])
    young = Steered(space, "b").wait_got(15)
    gone = young.got()[0][0]
    old.wait("it has one again", lambda: len(old.lines("assigned")) == 3)
    young.finish(young.got()[:1])
    young.stop()
    old.wait("it has both again", lambda: len(old.lines("assigned")) == 5)
    assert old.lines("assigned")[2][::2] == [str(1 - gone), "kept"]
    assert {int(partition): how for partition, _, how in old.lines("assigned")[3:]} == {gone: "new", 1 - gone: "kept"}
    old.stop()


def finish_all_but(worker, stuck, count):
    """Everything that comes, until `count` others are committed."""
    given = set(stuck)

    def on():
        todo = [one for one in worker.got() if one not in given]
        given.update(todo)
        worker.say(f"done {partition} {offset}" for partition, offset in todo)
        return worker.committed() >= count

    worker.wait(f"{count} others are committed", on)


def test_a_stuck_one_is_carried(namespace):  # noqa: F811
    """▲ A window and a half goes by behind two calls that do not end: their events are appended again, and nobody gets them twice.
    Finished or killed then, each has one fact."""
    for kill in (False, True):
        space, count, stuck = namespace(partitions=1), WINDOW * 3 // 2, [(0, 0), (0, 7)]
        produce(space, count)
        worker = Steered(space, "a", "in_flight=6000").wait_got(5000)
        finish_all_but(worker, stuck, count - 2)
        base, _, done = committed(space)
        assert base == count and done == set() and "event=steps.carried" in worker.log(), (base, worker.log()[-2000:])
        assert worker.got() == [(0, offset) for offset in range(count)]
        if kill:
            worker.end(signal.SIGKILL)
            worker = Steered(space, "b").wait_got(2)
            stuck = worker.got()
            assert [key for _, _, key, _ in worker.lines("got")] == ["r0", "r7"] and worker.suspects() == set(stuck)
        worker.finish(stuck)
        assert committed(space)[0] >= count + 2
        worker.stop()
        assert sorted(facts(space)) == sorted([(0, offset) for offset in range(count) if offset not in (0, 7)] + stuck)
