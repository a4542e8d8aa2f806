"""Starts the model double and the tool double, and reads their ledgers (tests/doubles/README.md)."""

import json
import os
import pathlib
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("MYELIN_BUILD", "build")


def holds_connection(pid, port):
    """Whether the process has the TCP connection on 127.0.0.1 whose own port this is."""
    inodes = set()
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(fd) in inodes:
                return True
        except FileNotFoundError:  # closed meanwhile
            pass
    return False


class Double:
    """One running double: Double("tool_double", directory, script=[...]) -> .url, .ledger(), .stop()."""

    def __init__(self, program, directory, *args, script=None, recorded=()):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ledger_path = self.directory / f"{program}.ledger.jsonl"
        port_file = self.directory / f"{program}.port"
        port_file.unlink(missing_ok=True)
        command = [BUILD / "tests" / program, "--port-file", port_file, "--ledger", self.ledger_path, *args]
        if script is not None:
            path = self.directory / f"{program}.json"
            path.write_text(json.dumps(script))
            command += ["--script", path]
        for path in recorded:
            command += ["--recorded", path]
        with open(self.directory / f"{program}.log", "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.port = self._wait_for_port(port_file)
        self.url = f"http://127.0.0.1:{self.port}"

    def _wait_for_port(self, port_file, seconds=5):
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            if port_file.exists():
                return int(port_file.read_text())
            time.sleep(0.005)
        log = (self.directory / f"{self.process.args[0].name}.log").read_text()
        self.stop()
        raise RuntimeError(f"{self.process.args[0].name} does not start: {log}")

    def ledger(self, event=None, **wanted):
        """The lines so far, those of one event, those whose fields are as wanted."""
        lines = [json.loads(line) for line in self.ledger_path.read_text().splitlines()]
        return [
            line
            for line in lines
            if event in (None, line["event"]) and all(line.get(k) == v for k, v in wanted.items())
        ]

    def wait_for(self, event, seconds=5, **wanted):
        """Waits until the ledger has such a line, and returns the first."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := self.ledger(event, **wanted):
                return found[0]
            time.sleep(0.01)
        raise AssertionError(f"no {event} {wanted} in {self.ledger_path} after {seconds} s")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
