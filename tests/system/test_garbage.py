"""Any bytes on any topic end as a record in `dead` with its reason, or as a clear error; the good runs beside them finish."""

import random

from harness import Space, wait_until
from history import encode, produce
from test_boundary import CONTRACT, INPUT, NAME, SCRIPT, fast


def garbage():
    """(name, bytes): 40 classes of bad input."""
    ready = {"name": "x", "text": "y"}
    good = encode("SchemaPublished", ready)
    draw = random.Random(7)
    yield "empty", b""
    yield "one byte", b"\xc3"
    yield "magic only", b"\xc3\x01"
    yield "no record after the fingerprint", good[:10]
    yield "unknown fingerprint", b"\xc3\x01" + b"\x11" * 8 + b"\x00" * 20
    yield "wrong magic", b"\xc4\x01" + good[2:]
    yield "wrong version", b"\xc3\x02" + good[2:]
    yield "confluent frame", b"\x00\x00\x00\x00\x01" + good[10:]
    yield "a record that does not belong here", good
    yield "trailing bytes", good + b"\x00"
    yield "json", b'{"run": "x"}'
    yield "text", b"hello"
    yield "invalid utf-8", good[:10] + b"\x04\xff\xfe\x02y"
    yield "negative length", good[:10] + b"\x01y"
    yield "huge length", good[:10] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    yield "unending varint", good[:10] + b"\xff" * 20
    yield "zeroes", b"\x00" * 500
    yield "ones", b"\xff" * 500
    yield "300 KiB", bytes(300 << 10)
    request = {"run": "bad", "request_id": "q", "contract": NAME, "contract_hash": "0" * 64, "input": "{}", "by": "me", "at_ms": 1}
    whole = encode("RunRequested", request)
    for cut in range(11, len(whole) - 1, max(1, len(whole) // 10)):
        yield f"truncated at {cut}", whole[:cut]
    for number in range(12):
        body = bytearray(whole)
        for _ in range(3):
            body[draw.randrange(2, len(body))] = draw.randrange(256)
        yield f"damaged {number}", bytes(body)


def test_any_bytes_on_any_topic(tmp_path):
    with Space(tmp_path, partitions=2) as space:
        tools = space.double("tool_double")
        space.double("model_double", script=fast(SCRIPT))
        space.create().publish(CONTRACT)
        bad = list(garbage())
        assert len(bad) >= 40
        for topic in ("steps.default", "inbox", "control", "waiting"):
            for number, (_, value) in enumerate(bad):
                produce(space, topic, f"bad-{number}", value)
        worker = space.worker("a")
        run = space.start(NAME, INPUT)
        space.wait_approval(run)
        space.cli("approve", run, "approve_final_email")
        space.wait_status(run, "completed")
        assert len(tools.ledger("acted", tool="send")) == 1

        def all_dead():
            letters = space.json("dead", "list")
            return letters if len(letters) >= len(bad) else None

        letters = wait_until("bad records of steps are dead", all_dead, 30, every=0.3)
        assert all(letter["reason"] for letter in letters)
        assert worker.alive()
        assert worker.terminate() == 0
