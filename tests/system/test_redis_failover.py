"""▲ Redis fails over to a replica that lags: what was written last is lost, and the value beside the keys is not. Such a Redis must not be
taken for the one that was there before: a write that may have been made is in doubt, and never repeated by accident."""

import os
import socket
import subprocess
import threading
import time

import pytest

from doubles import ROOT, holds_connection
from harness import CRASH_BUILD, Person, Space, wait_until
from history import request
from judge import judge
from test_crash import HERE, POLICIES

INPUT = {"to": "jane@acme.example"}


class Forwarder:
    """The address that workers know; behind it is now one server, then another."""

    def __init__(self, port):
        self.to, self.connections = port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
            except ConnectionRefusedError:
                client.close()
                continue
            except OSError:
                return
            self.connections += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        for one in self.connections:
            one.close()


class Server:
    """A Redis, by the project's own script."""

    def __init__(self, local, port):
        self.env = {**os.environ, "MYELIN_LOCAL": str(local), "MYELIN_REDIS_PORT": str(port)}
        self.run("start")
        self.port = (local / "redis" / "port").read_text().strip()

    def run(self, command):
        done = subprocess.run(["ops/redis/server", command], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, *words):
        return subprocess.run(["redis-cli", "-p", self.port, *words], capture_output=True, text=True, check=True).stdout.strip()


class Pair:
    """A primary, its replica, and the address of whichever serves."""

    def __init__(self, directory):
        self.primary, self.replica = Server(directory / "primary", 27530), Server(directory / "replica", 27540)
        self.primary.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        self.replica.ask("REPLICAOF", "127.0.0.1", self.primary.port)
        wait_until("the replica follows", lambda: "master_link_status:up" in self.replica.ask("INFO", "replication"))
        self.forwarder = Forwarder(self.primary.port)

    def lag(self, space):
        """What was written so far is on the replica, what comes now will not be. A worker has said by then which life of Redis it is."""
        wait_until("the incarnation is there", lambda: self.incarnations(space)[0] != "")
        self.primary.ask("SET", "mark", "here")
        wait_until("the replica has it, and what was before it", lambda: self.replica.ask("GET", "mark") == "here")
        self.replica.ask("REPLICAOF", "NO", "ONE")

    def fail_over(self):
        self.forwarder.to = self.replica.port
        self.primary.run("kill")

    def incarnations(self, space):
        key = f"{{{space.name}}}:incarnation"
        return self.primary.ask("GET", key), self.replica.ask("GET", key)

    def close(self):
        self.forwarder.close()
        self.primary.run("wipe")
        self.replica.run("wipe")


@pytest.fixture
def pair(tmp_path):
    pair = Pair(tmp_path)
    yield pair
    pair.close()


@pytest.fixture
def stage(tmp_path, pair):
    made = []

    def make(policy, script, partitions=1, timeout="2s"):
        """A namespace whose workers ask the pair, the tool, and the contract: a read, a person, a write with this timeout."""
        space = Space(tmp_path / "space", partitions=partitions, settings={"settle": '"500ms"', "backoff": '"100ms"'})
        made.append(space)
        space.env["MYELIN_REDIS"] = pair.forwarder.address
        tools = space.double("tool_double", *(["--honour-keys"] if policy == "retry" else []), script=script)
        path = tmp_path / "crash.cfg"
        path.write_text((HERE / "crash.cfg").read_text().replace("@ON_DOUBT@", POLICIES[policy]).replace('"2s"', f'"{timeout}"'))
        space.create().publish(path)
        return space, tools

    yield make
    for space in made:
        space.close()


HELD = {"match": {"tool": "send"}, "times": 1, "answer": {"act_and_not_answer": "hold"}}
REFUSED_THEN_HELD = [{"match": {"tool": "send"}, "times": 1, "answer": {"fail_before_acting": 429, "retry_after": 2}}, HELD]


def to_the_write(space):
    """Starts a run and lets it come to where it waits for a person: the next thing is the write."""
    run = space.start("crash", INPUT, run="r1")
    space.wait_approval(run)
    return run


@pytest.mark.parametrize("policy", POLICIES)
def test_reservation_lost_with_the_worker(stage, pair, policy):
    """Killed in the write, and its reservation is on no server that is left."""
    space, tools = stage(policy, [HELD])
    worker = space.worker("s")
    run = to_the_write(space)
    pair.lag(space)
    assert len(set(pair.incarnations(space))) == 1  # the value beside the keys tells nothing
    with Person(space, tools):
        tools.wait_for("acted", tool="send", seconds=30)
        worker.kill()
        pair.fail_over()
        space.worker("s")
        states, more = judge(space, [run], tools, killed=True)
    assert not more and [doubt["settled"] for doubt in states[run]["doubts"]] == [True]


@pytest.mark.parametrize("policy", POLICIES)
def test_record_of_an_earlier_attempt_is_left(stage, pair, policy):
    """The first attempt surely did not act, and that is what the replica has; the second one did, and its worker is killed."""
    space, tools = stage(policy, REFUSED_THEN_HELD)
    worker = space.worker("s")
    run = to_the_write(space)
    space.cli("approve", run, "approve")
    tools.wait_for("answered", tool="send", status=429, seconds=30)
    wait_until("what did not happen is written down",
               lambda: "not_done" in {pair.primary.ask("HGET", key, "state") for key in pair.primary.ask("KEYS", "*:w:*").split()}, every=0.05)
    pair.lag(space)
    with Person(space, tools):
        tools.wait_for("acted", tool="send", seconds=30)
        worker.kill()
        pair.fail_over()
        space.worker("s")
        states, more = judge(space, [run], tools, killed=True)
    assert not more and [doubt["settled"] for doubt in states[run]["doubts"]] == [True]


@pytest.mark.parametrize("policy", POLICIES)
def test_result_lost_with_the_worker(stage, pair, policy):
    """The result was stored, the worker died before its commit, and the result is lost."""
    space, tools = stage(policy, [])
    worker = space.worker("s", build=CRASH_BUILD, MYELIN_CRASH_AT="after_stored:1")
    run = to_the_write(space)
    pair.lag(space)
    with Person(space, tools):
        worker.process.wait(30)
        pair.fail_over()
        space.worker("s")
        states, more = judge(space, [run], tools, killed=True)
    assert not more and [doubt["settled"] for doubt in states[run]["doubts"]] == [True]


def test_failover_while_the_write_is_under_way(stage, pair):
    """Nobody was killed: the result is stored where there is no reservation, and nothing is in doubt."""
    space, tools = stage("ask", [{"match": {"tool": "send"}, "answer": {"act_and_answer_late": 1500}}])
    space.worker("s")
    run = to_the_write(space)
    pair.lag(space)
    space.cli("approve", run, "approve")
    tools.wait_for("acted", tool="send", seconds=30)
    pair.fail_over()
    states, _ = judge(space, [run], tools)
    assert states[run]["doubts"] == []


def held_by(tools, worker):
    """The runs whose e-mail was sent by a request of this worker a moment ago, and that is not answered."""
    since_ms = time.time() * 1000 - 1000
    sent = [line for line in tools.ledger("received", tool="send") if line["run"].startswith("held") and line["time_ms"] > since_ms]
    acted = {line["seq"] for line in tools.ledger("acted", tool="send")}
    return [line["run"] for line in sent if line["seq"] in acted and holds_connection(worker.pid, line["peer"])]


def test_failover_under_load(stage, pair):
    """Two workers, one of them killed at the moment of the failover, with calls of both in flight. The other one, which knew the old server,
    takes over: reads may be made again, of the writes what cannot be known is asked."""
    held = {"match": {"tool": "send", "args_contain": "held", "nth_per_run": 1}, "answer": {"act_and_not_answer": "hold"}}
    space, tools = stage("ask", [held, {"match": {"tool": "crm"}, "answer": {"delay_ms": 100}}], partitions=4, timeout="6s")
    gone, heir = space.worker("a"), space.worker("b")
    runs = request(space, "crash", {f"r{i:02d}": INPUT for i in range(20)})
    with Person(space, tools):
        wait_until("writes are made", lambda: len(tools.ledger("acted", tool="send")) >= 5, 60)
        pair.lag(space)
        runs += request(space, "crash", {f"held{i:02d}": {"to": "held@acme.example"} for i in range(12)})
        lost = wait_until("the one that will be killed has sent what the replica does not know", lambda: held_by(tools, gone), 60)
        gone.kill()
        pair.fail_over()
        states, _ = judge(space, runs, tools, killed=True)
    assert all(states[run]["doubts"] for run in lost)
    assert heir.alive()
