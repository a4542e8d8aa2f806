"""What a group has committed, read with nothing of the worker's code: the offset, and the map of what is done above it."""

import base64
import io
import socket
import struct
import zlib

from harness import wait_until

NOT_COORDINATOR, UNSTABLE = 16, 88  # another broker knows; a transaction is open


def read_map(text, committed):
    """(commit_seq, what is done above) as the text's own description says, with nothing of the worker's code."""
    version, seq, *rest = text.split(" ")
    assert version == "1" and len(text) <= 4096
    if not rest:
        return int(seq), set()
    data = base64.b64decode(rest[0], validate=True)
    head, crc = data[:-4], int.from_bytes(data[-4:], "big")
    assert zlib.crc32(struct.pack(">qq", committed, int(seq)) + head) == crc
    kind, span, body = head[0], int.from_bytes(head[1:3], "big"), head[3:]
    if kind == 0:
        done = {i for i in range(span) if body[i >> 3] >> (i & 7) & 1}
    else:
        done, at, length, shift, is_done = set(), 0, 0, 0, False
        for byte in body:
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if is_done:
                    done |= set(range(at, at + length))
                at, length, shift, is_done = at + length, 0, 0, not is_done
        assert at == span
    return int(seq), {committed + i for i in done}


def fetch_offset(broker, space, topic, partition):
    """(offset, metadata, error): OffsetFetch version 7, which waits for open transactions. The Python client reads past the end
    of the metadata (no NUL ends it), so this is the protocol itself."""
    def short(text):
        return bytes([len(text) + 1]) + text.encode()

    body = (struct.pack(">hhih", 9, 7, 1, -1) + b"\0" + short(space.name) + b"\2" + short(topic) + b"\2"
            + struct.pack(">i", partition) + b"\0\1\0")
    host, port = broker.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        with connection.makefile("rb") as stream:
            answer = io.BytesIO(stream.read(*struct.unpack(">i", stream.read(4))))

    def varint():
        value = shift = 0
        while (byte := answer.read(1)[0]) >= 0x80:
            value, shift = value | (byte & 0x7F) << shift, shift + 7
        return value | byte << shift

    answer.read(4 + 1 + 4)  # correlation, tags, throttle
    if varint() == 1:  # no topic, but an error
        return -1, "", *struct.unpack(">h", answer.read(2))
    assert answer.read(varint() - 1).decode() == topic and varint() == 2
    _, offset, _ = struct.unpack(">iqi", answer.read(16))
    metadata = answer.read(varint() - 1).decode("ascii")
    return offset, metadata, *struct.unpack(">h", answer.read(2))


def committed(space, partition=0, topic="steps.default"):
    """(the committed offset, commit_seq, what is done above)."""
    found = []

    def stable():
        for broker in space.env["MYELIN_KAFKA"].split(","):
            found[:] = fetch_offset(broker, space, f"{space.name}.{topic}", partition)
            if found[2] != NOT_COORDINATOR:
                break
        assert found[2] in (0, UNSTABLE), found
        return found[2] == 0

    wait_until("the committed offset is stable", stable)
    return found[0], *read_map(found[1] or "1 0", found[0])
