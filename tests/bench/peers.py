"""Restate on the same work, in the same run: server and TypeScript SDK from npm, with its defaults and tuned."""

import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

from parts_rate import ROUNDS
from stand import HERE, LOGS, ROOT, FastTool, NotMeasured, Skipped, cpu_s, percentile, program, say, scaled, wait_until

HOME = ROOT / "build" / "restate"
RUNS, HTTP_RUNS, LOW_RUNS = scaled(6000), scaled(3000), scaled(300, 30)
# Tried for each configuration, the best counts: too few leave it idle, too many queue.
IN_FLIGHT = (100, 400)
# What its reference documents for one node with few cores. Two cores need no 24 partitions; a log of its own without the
# replication protocol; no fsync, for a Kafka broker does none by default either; no journal kept of what has ended.
TUNED = """
default-num-partitions = 4
default-journal-retention = "0s"
disable-telemetry = true
disable-prometheus = true
log-filter = "error"
[worker]
max-command-batch-size = 128
[worker.storage]
rocksdb-disable-statistics = true
[worker.invoker]
concurrent-invocations-limit = 2000
[bifrost]
default-provider = "local"
[bifrost.local]
rocksdb-disable-wal-fsync = true
[log-server]
rocksdb-disable-wal-fsync = true
"""


def install():
    for needed in ("node", "npm"):
        if shutil.which(needed) is None:
            raise Skipped(f"{needed} is not installed")
    HOME.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "service.mjs"):
        shutil.copy(HERE / "restate" / name, HOME / name)
    if (HOME / "node_modules/@restatedev/restate-server").exists():
        return
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=HOME, capture_output=True, text=True,
                          timeout=300)
    if done.returncode != 0:
        raise Skipped(f"npm install failed: {done.stderr.strip()[-200:]}")


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def post(port, path, data, seconds=30):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    connection.request("POST", path, json.dumps(data), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


class Restate:
    """One server with data of its own, and one Node.js process with the service."""

    def __init__(self, name, config, tool):
        self.directory = LOGS / f"restate-{name}"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        ingress, admin, node, service = free_ports(4)
        self.ingress = ingress
        path = self.directory / "restate.toml"
        path.write_text(config)
        env = {**os.environ, "RESTATE_INGRESS__BIND_PORT": str(ingress), "RESTATE_ADMIN__BIND_PORT": str(admin),
               "RESTATE_BIND_PORT": str(node), "RESTATE_BASE_DIR": str(self.directory / "data"), "RESTATE_NODE_NAME": "bench",
               "RESTATE_BIND_IP": "127.0.0.1", "RESTATE_LISTEN_MODE": "tcp", "DO_NOT_TRACK": "1", "RESTATE_DISABLE_TELEMETRY": "true"}
        self.processes = [
            self._start("server", [HOME / "node_modules/.bin/restate-server", "--no-logo", "--config-file", path], env),
            self._start("service", ["node", HOME / "service.mjs"], {**os.environ, "PORT": str(service), "TOOL_URL": tool.url,
                                                                    "NODE_ENV": "production"})]
        try:
            wait_until("Restate takes the service", lambda: self._register(admin, service), 60, every=0.3)
            wait_until("Restate answers", self._answers, 60, every=0.3)
        except AssertionError as late:
            self.stop()
            raise NotMeasured(f"Restate {name} does not start: {late}; logs in {self.directory.relative_to(ROOT)}") from None

    def _start(self, name, command, env):
        with open(self.directory / f"{name}.log", "w") as log:
            return subprocess.Popen([str(word) for word in command], env=env, cwd=HOME, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    start_new_session=True)

    def _register(self, admin, service):
        try:
            return post(admin, "/deployments", {"uri": f"http://127.0.0.1:{service}"})[0] in (200, 201)
        except OSError:
            return False

    def _answers(self):
        try:
            return post(self.ingress, "/bench/steps", {"n": 1}, 5)[0] == 200
        except OSError:
            return False

    def pids(self):
        """Of the server and the service, whatever started them on the way."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(path.name)) in [process.pid for process in self.processes]:
                    found.append(int(path.name))
            except ProcessLookupError:
                pass
        return found

    def stop(self):
        for process in self.processes:
            try:
                os.killpg(process.pid, 15)
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(10)
            except ProcessLookupError:
                pass
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def rate(self, handler, runs, in_flight):
        """Steps a second and CPU seconds per 1,000, from `runs` runs, answered to the caller."""
        url = f"http://127.0.0.1:{self.ingress}/bench/{handler}"
        program("ceiling", "--calls", max(50, runs // 10), "--url", url, "--in-flight", in_flight)
        pids = self.pids()
        before = sum(cpu_s(pid) for pid in pids)
        found = program("ceiling", "--calls", runs, "--url", url, "--in-flight", in_flight)
        if found["calls_failed"]:
            raise NotMeasured(f"{found['calls_failed']} of {runs} runs failed in Restate")
        return 5 * runs / found["seconds"], (sum(cpu_s(pid) for pid in pids) - before) / (5 * runs) * 1000

    def alone(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.ingress, timeout=30)
        took = []
        for n in range(LOW_RUNS + 20):
            began = time.perf_counter()
            connection.request("POST", "/bench/steps", json.dumps({"n": n}), {"Content-Type": "application/json"})
            connection.getresponse().read()
            took.append(1000 * (time.perf_counter() - began))
        return took[20:]


def peers(results):
    install()
    tool, best = FastTool(LOGS / "peers"), {}
    try:
        for name, config in (("default", ""), ("tuned", TUNED)):
            restate = Restate(name, config, tool)
            try:
                for handler, runs in (("steps", RUNS), ("calls", HTTP_RUNS)):
                    for in_flight in IN_FLIGHT:
                        rate, cpu = max(restate.rate(handler, runs, in_flight) for _ in range(ROUNDS))
                        say(f"Restate {name}, {handler}, {in_flight} in flight: {rate:,.0f} steps/s, {cpu:.2f} CPU s per 1,000")
                        results.detail(**{f"restate_{name}_{handler}_{in_flight}_steps_per_s": rate,
                                          f"restate_{name}_{handler}_{in_flight}_cpu_s_per_1000": cpu})
                        best[handler] = max(best.get(handler, (0, "")), (rate, f"{name}, {in_flight} in flight"))
                took = restate.alone()
                say(f"Restate {name}, one run at a time: p50 {percentile(took, 0.5):.1f} ms, p99 {percentile(took, 0.99):.1f} ms")
                results.detail(**{f"restate_{name}_low_load_p99_ms": percentile(took, 0.99)})
                best["low"] = min(best.get("low", (1e9, "")), (percentile(took, 0.5), name))
            finally:
                restate.stop()
    finally:
        tool.stop()
    results.figure("restate_steps_per_s", *best["steps"])
    results.figure("restate_http_steps_per_s", *best["calls"])
    results.figure("restate_low_load_p50_ms", *best["low"])
