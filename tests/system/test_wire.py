"""The wire format against another Avro library (fastavro): same fingerprints, same bytes, same values, both directions, and
through older and newer versions of the schemas. No server is needed: build/tests/wire_tool speaks for Myelin."""

import copy
import io
import json
import os
import random
import subprocess
from pathlib import Path

import fastavro
import pytest
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MYELIN_BUILD", ROOT / "build"))
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "schemas").glob("*.avsc"))}
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


class Tool:
    """build/tests/wire_tool: a line in, a line of JSON out."""

    def __init__(self):
        self.process = subprocess.Popen([BUILD / "tests" / "wire_tool"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def encode(self, name, value):
        answer = self.ask("encode", name, json.dumps(value))
        assert "hex" in answer, answer
        return bytes.fromhex(answer["hex"])

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0


@pytest.fixture
def tool():
    tool = Tool()
    yield tool
    tool.close()


def plain(schema):
    """Without logical types: times stay numbers. The fingerprint is the same."""
    if isinstance(schema, list):
        return [plain(branch) for branch in schema]
    if isinstance(schema, dict):
        if "logicalType" in schema:
            return schema["type"]
        return {key: plain(value) if key in ("type", "fields", "items", "values") else value for key, value in schema.items()}
    return schema


def print_of(schema):
    """The fingerprint as a number, in hex."""
    little = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
    return bytes.fromhex(little)[::-1].hex()


def head(schema):
    return b"\xc3\x01" + bytes.fromhex(print_of(schema))[::-1]


def short(name):
    return name.rsplit(".", 1)[-1]


def named_in(schema):
    """The named types that are defined inside of a schema."""
    if isinstance(schema, list):
        return {name: named for branch in schema for name, named in named_in(branch).items()}
    if not isinstance(schema, dict):
        return {}
    own = {schema["name"]: schema} if schema["type"] in ("record", "enum", "fixed") else {}
    parts = [field["type"] for field in schema.get("fields", [])] + [schema.get("items"), schema["type"]]
    return own | named_in(parts)


def outline(schema):
    """A type with the names of those that it defines inside in their places."""
    if isinstance(schema, list):
        return [outline(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if "name" in schema and "symbols" in schema or "fields" in schema:
        return schema["name"]
    return {key: outline(value) if key in ("type", "items", "values") else value for key, value in schema.items()}


class Make:
    """Random values of a schema: as fastavro writes them, and as Myelin's JSON has them."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.named = {}

    def number(self, bits):
        size = self.random.choice((3, 8, 16, bits))
        return self.random.randint(-(2 ** (size - 1)), 2 ** (size - 1) - 1)

    def text(self):
        size = self.random.choice((0, 1, 5, 63, 64, 300))
        return "".join(self.random.choice('az09 "\\\n\u00e9\u20ac\U0001f600{}') for _ in range(size))

    def record(self, schema):
        self.named.update(named_in(schema))
        pairs = {field["name"]: self.value(field["type"]) for field in schema["fields"]}
        return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}

    def value(self, schema):
        """(for fastavro, for Myelin)"""
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(schema, list):
            branch = self.random.choice(schema)
            ours, theirs = self.value(branch)
            if isinstance(branch, dict) and branch["type"] == "record" and len(schema) > 2:  # with null alone it needs no name
                return ("myelin." + branch["name"], ours), {branch["name"]: theirs}
            return ours, theirs
        if isinstance(kind, (dict, list)):
            return self.value(kind)
        if kind == "record":
            return self.record(schema)
        if kind == "enum":
            symbol = self.random.choice([symbol for symbol in schema["symbols"] if symbol != "unknown"])
            return symbol, symbol
        if kind == "array":
            items = [self.value(schema["items"]) for _ in range(self.random.choice((0, 1, 2, 70)))]
            return [item[0] for item in items], [item[1] for item in items]
        if kind == "map":
            size = self.random.choice((0, 1, 3))
            return {str(i): self.value(schema["values"])[0] for i in range(size)}, None
        if kind == "fixed":
            return self.random.randbytes(schema["size"]), None
        if kind == "bytes":
            value = self.random.randbytes(self.random.choice((0, 1, 300)))
            return value, value.decode("latin-1")
        if kind in ("float", "double"):
            return 1.5, None
        if kind not in PRIMITIVES:
            return self.value(self.named[short(kind)])
        value = {
            "null": lambda: None,
            "boolean": lambda: self.random.random() < 0.5,
            "int": lambda: self.number(32),
            "long": lambda: self.number(64),
            "string": self.text,
        }[kind]()
        return value, value


def write(schema, value):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse_schema(copy.deepcopy(schema)), value)
    return out.getvalue()


def as_myelin(value):
    """What fastavro read (with record names in unions), as Myelin's JSON has it."""
    if isinstance(value, tuple):
        return {short(value[0]): as_myelin(value[1])}
    if isinstance(value, dict):
        return {key: as_myelin(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_myelin(item) for item in value]
    return value.decode("latin-1") if isinstance(value, bytes) else value


def read(data, written, reader=None):
    source = io.BytesIO(data)
    reader = parse_schema(copy.deepcopy(reader)) if reader else None
    value = fastavro.schemaless_reader(source, parse_schema(copy.deepcopy(written)), reader, return_record_name=True, return_record_name_override=True)
    assert source.read() == b"", "bytes left over"
    return as_myelin(value)


ODD_SCHEMAS = [
    "int",
    {"type": "string"},
    {"type": "long", "logicalType": "timestamp-millis"},
    ["null", {"type": "map", "values": {"type": "array", "items": "double"}}],
    {"type": "fixed", "name": "Digest", "size": 16, "namespace": "a.b", "aliases": ["x"]},
    {"type": "enum", "name": "a.b.E", "namespace": "ignored", "symbols": ["X", "Y"], "default": "X", "doc": "d"},
    {
        "type": "record", "name": "Tree", "namespace": "n", "doc": "recursive",
        "fields": [
            {"name": "left", "type": ["null", "Tree"], "default": None, "order": "ignore"},
            {"name": "other", "type": {"type": "record", "name": "m.Other", "fields": [
                {"name": "inside", "type": {"type": "enum", "name": "Kind", "symbols": ["A"]}},
                {"name": "again", "type": "Kind"}, {"name": "back", "type": ["null", "n.Tree"]}]}},
            {"name": "far", "type": "m.Kind"},
        ],
    },
    {"type": "record", "name": "Plain", "fields": [{"name": "f", "type": {"type": "array", "items": "Plain"}}]},
]  # fmt: skip


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), *ODD_SCHEMAS], ids=lambda schema: schema.get("name") if isinstance(schema, dict) else str(schema)[:8])
def test_fingerprint(tool, schema):
    answer = tool.ask("canonical", json.dumps(schema))
    assert answer == {"canonical": to_parsing_canonical_form(schema), "fingerprint": print_of(schema)}


def test_schemas_explain_themselves():
    """Every type and field says what it means; an enum ends with its default; a type has one definition everywhere."""
    defined = {}
    for schema in SCHEMAS.values():
        assert schema["namespace"] == "myelin"
        for name, named in named_in(schema).items():
            assert named["doc"].endswith("."), name
            outlined = {**named, "fields": [outline(field) for field in named.get("fields", [])]}
            assert defined.setdefault(name, outlined) == outlined, name
            if named["type"] == "enum":
                assert named["symbols"][-1] == named["default"] == "unknown", name
            for field in named.get("fields", []):
                assert field["doc"].endswith("."), f"{name}.{field['name']}"
                if field["name"].endswith("_at_ms") or field["name"] in ("at_ms", "until_ms", "since_ms"):
                    assert field["type"] == {"type": "long", "logicalType": "timestamp-millis"}, f"{name}.{field['name']}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_same_bytes_and_values(tool, name):
    schema = plain(SCHEMAS[name])
    assert print_of(schema) == print_of(SCHEMAS[name])
    for seed in range(40):
        theirs, ours = Make(seed).record(schema)
        data = write(schema, theirs)
        assert tool.encode(name, ours) == head(schema) + data
        assert tool.ask("decode", (head(schema) + data).hex()) == {"name": name, "value": ours}
        assert read(data, schema) == ours


def test_times_are_times(tool):
    """A reader in another language gets a date, and may write one."""
    schema = SCHEMAS["RunClosed"]
    value = {"run": "r1", "status": "completed", "reason": "completed", "output": None, "at_ms": 1795369201123}
    data = tool.encode("RunClosed", value)
    times = fastavro.schemaless_reader(io.BytesIO(data[10:]), parse_schema(copy.deepcopy(schema)))
    assert times["at_ms"].isoformat() == "2026-11-22T17:40:01.123000+00:00"
    assert head(schema) + write(schema, times) == data


# ---- versions ----


def records_of(schema):
    """All records in a schema, outermost first."""
    if isinstance(schema, list):
        return [record for branch in schema for record in records_of(branch)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema["type"] == "record" else []
    inner = [field["type"] for field in schema.get("fields", [])] + [schema.get("items", [])]
    inner += [schema["type"]] if isinstance(schema["type"], (dict, list)) else []
    return own + [record for part in inner for record in records_of(part)]


def defines(schema):
    """Names that a type defines: they may be referred to later, so it cannot simply go."""
    text = json.dumps(schema)
    return '"name"' in text


ADDED = [
    {"name": "new_text", "type": "string", "default": ""},
    {"name": "new_maybe", "type": ["null", "double", "string"], "default": None},
    {"name": "new_map", "type": {"type": "map", "values": "bytes"}, "default": {}},
    {"name": "new_number", "type": "float", "default": 0},
    {"name": "new_items", "type": {"type": "array", "items": {"type": "record", "name": "NAME", "fields": [
        {"name": "a", "type": "long"}, {"name": "b", "type": {"type": "fixed", "name": "NAMEFixed", "size": 3}}]}}, "default": []},
]  # fmt: skip


def change(schema, chance):
    """Another version of a schema, by the rules of schemas/README.md."""
    schema = copy.deepcopy(schema)
    for count, record in enumerate(records_of(schema)):
        if chance.random() < 0.5:
            removable = [field for field in record["fields"] if "default" in field and not defines(field["type"])]
            for field in removable:
                if chance.random() < 0.3:
                    record["fields"].remove(field)
        for field in record["fields"]:
            if field["type"] == "int" and chance.random() < 0.2:
                field["type"] = "long" if chance.random() < 0.5 else ["null", "int"]
            elif field["type"] == "string" and chance.random() < 0.2:
                field["type"] = ["null", "string"]
            elif isinstance(field["type"], dict) and field["type"]["type"] == "enum" and chance.random() < 0.3:
                field["type"]["symbols"].insert(chance.randrange(3), "new_symbol")
        for number, added in enumerate(ADDED):
            if chance.random() < 0.2:
                text = json.dumps(added).replace("NAME", f"New{count}x{number}")
                record["fields"].insert(chance.randrange(len(record["fields"]) + 1), json.loads(text))
    return schema


class MakeReadable(Make):
    """Values that our version can read: no new symbol, no null where it needs a value, numbers of 32 bits."""

    def value(self, schema):
        if isinstance(schema, dict) and schema["type"] == "enum" and "new_symbol" in schema["symbols"]:
            schema = {**schema, "symbols": [symbol for symbol in schema["symbols"] if symbol != "new_symbol"]}
        if isinstance(schema, list) and schema in (["null", "int"],):
            schema = "int"
        return super().value(schema)

    def record(self, schema):
        pair = super().record(schema)
        for field in schema["fields"]:
            if field["type"] == "long" and not field["name"].endswith("_ms"):
                pair[0][field["name"]] = self.number(32)
            if field["type"] == ["null", "string"] and pair[0][field["name"]] is None and "default" not in field:
                pair[0][field["name"]] = "was a string"
        return pair


@pytest.mark.parametrize("name", SCHEMAS)
def test_other_versions(tool, name):
    """Written by fastavro with another version, read by Myelin: as fastavro itself reads it with our schema; and back."""
    ours = plain(SCHEMAS[name])
    wide = json.loads(json.dumps(ours).replace('"int"', '"long"'))  # Myelin also takes a long that fits an int
    for seed in range(60):
        other = change(ours, random.Random(seed))
        value, _ = MakeReadable(seed).record(other)
        data = write(other, value)
        wrapped = (head(other) + data).hex()
        if seed == 0 and print_of(other) != print_of(ours):
            assert tool.ask("decode", wrapped)["error"] == "retry"
        assert tool.ask("add", json.dumps(other)) == {"ok": True}
        want = read(data, other, wide)
        assert tool.ask("decode", wrapped) == {"name": name, "value": want}, json.dumps(other)


@pytest.mark.parametrize("name", SCHEMAS)
def test_our_bytes_in_other_versions(tool, name):
    """Written by Myelin, read by fastavro through a newer schema with more fields, and through an older one with fewer."""
    ours = plain(SCHEMAS[name])
    for seed in range(20):
        other = copy.deepcopy(ours)
        for record in records_of(other):
            record["fields"] = [field for field in record["fields"] if "default" not in field or defines(field["type"])]
            if seed % 2:
                record["fields"].append({"name": "new_text", "type": "string", "default": "new"})
        _, value = Make(seed).record(ours)
        data = tool.encode(name, value)
        got = read(data[10:], ours, other)
        for key in got:
            if key != "new_text" and not isinstance(value[key], (dict, list)):
                assert got[key] == value[key]
        assert not seed % 2 or got["new_text"] == "new"


def test_unknown_symbol(tool):
    """Another library gives its default; Myelin refuses, and says which."""
    ours = plain(SCHEMAS["RunClosed"])
    newer = copy.deepcopy(ours)
    newer["fields"][1]["type"]["symbols"].insert(0, "exploded")
    data = write(newer, {"run": "r1", "status": "exploded", "reason": None, "output": None, "at_ms": 1})
    assert read(data, newer, ours)["status"] == "unknown"
    assert tool.ask("add", json.dumps(newer)) == {"ok": True}
    answer = tool.ask("decode", (head(newer) + data).hex())
    assert answer["error"] == "poison" and "exploded" in answer["text"] and "status" in answer["text"]


def test_unknown_body(tool):
    ours = plain(SCHEMAS["Fact"])
    newer = copy.deepcopy(ours)
    body = next(field for field in newer["fields"] if field["name"] == "body")
    body["type"].append({"type": "record", "name": "PigFlew", "fields": [{"name": "height", "type": "int"}]})
    value, _ = Make(1).record(ours)
    value["body"] = ("myelin.PigFlew", {"height": 3})
    assert tool.ask("add", json.dumps(newer)) == {"ok": True}
    answer = tool.ask("decode", (head(newer) + write(newer, value)).hex())
    assert answer["error"] == "poison" and "PigFlew" in answer["text"]


@pytest.mark.parametrize("change, says", [
    (lambda fields: fields.pop(0), "no field run"),
    (lambda fields: fields[4].update(type="string"), "at_ms"),
    (lambda fields: fields[1].update(type="string"), "status"),
], ids=["without run", "time as text", "enum as text"])  # fmt: skip
def test_version_that_cannot_be_read(tool, change, says):
    other = copy.deepcopy(plain(SCHEMAS["RunClosed"]))
    change(other["fields"])
    answer = tool.ask("add", json.dumps(other))
    assert answer["error"] == "poison" and says in answer["text"]


def test_a_record_of_tomorrow(tool):
    """Its schema is taken; the record is refused with a reason, not awaited for ever."""
    other = {"type": "record", "name": "Tomorrow", "namespace": "myelin", "fields": [{"name": "a", "type": "int"}]}
    assert tool.ask("add", json.dumps(other)) == {"ok": True}
    answer = tool.ask("decode", (head(other) + write(other, {"a": 1})).hex())
    assert answer["error"] == "poison" and "Tomorrow" in answer["text"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_damaged_bytes(tool, name):
    """Whatever Myelin accepts, the other library reads the same way; what it refuses, it refuses with a reason."""
    schema = plain(SCHEMAS[name])
    chance = random.Random(7)
    refused = 0
    for seed in range(60):
        value, _ = Make(seed).record(schema)
        data = bytearray(write(schema, value))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(min(len(data), 400))] = chance.randrange(256)
        answer = tool.ask("decode", (head(schema) + data).hex())
        if "error" in answer:
            assert answer["error"] == "poison" and answer["text"].startswith(name)
            refused += 1
        else:
            assert answer["value"] == read(bytes(data), schema)
    assert refused > 0
