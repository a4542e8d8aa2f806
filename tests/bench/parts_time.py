"""How long things take: one run alone, bursts, what waits in memory, and a takeover."""

import collections
import signal
import threading
import time

import confluent_kafka

from history import decode
from stand import (LOGS, QUIET, FastTool, NotMeasured, Stand, kafka, percentile, producer_of, program, resident_mib, say, scaled,
                   wait_until)

LOW_RUNS = scaled(500, 30)
CALL_MS, CALLS = 200, 5
WAITING = scaled(100000)
TAKEOVERS = scaled(20, 3)


class Tail:
    """A read-committed client of `history`, from now on: what becomes visible, when, in which partition."""

    def __init__(self, stand):
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": kafka(), "group.id": "tail", "enable.auto.commit": False, "isolation.level": "read_committed",
            "auto.offset.reset": "latest", "queued.min.messages": 100000, **QUIET})
        topic = f"{stand.name}.history"
        parts = self.consumer.list_topics(topic, 10).topics[topic].partitions
        self.consumer.assign([confluent_kafka.TopicPartition(topic, p, self.end(topic, p)) for p in parts])
        self.consumer.poll(0.3)

    def end(self, topic, partition):
        def asked():
            try:
                return self.consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), 10)
            except confluent_kafka.KafkaException:  # a topic made a moment ago, on a broker that has much to do
                return None

        return wait_until(f"{topic}[{partition}] says where it ends", asked, 30)[1]

    def next(self, seconds):
        message = self.consumer.poll(seconds)
        return message if message is not None and message.error() is None else None

    def close(self):
        self.consumer.close()


# ---- one run at a time ----


def ended(message):
    return decode(message.value())[1]["body"][0] == "myelin.RunEnded"


def alone(stand):
    """Milliseconds of each of many runs, one after another: from the request handed to the client to the end read."""
    took = []
    stand.worker("a")
    stand.request(5)
    stand.wait_ended(5, 60)
    tail = Tail(stand)
    producer = producer_of(0)
    for _ in range(LOW_RUNS):
        run, record = stand.record()
        began = time.perf_counter()
        producer.produce(f"{stand.name}.inbox", record, run)
        producer.poll(0)
        while (message := tail.next(10)) and not (message.key() == run.encode() and ended(message)):
            pass
        if message is None:
            raise NotMeasured(f"run {run} did not end within 10 s")
        took.append(1000 * (time.perf_counter() - began))
    producer.flush(10)
    tail.close()
    return took


def low(results):
    with Stand("low", "refused") as stand:
        took = alone(stand)
    results.figure("low_load_p50_ms", percentile(took, 0.5), f"five steps without calls, {LOW_RUNS} runs one after another")
    results.figure("low_load_p99_ms", percentile(took, 0.99), f"max {max(took):.1f} ms")
    for name, what in (("travel", "five steps that travel, a step event and a transaction each"), ("walk", "five pure steps, walked as the run starts")):
        with Stand(f"low-{name}", name) as stand:
            took = alone(stand)
        results.detail(**{f"low_load_{name}_p50_ms": percentile(took, 0.5), f"low_load_{name}_p99_ms": percentile(took, 0.99)})
        say(f"{what}: p50 {percentile(took, 0.5):.1f} ms, p99 {percentile(took, 0.99):.1f} ms")


# ---- bursts ----


def burst_of(stand, runs):
    """Seconds from the first request to the last end on the log, by the broker's and the workers' clocks, which are one machine's."""
    stand.request(20)
    stand.wait_ended(20, 60)
    began = time.time()
    ids = stand.request(runs)
    stand.wait_ended(runs + 20, 300)
    verdict = stand.verdict(ids)
    return verdict.last_ms / 1000 - began


def burst(results):
    ideal = CALLS * CALL_MS / 1000
    for runs in (1000, 5000):
        tool = FastTool(LOGS / "burst", CALL_MS)
        with Stand(f"burst-{runs}", "calls", in_flight_max=runs + 1000) as stand:
            stand.env["TOOLS_URL"] = tool.url
            stand.worker("a")
            took = burst_of(stand, runs)
        bare = program("ceiling", "--calls", CALLS * runs, "--url", tool.url + "/ask", "--in-flight", runs)["seconds"]
        tool.stop()
        results.detail(**{f"burst_{runs}_bare_curl_ratio": bare / ideal})
        say(f"a bare libcurl loop alone: {bare / ideal:.2f} x ideal")
        results.figure(f"burst_{runs}_ratio", took / ideal, f"{took:.2f} s for {CALLS} calls of {CALL_MS} ms, in_flight_max {runs + 1000}")


# ---- memory ----


def settled(pid):
    """Resident MiB once it has not grown for a second."""
    seen, since = resident_mib(pid), time.monotonic()
    while time.monotonic() - since < 1.0:
        time.sleep(0.1)
        if (now := resident_mib(pid)) > seen + 0.5:
            seen, since = now, time.monotonic()
    return resident_mib(pid)


def in_flight(results):
    tool = FastTool(LOGS / "memory", 45000)  # longer than it takes to look
    with Stand("memory-calls", "calls", in_flight_max=6000) as stand:
        stand.env["TOOLS_URL"] = tool.url
        worker = stand.worker("a")
        empty = settled(worker.pid)
        stand.request(5000)
        wait_until("5,000 steps are in flight", lambda: stand.metric("myelin_steps_in_flight") >= 5000, 60, every=0.2)
        full, requests = settled(worker.pid), stand.metric("myelin_http_requests_in_flight")
        worker.kill()
    tool.stop()
    results.figure("resident_mib_5000_in_flight", full, f"{empty:.1f} MiB with none; {requests:.0f} of them are HTTP requests under way")
    results.detail(resident_mib_0_in_flight=empty)


def waiting(results):
    with Stand("memory-wait", "wait") as stand:
        worker = stand.worker("a")
        empty = settled(worker.pid)
        stand.request(WAITING)
        try:
            wait_until("all wait", lambda: stand.metric("myelin_steps_parked") >= WAITING, 240, every=0.5)
        finally:
            parked = stand.metric("myelin_steps_parked")
        grown = settled(worker.pid)
        say(f"{parked:.0f} waiting: {grown:.1f} MiB as it grew")
        worker.terminate(60)
        began = time.monotonic()
        again = stand.worker("a")
        wait_until("the keeper is rebuilt", lambda: stand.metric("myelin_steps_parked") >= parked, 240, every=0.2)
        rebuilt_s, rebuilt = time.monotonic() - began, settled(again.pid)
    results.figure("bytes_per_waiting_run", (rebuilt - empty) * 2**20 / parked,
                   f"{parked:.0f} waiting: {rebuilt:.0f} MiB after a restart ({rebuilt_s:.1f} s to rebuild), {empty:.0f} MiB with none")
    results.detail(bytes_per_waiting_run_as_it_grew=(grown - empty) * 2**20 / parked, waiting_runs=parked, rebuild_s=rebuilt_s)


def memory(results):
    each_of(results, in_flight, waiting)


def each_of(results, *measures):
    """All of them, whichever fails; then says which did."""
    failed = []
    for measure in measures:
        try:
            measure(results)
        except (NotMeasured, AssertionError) as why:
            failed.append((str(why).splitlines() or ["no reason given"])[0])
            say(f"not measured: {failed[-1]}")
    if failed:
        raise NotMeasured("; ".join(failed))


# ---- takeover ----


class Stream:
    """A steady stream of runs, and when each partition of `history` last showed something new."""

    PER_S = 200

    def __init__(self, stand):
        self.stand, self.tail, self.stop = stand, Tail(stand), threading.Event()
        self.seen = collections.defaultdict(list)  # partition -> times at which something became visible
        self.threads = [threading.Thread(target=self._ask), threading.Thread(target=self._look)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        producer = producer_of(0)
        due = time.monotonic()
        while not self.stop.is_set():
            run, record = self.stand.record()
            producer.produce(f"{self.stand.name}.inbox", record, run)
            producer.poll(0)
            due += 1 / self.PER_S
            time.sleep(max(0, due - time.monotonic()))
        producer.flush(10)

    def _look(self):
        while not self.stop.is_set():
            if message := self.tail.next(0.2):
                self.seen[message.partition()].append(time.monotonic())

    def silence(self, since, seconds):
        """The longest time, from `since` on, in which some partition showed nothing; known once all have moved again. What was
        committed right before may be read right after: not before half a second has passed is a partition said to move."""
        wait_until("every partition moves again", lambda: all(
            self.seen[p] and self.seen[p][-1] > since + 0.5 for p in range(self.stand.partitions)), seconds)
        worst, until = 0, time.monotonic()
        for p in range(self.stand.partitions):
            times = [since] + [at for at in self.seen[p] if since < at < until] + [until]
            worst = max(worst, max(b - a for a, b in zip(times, times[1:])))
        return worst

    def calm(self, seconds=30):
        """Until every partition has shown something within the last half second."""
        wait_until("every partition moves", lambda: all(
            self.seen[p] and self.seen[p][-1] > time.monotonic() - 0.5 for p in range(self.stand.partitions)), seconds)

    def close(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        self.tail.close()


def both_own(stand):
    """Both workers have partitions, and the group is at rest."""
    def shared():
        alive = [w for w in stand.workers if w.alive()]
        owned = [owned_by(stand, w) for w in alive]
        return len(alive) == 2 and all(owned) and sum(owned) == 2 * stand.partitions

    wait_until("both workers have partitions", shared, 60, every=0.1)


def owned_by(stand, worker):
    return int(float(next(line for line in stand.page(worker).splitlines()
                          if line.startswith("myelin_partitions_owned ")).split()[1]))


def killed(stand, stream, again_at_once):
    """kill -9 of worker b; with again_at_once its slot is started again in the same moment."""
    both_own(stand)
    stream.calm()
    victim = next(w for w in stand.workers if w.alive() and w.slot == "b")
    since = time.monotonic()
    victim.kill()
    if again_at_once:
        stand.worker("b", ready=False)
    took = stream.silence(since, 60)
    if not again_at_once:
        stand.worker("b", ready=False)
    wait_until("b listens", lambda: "event=admin.listens" in stand.workers[-1].log(), 30)
    return took


def stopped(stand, stream):
    """SIGTERM of a worker without a slot of its own: it leaves the group."""
    both_own(stand)
    stream.calm()
    victim = next(w for w in stand.workers if w.alive() and w.slot == "")
    since = time.monotonic()
    victim.process.send_signal(signal.SIGTERM)
    victim.process.wait(60)
    took = stream.silence(since, 60)
    stand.worker("", ready=False)
    wait_until("it listens", lambda: "event=admin.listens" in stand.workers[-1].log(), 30)
    return took


def many(results, key, name, times, slots, once, worst):
    took = []
    with Stand(f"takeover-{name}", "travel") as stand:
        for slot in slots:
            stand.worker(slot)
        stream = Stream(stand)
        try:
            for _ in range(times):
                took.append(once(stand, stream))
                say(f"{name} {len(took)}/{times}: {took[-1]:.2f} s")
        except AssertionError as late:
            raise NotMeasured(f"{name}, after {len(took)} of {times}: {late}") from None
        finally:
            stream.close()
    value = max(took) if worst else percentile(took, 0.99)
    results.figure(key, value, f"{times} times; p50 {percentile(took, 0.5):.2f} s, max {max(took):.2f} s, {Stream.PER_S} runs/s")
    results.detail(**{f"takeover_{name}_s": took})


def takeover(results):
    each_of(
        results,
        lambda to: many(to, "takeover_slot_p99_s", "slot", TAKEOVERS, ("a", "b"), lambda *on: killed(*on, True), False),
        lambda to: many(to, "takeover_term_max_s", "term", max(3, TAKEOVERS // 2), ("a", ""), stopped, True),
        lambda to: many(to, "takeover_kill_p99_s", "kill", TAKEOVERS, ("a", "b"), lambda *on: killed(*on, False), False))
