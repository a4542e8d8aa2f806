"""Large payloads: stored once, as facts, and named from then on. What is named is right after an abort, a crash and a takeover."""

import hashlib
import json

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from harness import CRASH_BUILD, Space, preload, wait_until
from history import History, decode, encode, produce, rebuild
from kafka_proxy import ADD_OFFSETS_TO_TXN, END_TXN, PASS, SWALLOW, SWALLOW_ANSWER, Proxy, made_up
from test_faults import APPROVED, LOOK, contract
from test_log_faults import GROUP_AUTHORIZATION_FAILED

TURNS = 100
TOKENS = 200_000
BYTES_A_TOKEN = 4  # as the model double counts

CONTRACT = """
contract = {
  name = "long"; goal = "Read everything.";
  input = { required = ["to"]; properties = { to = { type = "string"; }; }; };
  limits = { deadline = "30m"; steps = 1000; llm_tokens = 100000000; };
  recovery_policy = { retry_budget = 3; };
  boundaries = { allowed_tools = ["read"]; };
  tools = {
    read = { url = "${TOOLS_URL}/read"; effect = "read"; timeout = "20s"; description = "Reads a page.";
             parameters = { required = ["page"]; properties = { page = { type = "integer"; }; }; }; };
  };
  agents = { reader = { model = "default"; system = "Read."; tools = ["read"]; turns_max = 100; }; };
  steps = { go = { agent = "reader"; sees = "{to: .input.to}"; next = "end"; }; };
};
"""


def words(turn, size):
    """Text of that many bytes, which no other turn says."""
    text = " ".join(f"turn {turn} word {n}" for n in range(size // 10))
    return text[:size]


def script(turns, said, read):
    """An agent that says `said` bytes and reads a page of `read` bytes in each of its turns, and then is done."""
    model = [{"match": {"turn": turn}, "answer": {"content": words(turn, said),
              "tool_calls": [{"name": "read", "arguments": {"page": turn}}]}} for turn in range(turns - 1)]
    model.append({"match": {"turn": turns - 1}, "answer": {"content": "Done."}})
    tools = [{"match": {"tool": "read", "args_contain": {"page": turn}}, "answer": {"result": {"page": words(turn + 1000, read)}}}
             for turn in range(turns)]
    return model, tools


def begin(space, turns=TURNS, said=2000, read=6000):
    model, tools = script(turns, said, read)
    space.tools = space.double("tool_double", script=tools)
    space.model = space.double("model_double", "--full", script=model)
    path = space.directory / "long.cfg"
    path.write_text(CONTRACT)
    space.publish(path)


@pytest.fixture
def space(tmp_path):
    with Space(tmp_path, partitions=1, settings={"backoff": '"50ms"', "settle": '"300ms"'}) as space:
        yield space.create()


def stored(space, *topics):
    """Bytes of keys and values on each topic, as they were produced: before compression, without Kafka's own frame."""
    found = {}
    for topic in topics:
        reader = History(space, topic).drain()
        found[topic] = sum(len(message.key() or b"") + len(message.value() or b"") for message in reader.messages)
        reader.close()
    return found


def last_request(space):
    return max((line["request"] for line in space.model.ledger("received")), key=lambda request: len(request["messages"]))


def said(request):
    """Bytes of what a conversation says: texts, and of each call its id, tool and arguments; the system text is none of it."""
    size = 0
    for message in request["messages"]:
        if message["role"] == "system":
            continue
        size += len((message.get("content") or "").encode()) + len(message.get("tool_call_id") or "")
        for call in message.get("tool_calls") or []:
            size += len(call["id"]) + len(call["function"]["name"]) + len(call["function"]["arguments"].encode())
    return size


# ---- what is named, as others see it ----


class Stored:
    """What a read_committed reader finds in the topics."""

    def __init__(self, space):
        topics = {}
        for topic in ("history", "steps.default", "inbox"):
            reader = History(space, topic).drain()
            topics[topic] = reader.messages
            reader.close()
        self.history = {(m.partition(), m.offset()): m.value() for m in topics["history"]}
        self.events = [decode(m.value())[1] for m in topics["steps.default"]]
        for message in topics["inbox"]:
            name, record = decode(message.value())
            if name == "StepParked":
                self.events.append(decode(record["event"])[1])
        self.named = 0

    def fact(self, reference):
        """The fact that a reference names: it must be there, and be that one."""
        value = self.history[reference["partition"], reference["offset"]]
        assert len(value) == reference["size"] and hashlib.sha256(value).digest() == reference["sha256"]
        self.named += 1
        return decode(value)[1]

    def conversation(self, event):
        """All messages of an agent's conversation, as (role, content, requests, answered request)."""
        chain, part = event["at"]["chain"], []
        while chain is not None:
            fact = self.fact(chain[1])
            link, (kind, body) = fact["link"][1], fact["body"]
            own = []
            if link["own"] and kind.endswith("ModelAnswered"):
                own = [("assistant", body["content"], [call["id"] for call in body["calls"]], None)]
            elif link["own"]:
                own = [("tool", body["result"], [], ...)]
            part = [self._message(message) for message in link["messages"]] + own + part
            chain = link["before"]
        assert len(part) == event["at"]["chained"]
        whole, asked = part + [self._message(message) for message in event["at"]["conversation"]], []
        for i, (role, content, calls, answered) in enumerate(whole):
            asked = list(calls) if calls else asked
            if answered is ...:
                whole[i] = (role, content, calls, asked[0])
            asked = asked[1:] if role == "tool" else asked
        return whole

    @staticmethod
    def _message(message):
        return (message["role"], message["content"], [call["id"] for call in message["calls"]], message["call_id"])

    def check(self, run):
        """Every step event of the run names what it says it names; returns the longest conversation."""
        conversations = []
        for event in self.events:
            if event["run"] != run:
                continue
            if event["input_at"] is not None:
                assert self.fact(event["input_at"][1])["body"][0].endswith("RunStarted") and event["input"] is None
            for step in event["steps"]:
                if step["output_at"] is not None:
                    fact = self.fact(step["output_at"][1])
                    assert fact["body"][0].endswith("StepCompleted") and fact["step"] == step["name"] and step["output"] is None
            conversations.append(self.conversation(event))
        return max(conversations, key=len)


def asked(request):
    """The conversation that a model was sent, in the same form."""
    return [(m["role"], m.get("content"), [call["id"] for call in m.get("tool_calls") or []], m.get("tool_call_id"))
            for m in request["messages"] if m["role"] != "system"]


def verify(space, run, turns):
    """It went through, the model was always asked the right thing, and all that is named is there."""
    state = space.wait_status(run, "completed", "failed", seconds=180)
    assert state["status"] == "completed", state["reason"]
    assert [call["arguments"]["page"] for call in state["tool_calls"]] == list(range(turns - 1))
    stored = Stored(space)
    whole = stored.check(run)
    lines = [line for line in space.model.ledger("received", run=run)]
    assert {line["turn"] for line in lines} == set(range(turns))
    for line in lines:
        conversation = asked(line["request"])
        assert conversation == whole[:len(conversation)], line["turn"]
    history = History(space).drain()
    rebuilt = rebuild(history.facts(run), run)
    history.close()
    assert all(state[name] == value for name, value in rebuilt.items())
    assert (rebuilt["gaps"], rebuilt["repeats"]) == (0, 0)
    return stored


# ---- how much ----


def test_what_a_long_conversation_stores(space):
    begin(space)
    worker = space.worker("a")
    run = space.start("long", {"to": "jane@acme.example"})
    assert verify(space, run, TURNS).named > 150
    assert worker.terminate() == 0
    request = last_request(space)
    conversation = said(request) + len("Done.")
    topics = stored(space, "steps.default", "history", "inbox", "waiting", "dead")
    print(json.dumps(topics), conversation, sum(topics.values()) / conversation)
    assert len(request["messages"]) == 2 * TURNS
    assert conversation >= TOKENS * BYTES_A_TOKEN * 0.98
    assert sum(topics.values()) <= 1.2 * conversation


# ---- named twice ----

SAY = "say = { model = 'default'; system = 'Say.'; sees = '%s'; next = 'end'; };"


@pytest.mark.parametrize("steps,to", [(SAY % "{to: .input.to}", words(1, 6000)), (LOOK % "say" + SAY % ".look", "jane@acme.example")],
                         ids=["of the input", "of an output"])
def test_what_an_agent_sees_first(space, steps, to):
    """The fact of a long input, or output, is also the one that holds the first message: the step event names it in two places."""
    space.tools = space.double("tool_double", script=[{"match": {"tool": "crm"}, "answer": {"bytes": 6000}}])
    space.model = space.double("model_double", "--full", script=[{"answer": {"content": "Done."}}])
    name = contract(space, "asks", steps)
    space.worker("a")
    run = space.start(name, {"to": to})
    state = space.wait_status(run, "completed", "failed", seconds=20)
    assert state["status"] == "completed", state["reason"]
    assert space.json("dead", "list") == []
    found = Stored(space)
    assert asked(last_request(space)) == found.check(run)
    assert found.named == 2
    history = History(space).drain()
    rebuilt = rebuild(history.facts(run), run)
    history.close()
    assert all(state[name] == value for name, value in rebuilt.items())


# ---- killed, aborted ----


def test_killed_again_and_again(space):
    """A worker that starts has no cache: what is named comes from Kafka. Killed at any point, nothing wrong is asked."""
    begin(space, turns=24)
    run = None
    for nth, point in enumerate(("after_payloads:8", "after_produce:6", "before_commit:4", "after_commit:3", "after_answer:5")):
        worker = space.worker("a", build=CRASH_BUILD, ready=False, MYELIN_CRASH_AT=point)
        run = run or space.start("long", {"to": "jane@acme.example"})
        wait_until(f"{point}: it dies", lambda: not worker.alive(), 60)
        assert worker.process.returncode == -9, worker.log()[-1500:]
    space.worker("a")
    verify(space, run, 24)


def test_aborted_transactions_change_where_it_lies(space):
    """▲ After each abort the same facts lie elsewhere: what names them is written anew."""
    begin(space, turns=24)
    refused = []
    with Proxy(space.env["MYELIN_KAFKA"]) as proxy:
        def rule(request):
            if request.key == ADD_OFFSETS_TO_TXN and request.of(f"{space.name}-a-"):
                refused.append(len(refused) % 3 == 1)
                return made_up(request, GROUP_AUTHORIZATION_FAILED) if refused[-1] else PASS
            return PASS

        worker = space.worker("a", MYELIN_KAFKA=proxy.address)
        proxy.rule = rule
        run = space.start("long", {"to": "jane@acme.example"})
        verify(space, run, 24)
        assert worker.log().count("event=transaction.aborted error=GROUP_AUTHORIZATION_FAILED") > 10
        worker.kill()


def test_commits_in_doubt(space):
    """Executed or not, nobody says so: what was named is there in the first case, and lies elsewhere in the second."""
    begin(space, turns=24)
    told = []
    with Proxy(space.env["MYELIN_KAFKA"]) as proxy:
        def rule(request):
            if request.key == END_TXN and request.of(f"{space.name}-a-"):
                told.append(request)
                return {8: SWALLOW, 16: SWALLOW_ANSWER, 24: SWALLOW, 32: SWALLOW_ANSWER}.get(len(told), PASS)
            return PASS

        worker = space.worker("a", MYELIN_KAFKA=proxy.address)
        proxy.rule = rule
        run = space.start("long", {"to": "jane@acme.example"})
        verify(space, run, 24)
        log = worker.log()
        assert "was=committed" in log and "was=aborted" in log
        worker.kill()


NOWHERE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>

typedef void report(rd_kafka_t *, const rd_kafka_message_t *, void *);
static report *real_report;

/* Each fifth report of a record that is waited for does not say where it lies, as after a repeated request. */
static void report_nowhere(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
    static int reports;
    rd_kafka_message_t copy = *message;
    if (message->_private != NULL && ++reports % 5 == 0)
        copy.offset = RD_KAFKA_OFFSET_INVALID;
    real_report(handle, &copy, opaque);
}

void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *config, report *callback)
{
    void (*real)(rd_kafka_conf_t *, report *) = dlsym(RTLD_NEXT, "rd_kafka_conf_set_dr_msg_cb");
    real_report = callback;
    real(config, report_nowhere);
}
"""


def test_a_report_that_does_not_say_where(space, tmp_path):
    """▲ It aborts, and is done again."""
    begin(space, turns=24)
    worker = space.worker("a", **preload(tmp_path, "nowhere", NOWHERE))
    run = space.start("long", {"to": "jane@acme.example"})
    verify(space, run, 24)
    assert worker.log().count('reason="where a payload lies is not known"') >= 5, worker.log()[-2000:]


# ---- waiting with it, losing it ----


def test_waiting_with_a_long_conversation(space):
    """What is parked names it too: a keeper without a cache fetches it before it wakes the step."""
    begin(space, turns=12)
    space.model.stop()
    model, _ = script(12, 2000, 6000)
    model.insert(0, {"match": {"turn": 8, "nth": 1}, "answer": {"status": 429, "retry_after": 3}})
    space.model = space.double("model_double", "--full", script=model)
    worker = space.worker("a")
    run = space.start("long", {"to": "jane@acme.example"})
    wait_until("it waits", lambda: (space.state(run)["current_step"] or [{}])[0].get("owner") == "waiting", 30)
    worker.kill()
    space.worker("a")
    found = verify(space, run, 12)
    assert any(event["at"]["chained"] == 17 and event["at"]["attempt"] == 2 for event in found.events)
    assert sum(stored(space, "waiting", "inbox").values()) < 5000


def test_a_decision_about_what_is_named(space):
    """A person's record is held until the state that it is about was fetched; of two that came only the first one counts."""
    space.tools = space.double("tool_double", script=[{"match": {"tool": "crm"}, "answer": {"bytes": 6000}}, {"answer": {}}])
    send = "send = { tool = 'send'; args = '{to: .input.to, what: .look}'; next = 'end'; };"
    name = contract(space, "asks", LOOK % "ask" + "ask = { approval = true; approved = 'send'; rejected = 'end'; };" + send,
                    top=APPROVED % "pause")
    worker = space.worker("a")
    run = space.start(name, {"to": "jane@acme.example"})
    question = space.wait_approval(run)
    worker.kill()
    for request in ("first", "second"):
        produce(space, "inbox", run, encode("Decision", {
            "run": run, "request_id": request, "step": "ask", "visit": 1, "args_hash": question["args_hash"], "approved": True,
            "by": "ann", "reason": None, "at_ms": 0}))
    space.worker("a")
    state = space.wait_status(run, "completed", "failed")
    assert state["status"] == "completed", state["reason"]
    sent, = space.tools.ledger("acted", tool="send")
    assert len(json.dumps(sent["args"]["what"])) > 5900
    found = Stored(space)
    found.check(run)
    assert found.named >= 2
    history = History(space).drain()
    answers = {fact["body"]["request_id"]: fact["body"]["accepted"] for fact in history.facts(run) if fact["kind"] == "RequestAnswered"}
    history.close()
    assert (answers["first"], answers["second"]) == (True, False)


def test_what_is_named_is_gone(space):
    """Facts that retention took away before their time: the run ends and says so."""
    begin(space, turns=24)
    worker = space.worker("a", build=CRASH_BUILD, ready=False, MYELIN_CRASH_AT="before_commit:20")
    run = space.start("long", {"to": "jane@acme.example"})
    wait_until("it dies", lambda: not worker.alive(), 60)
    admin = AdminClient({"bootstrap.servers": space.env["MYELIN_KAFKA"]})
    first = TopicPartition(f"{space.name}.history", 0, 8)
    for done in admin.delete_records([first]).values():
        done.result()
    worker = space.worker("a")
    ended = wait_until("it has ended", lambda: ends(space, run), 30)
    assert "a payload in history (partition 0, offset" in ended[0] and "it was deleted" in ended[0]
    assert "event=payload.lost" in worker.log()
    assert space.json("dead", "list") == []


@pytest.mark.parametrize("field,value,reason", [
    ("sha256", b"x" * 32, "its hash is not the one"), ("offset", 10**9, "it ends before"), ("partition", 77, "cannot be had")])
def test_what_is_named_is_something_else(space, field, value, reason):
    """Whoever can write to the topics can write any reference."""
    begin(space, turns=4)
    space.model.stop()
    model, _ = script(4, 2000, 6000)
    space.model = space.double("model_double", script=[{"match": {"turn": 2}, "answer": {"content": "?", "delay_ms": 30000}}, *model])
    worker = space.worker("a")
    run = space.start("long", {"to": "jane@acme.example"})
    space.model.wait_for("received", turn=2, seconds=30)
    event = Stored(space).events[-1]
    event["at"]["chain"][1].update({field: value, **({"sha256": b"y" * 32} if field != "sha256" else {})})
    produce(space, "steps.default", run, encode("StepReady", event))
    ended = wait_until("it has ended", lambda: ends(space, run), 30)
    assert reason in ended[0], ended
    assert worker.alive() and "event=payload.lost" in worker.log()


def ends(space, run):
    """The reasons of the ends of a run."""
    history = History(space).drain()
    facts = history.facts(run)
    history.close()
    return [fact["body"]["reason"] for fact in facts if fact["kind"] == "RunEnded"]
