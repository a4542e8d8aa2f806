"""What tests/run promises about its last line and its exit status: a runner that overlooks a crash proves nothing. The test programs
here are shell scripts that say what cmocka says."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOOD = 'echo "[ RUN      ] one"; echo "[       OK ] one"\n'
BAD = 'echo "[ RUN      ] two"; echo "[  ERROR   ] --- 0x2 != 0x1"; echo "[  FAILED  ] two"; exit 1\n'
SKIP = 'echo "[ RUN      ] three"; echo "[  SKIPPED ] three"\n'


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tests/unit").mkdir(parents=True)
    (tmp_path / "tests/fuzz").mkdir()
    (tmp_path / "build").mkdir()
    shutil.copy(ROOT / "tests/run", tmp_path / "tests/run")
    return tmp_path


def program(tree, name, script):
    (tree / "tests" / f"{name}.c").touch()
    if script is not None:
        path = tree / "build/tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)


def run(tree, *arguments):
    done = subprocess.run(["tests/run", "check", *arguments], cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={"PATH": "/usr/bin:/bin"}, timeout=60)
    return done.stdout.splitlines()[-1], done.returncode, done.stdout


def test_all_good(tree):
    program(tree, "unit/test_a", GOOD + GOOD)
    assert run(tree)[:2] == ("2 passed, 0 failed", 0)


def test_skipped_are_counted_and_named(tree):
    program(tree, "unit/test_a", GOOD + SKIP)
    last, status, said = run(tree)
    assert (last, status) == ("1 passed, 0 failed, 1 skipped", 0) and "unit/test_a: three" in said


@pytest.mark.parametrize("script, line", [
    (GOOD + BAD, "1 passed, 1 failed"),
    (GOOD + 'echo "[ RUN      ] two"; kill -SEGV $$\n', "1 passed, 1 failed"),
    (GOOD + "kill -ABRT $$\n", "1 passed, 1 failed"),
    (GOOD + "exit 99\n", "1 passed, 1 failed"),
    ("exit 0\n", "0 passed, 1 failed"),
    (None, "0 passed, 1 failed"),
], ids=["a test fails", "crash within a test", "crash after the last test", "finding at exit", "no tests", "not built"])
def test_failures_are_counted_and_named(tree, script, line):
    program(tree, "unit/test_a", script)
    last, status, said = run(tree)
    assert (last, status) == (line, 1) and "build/test-logs/unit-test_a.log" in said


def test_fuzz_replay_that_crashes_fails(tree):
    program(tree, "fuzz/fuzz_ok", "echo 7 inputs\n")
    program(tree, "fuzz/fuzz_bad", "echo tests/fuzz/corpus/bad/x; kill -SEGV $$\n")
    last, status, said = run(tree)
    assert (last, status) == ("1 passed, 1 failed", 1) and "tests/fuzz/corpus/bad/x" in said


def test_what_a_sanitizer_finds_fails(tree):
    program(tree, "unit/test_a", GOOD + GOOD)
    shutil.copytree(tree / "build/tests", tree / "build/asan/tests")
    assert run(tree, "asan")[:2] == ("3 passed, 0 failed", 0)
    (tree / "build/asan/tests/unit/test_a").write_text("#!/bin/sh\n" + GOOD + "echo 'ERROR: AddressSanitizer: x'; exit 1\n")
    last, status, said = run(tree, "asan")
    assert (last, status) == ("2 passed, 1 failed", 1) and "AddressSanitizer: x" in said


def test_nothing_ran_is_a_failure(tree):
    assert run(tree)[:2] == ("0 passed, 0 failed", 1)
    program(tree, "unit/test_a", GOOD)
    assert run(tree, "-k", "nosuch")[:2] == ("0 passed, 0 failed", 1)
