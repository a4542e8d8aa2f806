"""A worker is frozen in the middle of a write for longer than its session and wakes up when its partition has another owner: it must not
commit, and its write must not land after the new owner's."""

import concurrent.futures
import pathlib
import signal

import pytest

from harness import Person, Space, preload, wait_until
from judge import judge
from test_crash import HERE, POLICIES

# While the file is there, the process stops itself once where FREEZE_AT says: whole, as SIGSTOP from outside would.
FREEZE = r"""
#define _GNU_SOURCE
#include <curl/curl.h>
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#undef curl_easy_setopt

static void here(const char *point)
{
    if (strcmp(getenv("FREEZE_AT"), point) == 0 && unlink(getenv("FREEZE_WHILE")) == 0)
        raise(SIGSTOP);
}

static curl_prereq_callback real_prereq;

static int prereq(void *context, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    here("send");
    return real_prereq(context, remote_ip, local_ip, remote_port, local_port);
}

CURLcode curl_easy_setopt(CURL *curl, CURLoption option, ...)
{
    CURLcode (*real)(CURL *, CURLoption, ...) = dlsym(RTLD_NEXT, "curl_easy_setopt");
    va_list list;
    va_start(list, option);
    void *value = va_arg(list, void *);
    va_end(list);
    if (option == CURLOPT_PREREQFUNCTION) {
        real_prereq = (curl_prereq_callback)value;
        value = prereq;
    }
    return real(curl, option, value);
}

rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *producer)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *) = dlsym(RTLD_NEXT, "rd_kafka_begin_transaction");
    here("begin");
    return real(producer);
}

rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(rd_kafka_t *producer, const rd_kafka_topic_partition_list_t *list,
                                                       const rd_kafka_consumer_group_metadata_t *group, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, const rd_kafka_topic_partition_list_t *,
                              const rd_kafka_consumer_group_metadata_t *, int) =
        dlsym(RTLD_NEXT, "rd_kafka_send_offsets_to_transaction");
    here("offsets");
    return real(producer, list, group, timeout_ms);
}

rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *producer, int timeout_ms)
{
    rd_kafka_error_t *(*real)(rd_kafka_t *, int) = dlsym(RTLD_NEXT, "rd_kafka_commit_transaction");
    here("commit");
    return real(producer, timeout_ms);
}
"""
# Before the write leaves; while the tool acts; and with its result in hand: before the transaction begins, before it has the offsets, before
# it is committed.
CASES = [(point, policy) for point in ("send", "act") for policy in POLICIES] + [(point, "ask") for point in ("begin", "offsets", "commit")]
INPUT = {"to": "jane@acme.example"}
LATE = [{"match": {"tool": "send", "run": "r1"}, "times": 1, "answer": {"act_and_answer_late": 500}}]


def stopped(worker):
    return pathlib.Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def freeze(space, tools, zombie, point, armed):
    """Lets the run go on to its write, and stops the worker there."""
    if point == "send":
        armed.touch()
    space.cli("approve", "r1", "approve", "--timeout", "500ms", check=False)  # who would answer is frozen, or soon will be
    if point != "send":
        tools.wait_for("acted", tool="send", seconds=30)
    if point == "act":
        zombie.process.send_signal(signal.SIGSTOP)
    elif point != "send":
        armed.touch()
    wait_until("it is frozen", lambda: stopped(zombie), 30)


def story(directory, point, policy):
    directory.mkdir()
    armed = directory / "freeze"
    with Space(directory, partitions=1, settings={"settle": '"500ms"', "backoff": '"100ms"'}) as space:
        tools = space.double("tool_double", *(["--honour-keys"] if policy == "retry" else []), script=LATE)
        path = directory / "crash.cfg"
        path.write_text((HERE / "crash.cfg").read_text().replace("@ON_DOUBT@", POLICIES[policy]))
        space.create().publish(path)
        zombie = space.worker("z", **preload(directory, "freeze", FREEZE), FREEZE_AT=point, FREEZE_WHILE=str(armed))
        space.start("crash", INPUT, run="r1")
        space.wait_approval("r1")
        freeze(space, tools, zombie, point, armed)
        with Person(space, tools):
            heir = space.worker("h", ready=False)
            space.wait_status("r1", "completed", seconds=90)
            assert stopped(zombie)
            zombie.process.send_signal(signal.SIGCONT)
            # What it had in hand is dealt with when it works again: alone.
            zombie.wait_log("event=partition.lost", 60)  # its session was over
            assert heir.terminate() == 0
            space.start("crash", INPUT, run="r2", seconds=90)
            states, _ = judge(space, ["r1", "r2"], tools)
        assert zombie.alive(), zombie.log()[-2000:]
        sent = [line for line in tools.ledger("received", tool="send", run="r1") if not line.get("probe")]
        return {"sent": len(sent), "doubts": len(states["r1"]["doubts"]),
                "known": [call["known"] for call in states["r1"]["committed_side_effects"]]}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases, some at a time; a failure is kept for its own test."""
    root = tmp_path_factory.mktemp("zombie")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        return {case: pool.submit(story, root / "-".join(case), *case) for case in CASES}


@pytest.mark.parametrize("point,policy", CASES)
def test_frozen(outcomes, point, policy):
    """▲ Frozen before it leaves: it never does, whoever settled the doubt meanwhile. Frozen later: what the tool, the person or Redis knows is
    told once."""
    wanted = {"sent": 1, "doubts": 1, "known": [{"send": "called", "retry": "called", "probe": "probed", "ask": "resolved"}[
        "send" if point == "send" else policy]]}
    if point in ("begin", "offsets", "commit"):
        wanted |= {"doubts": 0, "known": ["adopted"]}
    if (point, policy) == ("act", "retry"):
        wanted |= {"sent": 2}  # the tool honours its key: acted once
    assert outcomes[point, policy].result() == wanted
