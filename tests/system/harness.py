"""Real workers on a real Kafka and Redis: a namespace of their own, started, killed and asked by tests and by the demo."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import uuid

from doubles import BUILD, ROOT, Double

CRASH_BUILD = ROOT / os.environ.get("MYELIN_BUILD_CRASH", "build/crash")


def local_env():
    """Where the servers are: what ops/up wrote, unless the environment says it already."""
    env = dict(os.environ)
    if "MYELIN_KAFKA" not in env or "MYELIN_REDIS" not in env:
        path = ROOT / env.get("MYELIN_LOCAL", ".local") / "env"
        for name, value in re.findall(r"^(?:export )?(\w+)=(\S+)$", path.read_text(), re.M):
            env.setdefault(name, value)
    return env


def wait_until(what, condition, seconds=30, every=0.02):
    """Waits for condition() to be true and returns it; says what did not happen."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {what}")


def preload(directory, name, source):
    """Environment for a process in which `source`'s functions stand before those of its libraries."""
    (directory / f"{name}.c").write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", directory / f"{name}.so", directory / f"{name}.c", "-ldl"], check=True)
    options = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"  # of a build with ASan, before whose functions it stands too
    return {"LD_PRELOAD": str(directory / f"{name}.so"), "ASAN_OPTIONS": options.lstrip(":")}


class Worker:
    """One myelin-worker process."""

    def __init__(self, space, slot, build=BUILD, log=None, **env):
        self.space, self.slot = space, slot
        self.log_path = space.directory / f"worker-{log or slot}.log"
        self.started_at = time.monotonic()
        self.skip = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(
                [build / "myelin-worker"], env={**space.env, "MYELIN_SLOT": slot, **env},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def log(self):
        """What this life of the worker said."""
        with open(self.log_path, errors="replace") as file:
            file.seek(self.skip)
            return file.read()

    def wait_log(self, text, seconds=30):
        def said():
            if text in self.log():
                return True
            if not self.alive():
                raise AssertionError(f"worker {self.slot} ended ({self.process.returncode}): {self.log()[-2000:]}")
            return False

        try:
            wait_until(f"worker {self.slot} says {text}", said, seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}; it said:\n{self.log()[-3000:]}") from None
        return self

    def ready(self, seconds=30):
        return self.wait_log("event=ready", seconds)

    def kill(self):
        """kill -9."""
        self.process.kill()
        return self.process.wait(10)

    def terminate(self, seconds=40):
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


class Refused(Exception):
    def __init__(self, command, done):
        super().__init__(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr


class Space:
    """A namespace, its topics, its workers and its doubles; everything stops at the end of the with block."""

    def __init__(self, directory, name=None, settings=None, partitions=4):
        self.name = name or f"t{uuid.uuid4().hex[:10]}"
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.env = {**local_env(), "MYELIN_NAMESPACE": self.name}
        self.env.setdefault("TOOLS_URL", "http://127.0.0.1:9")
        self.env.setdefault("MODEL_URL", "http://127.0.0.1:9/v1")
        self.env.setdefault("MYELIN_ADMIN", "127.0.0.1:0")  # tests run beside each other, and beside a developer's worker
        self.workers, self.doubles = [], []
        self._settings(settings or {}, partitions)

    def _settings(self, settings, partitions):
        """config/worker.cfg as shipped, with some values replaced."""
        values = {"steps_partitions": partitions, "inbox_partitions": partitions, "history_partitions": partitions, **settings}
        text = (ROOT / "config" / "worker.cfg").read_text()
        for name, value in values.items():
            value = value if isinstance(value, str) else json.dumps(value)
            text, count = re.subn(rf"(?m)^{name} = [^;]*;", lambda _: f"{name} = {value};", text)
            assert count == 1, f"config/worker.cfg has no {name}"
        path = self.directory / "worker.cfg"
        path.write_text(text)
        self.env["MYELIN_CONFIG"] = str(path)

    def double(self, program, *args, **options):
        double = Double(program, self.directory, *args, **options)
        self.doubles.append(double)
        if program == "model_double":
            self.env["MODEL_URL"] = double.url + "/v1"
        else:
            self.env["TOOLS_URL"] = double.url
        return double

    def cli(self, *command, check=True, input=None, seconds=60):
        command = [BUILD / "myelin", *map(str, command)]
        done = subprocess.run(command, env=self.env, input=input, stdin=None if input is not None else subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=seconds)
        if check and done.returncode != 0:
            raise Refused(command, done)
        return done

    def json(self, *command, **options):
        """A command's --json lines."""
        return [json.loads(line) for line in self.cli(*command, "--json", **options).stdout.splitlines()]

    def create(self):
        self.cli("topics", "create")
        return self

    def redis(self, *words):
        """What redis-cli prints for one command."""
        command = ["redis-cli", "-p", self.env["MYELIN_REDIS"].split(":")[1], *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def forget(self):
        """Redis loses all that it has of this namespace."""
        if keys := self.redis("--scan", "--pattern", f"{{{self.name}}}:*").split():
            self.redis("UNLINK", *keys)

    def publish(self, path):
        self.cli("contract", "publish", path)

    def worker(self, slot, ready=True, **options):
        worker = Worker(self, slot, **options)
        self.workers.append(worker)
        return worker.ready() if ready else worker

    def start(self, contract, data, run=None, **options):
        """Starts a run and returns its id."""
        more = ["--id", run] if run else []
        return self.cli("run", contract, "--input", json.dumps(data), *more, **options).stdout.strip()

    def state(self, run):
        return self.json("show", run, "--since", "1h")[0]

    def wait_status(self, run, *statuses, seconds=60):
        def reached():
            state = self.state(run)
            return state if state["status"] in statuses else None

        return wait_until(f"run {run} is {' or '.join(statuses)}", reached, seconds, every=0.1)

    def wait_approval(self, run, seconds=60):
        return wait_until(f"run {run} waits for an approval",
                          lambda: [a for a in self.json("approvals") if a["run"] == run], seconds, every=0.1)[0]

    def close(self):
        for worker in self.workers:
            if worker.alive():
                worker.kill()
        for double in self.doubles:
            double.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Person:
    """Does what people do, until the end of the with block: approves whatever waits, and settles a doubt by looking at what the tool did."""

    def __init__(self, space, tools):
        self.space, self.tools, self.stopping, self.failure = space, tools, threading.Event(), None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self.stopping.is_set():
                waiting = [one for one in self.space.json("approvals", check=False) if "waits_for" in one]
                with concurrent.futures.ThreadPoolExecutor(3) as pool:
                    list(pool.map(self._answer, waiting))
                self.stopping.wait(0.2)
        except Exception as failure:
            self.failure = failure

    def _answer(self, waiting):
        run = waiting["run"]
        if self.stopping.is_set():
            return
        if waiting["waits_for"] == "approval":
            words = ["approve", run, waiting["step"]]
        elif self.tools.ledger("acted", run=run, tool=waiting["tool"]):
            words = ["resolve", run, waiting["step"], "--done", '{"status": "sent"}']
        else:
            words = ["resolve", run, waiting["step"], "--not-done"]
        self.space.cli(*words, "--timeout", "20s", check=False)  # refused: somebody or something else was faster

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        if self.failure is not None:
            raise self.failure
