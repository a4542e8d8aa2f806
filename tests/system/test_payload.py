"""Large payloads: stored once, as facts, and named from then on. What is named is right after an abort, a crash and a takeover."""

import json

import pytest
from harness import CRASH_BUILD, Space, wait_until
from history import History, decode

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


def test_what_a_long_conversation_stores(space):
    begin(space)
    space.worker("a")
    run = space.start("long", {"to": "jane@acme.example"})
    state = space.wait_status(run, "completed", "failed", seconds=180)
    assert state["status"] == "completed", state["reason"]
    request = last_request(space)
    conversation = said(request) + len("Done.")
    topics = stored(space, "steps.default", "history", "inbox", "waiting", "dead")
    print(json.dumps(topics), conversation, sum(topics.values()) / conversation)
    assert len(request["messages"]) == 2 * TURNS
    assert conversation >= TOKENS * BYTES_A_TOKEN * 0.98
    assert sum(topics.values()) <= 1.2 * conversation
