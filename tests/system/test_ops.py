"""What `make up | down | status | reset` promise, on a state directory of their own. Most of it is the same code for both servers
(ops/common.sh) and is tried on the one that starts in no time."""

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def ops(command, local, check=True, **settings):
    done = subprocess.run(
        command.split(), cwd=ROOT, env={**os.environ, "MYELIN_LOCAL": str(local), **settings}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode == 0 or not check, done.stdout
    return done


def redis(command, local, **settings):
    return ops(f"ops/redis/server {command}", local, MYELIN_REDIS_PORT="26379", **settings)


def pid_of(local, server="ops/redis/server"):
    return int(ops(f"{server} pid", local).stdout)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture
def local():
    path = ROOT / ".local" / "test-ops"
    shutil.rmtree(path, ignore_errors=True)
    yield path
    ops("ops/reset", path)
    shutil.rmtree(path, ignore_errors=True)


def test_start_twice_is_one_server(local):
    redis("start", local)
    first = pid_of(local)
    assert "runs already" in redis("start", local).stdout
    assert pid_of(local) == first


def test_two_starts_at_once_are_one_server(local):
    both = [subprocess.Popen(["ops/redis/server", "start"], cwd=ROOT, env={**os.environ, "MYELIN_LOCAL": str(local)},
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate(timeout=60)[0] for process in both)
    assert said.count("ready in") == 1 and said.count("runs already") == 1


def test_stop_twice_and_data_stays(local):
    redis("start", local)
    port = (local / "redis/port").read_text().strip()
    subprocess.run(["redis-cli", "-p", port, "set", "kept", "yes"], check=True, stdout=subprocess.DEVNULL)
    assert "stopped" in redis("stop", local).stdout
    assert "does not run" in redis("stop", local).stdout
    redis("start", local)
    assert (local / "redis/port").read_text().strip() == port
    assert subprocess.run(["redis-cli", "-p", port, "get", "kept"], stdout=subprocess.PIPE, text=True).stdout.strip() == "yes"


def test_settings_that_myelin_relies_on(local):
    redis("start", local)
    port = (local / "redis/port").read_text().strip()
    wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "bind": "127.0.0.1"}
    for name, value in wanted.items():
        got = subprocess.run(["redis-cli", "-p", port, "config", "get", name], stdout=subprocess.PIPE, text=True).stdout
        assert got.split() == [name, value]


def test_taken_port_is_said_and_the_next_one_used(local):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        said = ops("ops/redis/server start", local, MYELIN_REDIS_PORT=str(taken)).stdout
    assert f"port {taken} is taken" in said
    assert f"export MYELIN_REDIS=127.0.0.1:{(local / 'redis/port').read_text().strip()}" in (local / "env").read_text()
    assert (local / "redis/port").read_text().strip() != str(taken)


def test_answer_of_another_server_is_not_ours(local):
    # Another server binds the port between our look and our bind: a wrapper around redis-server starts it then.
    port = 20000 + os.getpid() % 6000
    intruder = local.with_name("test-ops-intruder")
    tools = local.with_name("test-ops-tools")
    tools.mkdir(parents=True, exist_ok=True)
    wrapper = tools / "redis-server"
    wrapper.write_text(f"""#!/bin/sh
[ -e {intruder}.once ] || {{ touch {intruder}.once; /usr/bin/redis-server --port {port} --bind 127.0.0.1 --daemonize yes \
    --pidfile {intruder}.pid --save '' >/dev/null; until redis-cli -p {port} ping >/dev/null 2>&1; do sleep 0.05; done; }}
exec /usr/bin/redis-server "$@"
""")
    wrapper.chmod(0o755)
    try:
        said = ops("ops/redis/server start", local, MYELIN_REDIS_PORT=str(port), PATH=f"{tools}:{os.environ['PATH']}").stdout
        assert f"port {port} is in use" in said and "ready in" in said
        assert (local / "redis/port").read_text().strip() != str(port)
    finally:
        subprocess.run(["redis-cli", "-p", str(port), "shutdown", "nosave"], stdout=subprocess.DEVNULL)
        shutil.rmtree(tools)
        Path(f"{intruder}.once").unlink(missing_ok=True)


def test_port_of_a_connection_is_passed_over(local):
    # Nobody listens there, so it looks free, but it cannot be bound.
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        used = client.getsockname()[1]
        said = ops("ops/redis/server start", local, MYELIN_REDIS_PORT=str(used)).stdout
    assert f"port {used} is in use" in said and (local / "redis/port").read_text().strip() != str(used)


@pytest.mark.parametrize("content", ["{pid} 1", "{pid}", "999999999 5", "", "nonsense here", "-1 -1", "{pid} {start}"],
                         ids=["wrong start", "no start", "no such process", "empty", "words", "every process", "other program"])
def test_foreign_or_broken_pid_file_stops_nobody(local, content):
    other = subprocess.Popen(["sleep", "600"])
    try:
        start = Path(f"/proc/{other.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        (local / "redis").mkdir(parents=True)
        (local / "redis/pid").write_text(content.format(pid=other.pid, start=start))
        redis("stop", local)
        redis("kill", local)
        assert alive(other.pid)
        redis("start", local)
        assert pid_of(local) != other.pid
    finally:
        other.kill()
        other.wait()


def test_restart_after_kill(local):
    redis("start", local)
    os.kill(pid_of(local), signal.SIGKILL)
    assert ops("ops/redis/server status", local, check=False).returncode == 3
    assert "ready in" in redis("start", local).stdout


def test_frozen_server_is_not_called_ready_but_can_be_stopped(local):
    redis("start", local)
    pid = pid_of(local)
    os.kill(pid, signal.SIGSTOP)
    said = ops("ops/redis/server start", local, check=False, MYELIN_DEADLINE="2")
    assert said.returncode == 1 and "does not answer" in said.stdout
    redis("stop", local)
    assert not alive(pid)


def test_status_names_log_and_address_and_fails_when_down(local):
    assert ops("ops/status", local, check=False).returncode == 3
    redis("start", local)
    said = ops("ops/redis/server status", local).stdout
    assert re.search(r"up: 127\.0\.0\.1:\d+$", said, re.M)
    assert (local / "redis/redis.log").stat().st_size > 0 and str(local / "redis/redis.log") in said


def test_nothing_is_inherited_from_the_caller(local):
    # A daemon that kept the caller's pipe open would make this wait for its end.
    read, write = os.pipe()
    subprocess.run(["ops/redis/server", "start"], cwd=ROOT, env={**os.environ, "MYELIN_LOCAL": str(local)}, check=True,
                   stdin=subprocess.DEVNULL, stdout=write, stderr=write, pass_fds=(write,), timeout=60)
    os.close(write)
    with os.fdopen(read) as said:
        assert "ready in" in said.read()


def test_broker_kill_restart_reset(local):
    broker = "ops/kafka/broker"
    ops(f"{broker} start", local, MYELIN_KAFKA_PORT="29092")
    first, port = pid_of(local, broker), (local / "kafka/port").read_text()
    said = ops(f"{broker} status", local).stdout
    listening = re.search(r"up: (.*)", said).group(1).split()
    assert len(listening) == 2 and all(address.startswith("127.0.0.1:") for address in listening), said
    ops(f"{broker} kill", local)
    assert not alive(first)
    ops(f"{broker} start", local)
    assert (local / "kafka/port").read_text() == port and pid_of(local, broker) != first
    pid = pid_of(local, broker)
    ops("ops/reset", local)
    assert not alive(pid) and not (local / "kafka").exists() and not (local / "env").exists()
