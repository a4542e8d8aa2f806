"""The doubles themselves: each behaviour that other tests lean on, once."""

import concurrent.futures
import http.client
import json
import os
import socket
import subprocess
import time
import uuid

import pytest
from doubles import BUILD, Double

ASK = {"model": "m", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]}


def request(double, method, path, body=None, **headers):
    """One request on its own connection: (status, text, headers)."""
    connection = http.client.HTTPConnection("127.0.0.1", double.port, timeout=5)
    try:
        connection.request(
            method,
            path,
            body=json.dumps(body) if isinstance(body, (dict, list)) else body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def chat(double, ask=None, **headers):
    status, text, _ = request(double, "POST", "/v1/chat/completions", ask or ASK, **headers)
    return status, json.loads(text)


def message_of(double, ask=None, **headers):
    status, body = chat(double, ask, **headers)
    assert status == 200, body
    return body["choices"][0]["message"]


def call(double, tool, args, key=None, **headers):
    if key:
        headers["Idempotency_Key"] = key
    status, text, _ = request(double, "POST", f"/{tool}", args, **headers)
    return status, text


def asked(*messages, **more):
    return {"model": "m", "messages": [*ASK["messages"], *messages], **more}


def said(name, arguments="{}", id="call_0_0"):
    """An assistant message with one tool call, and the tool's answer."""
    calls = [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]
    return (
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": id, "content": "found 4 pages"},
    )


@pytest.fixture
def model(tmp_path):
    doubles = []

    def start(rules=None, *args, **more):
        doubles.append(Double("model_double", tmp_path / str(len(doubles)), *args, script=rules, **more))
        return doubles[-1]

    yield start
    for double in doubles:
        assert double.stop() == 0


@pytest.fixture
def tools(tmp_path):
    doubles = []

    def start(rules=None, *args, **more):
        doubles.append(Double("tool_double", tmp_path / f"t{len(doubles)}", *args, script=rules, **more))
        return doubles[-1]

    yield start
    for double in doubles:
        assert double.stop() == 0


# ---- model: what is matched ----


@pytest.mark.parametrize(
    "match, ask, meets",
    [
        ({}, ASK, True),
        ({"model": "m"}, ASK, True),
        ({"model": "x"}, ASK, False),
        ({"system_contains": "kind"}, ASK, True),
        ({"system_contains": "cruel"}, ASK, False),
        ({"user_contains": ["Hel", "lo"]}, ASK, True),
        ({"user_contains": ["Hel", "no"]}, ASK, False),
        ({"turn": 0}, ASK, True),
        ({"turn": 1}, ASK, False),
        ({"turn": 1, "last_role": "tool", "last_contains": "4 pages"}, asked(*said("search")), True),
        ({"last_role": "user"}, asked(*said("search")), False),
        ({"tools_include": "a"}, asked(tools=[{"type": "function", "function": {"name": "a"}}]), True),
        ({"tools_include": ["a", "b"]}, asked(tools=[{"type": "function", "function": {"name": "a"}}]), False),
        ({"run": "r1"}, ASK, True),
        ({"run": "r2"}, ASK, False),
    ],
)
def test_model_matches(model, match, ask, meets):
    double = model([{"match": match, "answer": {"content": "yes"}}])
    status, body = chat(double, ask, X_Myelin_Run="r1")
    assert (status == 200) == meets
    if not meets:
        assert body["error"]["code"] == "no_rule" and 'model "m"' in body["error"]["message"]


def test_model_counts(model):
    double = model(
        [
            {"match": {"nth": 1}, "answer": {"content": "first of all"}},
            {"match": {"nth_per_key": 2}, "answer": {"content": "second of the key"}},
            {"match": {"nth_per_run": 3}, "answer": {"content": "third of the run"}},
            {"times": 1, "answer": {"content": "once"}},
            {"answer": {"content": "else"}},
        ]
    )
    keys = ["k1", "k1", "k2", "k2", "k3"]
    got = [message_of(double, Idempotency_Key=key, X_Myelin_Run="r")["content"] for key in keys]
    assert got == ["first of all", "second of the key", "third of the run", "second of the key", "once"]
    assert message_of(double)["content"] == "else"


# ---- model: what is answered ----


def test_model_answers_text_objects_and_usage(model):
    double = model(
        [
            {"match": {"nth": 1}, "answer": {"content": {"summary": "ü"}}},
            {"match": {"nth": 2}, "answer": {"content": "x", "usage": None}},
            {"answer": {"content": "x", "usage": {"total_tokens": 7}, "finish_reason": "length"}},
        ]
    )
    _, first = chat(double)
    assert json.loads(first["choices"][0]["message"]["content"]) == {"summary": "ü"}
    assert first["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    assert first["choices"][0]["finish_reason"] == "stop" and first["object"] == "chat.completion"
    assert "usage" not in chat(double)[1]
    _, third = chat(double)
    assert third["usage"] == {"total_tokens": 7} and third["choices"][0]["finish_reason"] == "length"
    assert third["id"] == first["id"], "the same request gets the same id"


def test_model_answers_tool_calls(model):
    calls = [{"name": "a", "arguments": {"q": 1}}, {"name": "b", "arguments": "{not json", "id": "mine"}, {"name": "c"}]
    double = model(
        [
            {"match": {"nth": 1}, "answer": {"tool_calls": calls}},
            {"match": {"nth": 2}, "answer": {"tool_calls": calls, "finish_reason": "stop"}},
            {"answer": {"tool_calls": [{"name": "a", "arguments": {"query": "Acme"}}], "truncated": True}},
        ]
    )
    _, body = chat(double)
    got = body["choices"][0]["message"]
    assert got["content"] is None and body["choices"][0]["finish_reason"] == "tool_calls"
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in got["tool_calls"]] == [
        ("call_0_0", "a", '{"q":1}'),
        ("mine", "b", "{not json"),
        ("call_0_2", "c", "{}"),
    ]
    assert chat(double)[1]["choices"][0]["finish_reason"] == "stop", "a reason may lie"
    _, body = chat(double)
    assert body["choices"][0]["finish_reason"] == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])


def test_model_fails(model):
    double = model(
        [
            {"match": {"nth": 1}, "answer": {"status": 429, "retry_after": 1.5, "code": "slow_down"}},
            {"match": {"nth": 2}, "answer": {"status": 503, "headers": {"x-should-retry": "true"}}},
            {"match": {"nth": 3}, "answer": {"raw_body": "<html>"}},
            {"match": {"nth": 4}, "answer": {"raw_body_hex": "00ff7b"}},
        ]
    )
    status, text, headers = request(double, "POST", "/v1/chat/completions", ASK)
    assert status == 429 and headers["Retry-After"] == "1.5"
    assert json.loads(text)["error"]["code"] == "slow_down"
    assert json.loads(text)["error"]["type"] == "rate_limit_error"
    status, text, headers = request(double, "POST", "/chat/completions", ASK)
    assert status == 503 and headers["x-should-retry"] == "true"
    assert request(double, "POST", "/v1/chat/completions", ASK)[:2] == (200, "<html>")
    connection = http.client.HTTPConnection("127.0.0.1", double.port)
    connection.request("POST", "/v1/chat/completions", json.dumps(ASK))
    assert connection.getresponse().read() == b"\x00\xff{"
    connection.close()


def raw(double, body):
    """Everything that comes back on one connection until the double closes it."""
    text = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", double.port), 5) as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        got = b""
        while piece := s.recv(65536):
            got += piece
        return got


def test_model_cuts(model):
    cuts = ["all", "headers", "body"]
    double = model([{"match": {"nth": i + 1}, "answer": {"content": "x" * 99, "cut": c}} for i, c in enumerate(cuts)])
    assert raw(double, ASK) == b""
    head, _, body = raw(double, ASK).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and body == b""
    head, _, body = raw(double, ASK).partition(b"\r\n\r\n")
    announced = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(body) == announced // 2
    assert [line["event"] for line in double.ledger(cut="all")] == ["not_answered"]


def test_model_delay_and_a_client_that_leaves(model):
    double = model([{"answer": {"content": "late", "delay_ms": 150}}])
    started = time.monotonic()
    assert message_of(double)["content"] == "late"
    assert 0.15 <= time.monotonic() - started < 1
    text = json.dumps(ASK).encode()
    with socket.create_connection(("127.0.0.1", double.port)) as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        double.wait_for("received", seq=2)
    assert double.wait_for("client_left")["seq"] == 2


def test_model_ledger(model):
    double = model([{"name": "greet", "answer": {"content": "hi"}}], "--full")
    chat(double, Idempotency_Key="k", X_Client_Request_Id="i", X_Myelin_Run="r")
    received, answered = double.ledger()
    assert abs(received.pop("time_ms") / 1000 - time.time()) < 5
    assert received == {
        "seq": 1, "event": "received", "request_id": "i", "key": "k", "run": "r", "model": "m",
        "messages": 2, "turn": 0, "last_role": "user", "request": ASK,
    }  # fmt: skip
    assert answered["rule"] == "greet" and answered["status"] == 200 and answered["message"]["content"] == "hi"


@pytest.mark.parametrize(
    "ask, why",
    [
        ("{", "no JSON"),
        ({"messages": []}, "model"),
        ({"model": "m", "messages": []}, "messages"),
        ({**ASK, "stream": True}, "stream"),
        ({**ASK, "tools": [{"type": "function", "function": {"name": "a b"}}]}, "name"),
        (asked(said("a")[0]), "not answered"),
        (asked(said("a")[0], {"role": "user", "content": "x"}), "before every tool call"),
        (asked(*said("a"), said("a")[1]), "no open tool call"),
        (asked({"role": "assistant", "content": None}), "neither"),
        (asked({"role": "robot", "content": "x"}), "role"),
    ],
)
def test_model_refuses_what_a_strict_server_refuses(model, ask, why):
    double = model([{"answer": {"content": "x"}}])
    status, text, _ = request(double, "POST", "/v1/chat/completions", ask)
    assert status == 400 and why in json.loads(text)["error"]["message"]


def test_model_plays_recordings(model, tmp_path):
    recorded = tmp_path / "model.jsonl"
    calls = [{"id": "c1", "name": "a", "arguments": '{"n": 1.0}'}, {"id": "c2", "name": "b", "arguments": "{}"}]
    tasks = {"one": "Read the page.", "two": "First: Read the page.\nThen \"send\" it to Zoë."}
    recorded.write_text(
        "".join(
            json.dumps({"id": i, "user": t, "answers": [{"content": None, "tool_calls": calls}, {"content": f"end {i}"}]})
            + "\n"
            for i, t in tasks.items()
        )
    )
    double = model(recorded=[recorded])
    system = {"role": "system", "content": "Goal: be useful.\nBe kind."}
    for i, task in tasks.items():
        quoted = json.dumps({"task": task}), json.dumps({"task": task}, ensure_ascii=False)
        for content in (task, *quoted, f"Do this: {quoted[1]}"):
            ask = {"model": "m", "messages": [system, {"role": "user", "content": content}]}
            got = message_of(double, ask)
            assert [c["function"]["arguments"] for c in got["tool_calls"]] == ['{"n": 1.0}', "{}"]
            ask["messages"] += [got, *({"role": "tool", "tool_call_id": c, "content": "x"} for c in ("c1", "c2"))]
            assert message_of(double, ask)["content"] == f"end {i}"
            assert double.ledger("answered")[-1]["rule"] == f"{i}@1"
    assert message_of(double, asked(*said("a")), X_Myelin_Run="two")["content"] == "end two"
    assert chat(double, asked(*said("a"), *said("b")), X_Myelin_Run="two")[0] == 400


# ---- tool ----


def events(double, **wanted):
    return [line["event"] for line in double.ledger(**wanted)]


def test_tools_of_the_demo(tools):
    double = tools()
    pages = json.loads(call(double, "search", {"query": "Acme GmbH"})[1])["pages"]
    assert len(pages) == 4 and pages[0]["url"] == "https://acme-gmbh.example/about"
    assert all({"url", "title", "text"} == set(page) and "Acme GmbH" in page["text"] for page in pages)
    assert json.loads(call(double, "crm", {"company": "Acme"})[1])["company"] == "Acme"
    mail = {"to": "jane@acme.example", "subject": "s", "body": "b"}
    assert json.loads(request(double, "GET", "/send/k")[1]) == {"status": "unknown"}
    assert json.loads(call(double, "send", mail, "k")[1]) == {"status": "sent", "id": "msg-1"}
    assert json.loads(call(double, "send", mail, "k")[1]) == {"status": "sent", "id": "msg-2"}
    assert len(double.ledger("acted", tool="send", key="k")) == 2, "keys are not honoured unless told"
    probe = json.loads(request(double, "GET", "/send/k")[1])
    assert probe == {"status": "sent", "result": {"status": "sent", "id": "msg-1"}}
    assert call(double, "fax", {})[0] == 404
    assert events(double, tool="fax") == ["received", "answered"]


def test_tool_ledger(tools):
    double = tools()
    call(double, "send", {"to": "a"}, "k", X_Myelin_Run="r")
    received, acted, answered = double.ledger()
    assert 0 < received.pop("peer") < 65536
    common = {"seq": 1, "tool": "send", "method": "POST", "path": "/send", "key": "k", "run": "r"}
    for line in (received, acted, answered):
        assert abs(line.pop("time_ms") / 1000 - time.time()) < 5
    assert received == {**common, "event": "received", "args": {"to": "a"}}
    assert acted["args"] == {"to": "a"} and acted["result"] == {"status": "sent", "id": "msg-1"}
    assert answered == {**common, "event": "answered", "status": 200, "outcome": "acted"}
    request(double, "GET", "/lookup?q=x+y")
    request(double, "POST", "/lookup", b"\xff")
    assert [line["args"] for line in double.ledger("received", tool="lookup")] == [{"q": "x y"}, "(no JSON and no UTF-8)"]


@pytest.mark.parametrize("switch", [False, True])
def test_tool_honours_keys(tools, switch):
    if switch:
        double = tools(None, "--honour-keys")
    else:
        double = tools([{"match": {"tool": "send"}, "answer": {"honour_keys": True}}])
    first, again, other = (call(double, "send", {"to": "a"}, key)[1] for key in ("k", "k", "l"))
    assert first == again != other
    assert [line["key"] for line in double.ledger("acted")] == ["k", "l"]
    assert [line["outcome"] for line in double.ledger("answered")] == ["acted", "repeated", "acted"]


def test_tool_matches(tools):
    double = tools(
        [
            {"match": {"tool": "pay", "args_contain": {"to": "Z", "eur": 5}}, "answer": {"result": 1}},
            {"match": {"tool": "pay", "args_contain": "Zoe"}, "answer": {"result": 2}},
            {"match": {"tool": "pay", "key": "k"}, "answer": {"result": 3}},
            {"match": {"tool": "pay", "run": "r"}, "answer": {"result": 4}},
            {"match": {"tool": "pay", "nth": 5}, "answer": {"result": 5}},
            {"match": {"tool": "pay", "nth_per_key": 2}, "answer": {"result": 6}},
        ]
    )
    assert call(double, "pay", {"to": "Zoe", "eur": 5})[1] == "1"
    assert call(double, "pay", {"to": "Zoe"})[1] == "2"
    assert call(double, "pay", {}, "k")[1] == "3"
    assert call(double, "pay", {}, X_Myelin_Run="r")[1] == "4"
    assert call(double, "pay", {}, "l")[1] == "5"
    assert call(double, "pay", {}, "l")[1] == "6"
    assert call(double, "pay", {})[0] == 404


def test_tool_fails_before_acting(tools):
    double = tools(
        [
            {"match": {"nth": 1}, "answer": {"fail_before_acting": 503, "retry_after": 2}},
            {"match": {"nth": 2}, "answer": {"fail_before_acting": "cut"}},
            {"match": {"nth": 3}, "answer": {"status": 429}},
            {"match": {"nth": 4}, "answer": {"status": 500, "acts": True}},
        ]
    )
    status, _, headers = request(double, "POST", "/send", {})
    assert status == 503 and headers["Retry-After"] == "2"
    with pytest.raises(http.client.RemoteDisconnected):
        call(double, "send", {})
    assert call(double, "send", {})[0] == 429
    assert double.ledger("acted") == []
    assert call(double, "send", {}, "k")[0] == 500
    assert len(double.ledger("acted")) == 1
    assert json.loads(request(double, "GET", "/send/k")[1])["status"] == "sent"


def test_tool_acts_and_does_not_answer(tools):
    double = tools(
        [
            {"match": {"nth": 1}, "answer": {"act_and_not_answer": "cut", "honour_keys": True}},
            {"match": {"nth": 2}, "answer": {"act_and_not_answer": "hold"}},
            {"answer": {"honour_keys": True}},
        ]
    )
    with pytest.raises(http.client.RemoteDisconnected):
        call(double, "send", {}, "k")
    assert events(double) == ["received", "acted", "not_answered"]
    connection = http.client.HTTPConnection("127.0.0.1", double.port, timeout=0.2)
    connection.request("POST", "/send", "{}", {"Idempotency-Key": "l"})
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert events(double, key="l") == ["received", "acted", "not_answered"]
    assert json.loads(request(double, "GET", "/send/l")[1])["status"] == "sent"
    assert call(double, "send", {}, "k")[1] == '{"status":"sent","id":"msg-1"}'
    assert len(double.ledger("acted", key="k")) == 1


def test_tool_acts_and_answers_late(tools):
    double = tools([{"match": {"nth": 1}, "answer": {"act_and_answer_late": 200}}])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        late = pool.submit(call, double, "send", {}, "k")
        double.wait_for("acted")
        assert json.loads(request(double, "GET", "/send/k")[1])["status"] == "sent" and not late.done()
        assert late.result()[0] == 200
    answered = double.wait_for("answered", probe=None)
    assert answered["time_ms"] - double.ledger("acted")[0]["time_ms"] >= 199


def test_tool_bodies(tools):
    double = tools(
        [
            {"match": {"tool": "big"}, "answer": {"bytes": 3_000_000}},
            {"match": {"tool": "bad"}, "answer": {"invalid_json": True}},
            {"match": {"tool": "text"}, "answer": {"text": "Grüße", "status": 201, "headers": {"X-A": "b"}}},
            {"match": {"tool": "slow"}, "answer": {"delay_ms": 100}},
        ]
    )
    text = call(double, "big", {})[1]
    assert len(text) == 3_000_000 and set(json.loads(text)) == {"pad"}
    with pytest.raises(json.JSONDecodeError):
        json.loads(call(double, "bad", {})[1])
    status, text, headers = request(double, "POST", "/text", {})
    assert (status, text, headers["X-A"], headers["Content-Type"]) == (201, "Grüße", "b", "text/plain; charset=utf-8")
    started = time.monotonic()
    assert call(double, "slow", {}) == (200, '{"status":"ok"}')
    assert time.monotonic() - started >= 0.1
    received, acted = double.ledger("received", tool="slow")[0], double.ledger("acted", tool="slow")[0]
    assert acted["time_ms"] - received["time_ms"] >= 99, "delay_ms is before acting"


def test_tool_probes(tools):
    double = tools(
        [
            {"match": {"tool": "pay", "probe": True}, "answer": {"statuses": {"acted": "paid", "unknown": "none"}}},
            {"match": {"tool": "send", "probe": True, "nth": 1}, "answer": {"result": {"status": "pending"}}},
            {"match": {"tool": "send", "probe": True, "nth": 2}, "answer": {"status": 503}},
            {"match": {"tool": "pay"}, "answer": {"result": {"eur": 5}}},
        ]
    )
    assert json.loads(request(double, "GET", "/pay/k")[1]) == {"status": "none"}
    call(double, "pay", {}, "k")
    assert json.loads(request(double, "GET", "/pay/k")[1]) == {"status": "paid", "result": {"eur": 5}}
    assert [request(double, "GET", "/send/k")[:2] for _ in range(3)] == [
        (200, '{"status":"pending"}'),
        (503, '{"error":{"code":"failed_before_acting","message":"as the script says"}}'),
        (200, '{"status":"unknown"}'),
    ]
    assert len(double.ledger("received", tool="pay", probe=None)) == 1


def test_tool_plays_recordings(tools, tmp_path):
    recorded = tmp_path / "tools.jsonl"
    lines = [
        {"id": "r1", "calls": [{"tool": "read", "args": {"n": 1.0}, "content": c} for c in ("old", "new")]},
        {"id": "r2", "calls": [{"tool": "read", "args": {"n": 1}, "content": "other"}]},
    ]
    recorded.write_text("".join(json.dumps(line) + "\n" for line in lines))
    double = tools(recorded=[recorded])
    assert call(double, "read", {"n": 1}, "k1", X_Myelin_Run="r1")[1] == "old"
    assert call(double, "read", {"n": 1}, "k1", X_Myelin_Run="r1")[1] == "old", "the same call once more"
    assert call(double, "read", {"n": 1.0}, "k2", X_Myelin_Run="r1")[1] == "new"
    assert call(double, "read", {"n": 1}, "k3", X_Myelin_Run="r1")[0] == 404, "more calls than recorded"
    assert call(double, "read", {"n": 1}, "k4", X_Myelin_Run="r2")[1] == "other"
    assert call(double, "read", {"n": 1})[1] == "old", "no run: the first of any"
    assert [line["key"] for line in double.ledger("acted")] == ["k1", "k2", "k4", None]


# ---- both ----


@pytest.mark.parametrize(
    "rules, why",
    [
        ("{", "bad.json:1"),
        ("{}", "array of rules"),
        ('[{"answer": {}, "macth": {}}]', "macth"),
        ('[{"match": {"tol": 1}, "answer": {}}]', "tol"),
        ('[{"answer": {"contnt": 1}}]', "contnt"),
        ('[{"match": {}}]', "a rule is"),
    ],
)
@pytest.mark.parametrize("program", ["model_double", "tool_double"])
def test_bad_scripts_are_named(tmp_path, program, rules, why):
    (tmp_path / "bad.json").write_text(rules)
    done = subprocess.run([BUILD / "tests" / program, "--script", tmp_path], capture_output=True, text=True, timeout=5)
    assert done.returncode == 1 and why in done.stderr and "bad.json" in done.stderr


def test_many_wait_at_once(tools):
    """2,000 requests wait in one thread, all are answered on time, and others are served meanwhile."""
    double = tools([{"match": {"tool": "slow"}, "answer": {"delay_ms": 500, "result": 1}}])
    text = b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    open_sockets = [socket.create_connection(("127.0.0.1", double.port)) for _ in range(2000)]
    started = time.monotonic()
    for s in open_sockets:
        s.sendall(text)
    assert call(double, "crm", {})[0] == 200
    assert time.monotonic() - started < 0.5
    assert all(s.recv(4096).startswith(b"HTTP/1.1 200") for s in open_sockets)
    assert time.monotonic() - started < 2.5
    for s in open_sockets:
        s.close()
    with open(f"/proc/{double.process.pid}/status") as status:
        assert "Threads:\t1\n" in status.read()


@pytest.mark.skipif("MYELIN_KAFKA" not in os.environ, reason="MYELIN_KAFKA: no broker")
def test_plain_loop_sends_twice(tools):
    """The demo's control: killed while its call is in flight and started again, it calls again; then it is done."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    admin_module = pytest.importorskip("confluent_kafka.admin")
    brokers, name = os.environ["MYELIN_KAFKA"], f"plain-{uuid.uuid4()}"
    topics = [f"{name}.in", f"{name}.out"]
    admin = admin_module.AdminClient({"bootstrap.servers": brokers})
    for created in admin.create_topics([admin_module.NewTopic(topic, 1, 1) for topic in topics]).values():
        created.result()
    producer = confluent_kafka.Producer({"bootstrap.servers": brokers})
    producer.produce(topics[0], b'{"to": "jane@acme.example"}')
    producer.flush()
    double = tools([{"match": {"tool": "send", "nth": 1}, "answer": {"act_and_not_answer": "hold"}}])
    options = ["--brokers", brokers, "--group", name, "--in", topics[0], "--out", topics[1], "--url", f"{double.url}/send"]
    for event in ("acted", "answered"):
        loop = subprocess.Popen([BUILD / "tests" / "plain_loop", *options])
        try:
            double.wait_for(event, seconds=20)
            if event == "answered":
                consumer = confluent_kafka.Consumer({"bootstrap.servers": brokers, "group.id": name + "-reader"})
                consumer.assign([confluent_kafka.TopicPartition(topics[1], 0, confluent_kafka.OFFSET_BEGINNING)])
                messages = consumer.consume(1, 10)
                consumer.close()
                assert json.loads(messages[0].value())["status"] == "sent"
        finally:
            loop.kill()
            loop.wait()
    assert len(double.ledger("acted", tool="send")) == 2
    admin.delete_topics(topics)
