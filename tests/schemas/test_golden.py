"""What is on a topic today is read by every later release: the bytes of each message type are fixed here."""

import msgpack
import msgspec
import pytest

from schemas import topics
from schemas.wire import HEADERS, encode
from tests.schemas.golden import BY_TAG, EXAMPLES, ROUTES, TRAVELS, main, stored, tag

GOLDEN = stored()


def holes(value, where=""):
    """Fields of an example that are empty, or at their default, so that the bytes would not show them."""
    if not isinstance(value, msgspec.Struct):
        for item in value if isinstance(value, tuple) else ():
            yield from holes(item, where)
        return
    for field in msgspec.structs.fields(type(value)):
        inner = getattr(value, field.name)
        if inner is None or inner in ((), {}, b"", "") or inner == field.default:
            yield f"{where}{type(value).__name__}.{field.name}"
        yield from holes(inner, where)


def test_every_type_that_travels_has_golden_bytes():
    assert set(TRAVELS) == set(BY_TAG) == set(GOLDEN), "add an example in golden.py, then `make golden`"
    assert len(BY_TAG) == len(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=tag)
def test_examples_leave_no_field_out(example):
    assert list(holes(example)) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=tag)
def test_encodes_to_the_golden_bytes(example):
    assert encode(example).hex() == GOLDEN[tag(example)]


@pytest.mark.parametrize(("name", "kind"), ROUTES, ids=lambda v: v if isinstance(v, str) else tag(v))
def test_golden_bytes_read_back_from_every_topic_that_carries_them(name, kind):
    assert topics.read(name, bytes.fromhex(GOLDEN[tag(kind)]), HEADERS) == BY_TAG[tag(kind)]


@pytest.mark.parametrize("example", EXAMPLES, ids=tag)
def test_any_messagepack_reader_sees_a_plain_map(example):
    seen = msgpack.unpackb(bytes.fromhex(GOLDEN[tag(example)]), strict_map_key=False)
    assert list(seen) == ["type", *example.__struct_fields__]
    assert seen["type"] == tag(example)


def test_a_difference_is_said_and_not_written(monkeypatch, tmp_path, capsys):
    file = tmp_path / "golden.json"
    file.write_text('{"rules": "00"}')
    monkeypatch.setattr("tests.schemas.golden.FILE", file)
    monkeypatch.setattr("sys.argv", ["golden"])
    assert main() == 1
    assert file.read_text() == '{"rules": "00"}'
    assert "rules\n  was 00\n" in capsys.readouterr().out
