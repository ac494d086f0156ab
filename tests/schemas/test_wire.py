"""Bytes in, typed messages or `Malformed` out; nothing else."""

from contextlib import suppress
from typing import Annotated, Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import blocks, facts, messages, topics
from schemas.wire import HEADERS, MAJOR, Malformed, Message, Part, checksum, decode, encode, kebab
from tests.schemas.golden import EXAMPLES, ROUTES, topic_name

NAMES = [topic_name(kind, scope) for kind in topics.TABLE for scope in kind.scopes]
REGISTRATIONS = "demo.asia.registrations"


def registration(**changes) -> bytes:
    return msgpack.packb({"type": "registration", "device": "d-1", "task": "wine", "round": 4} | changes)


def test_unknown_fields_are_ignored():
    assert topics.read(REGISTRATIONS, registration(mood=[1, {"a": None}])) == messages.Registration("d-1", "wine", 4)


def test_missing_fields_take_their_defaults():
    assert topics.read("demo.asia.checkins", msgpack.packb({"type": "check-in", "device": "d"})) == messages.CheckIn(
        "d", {}
    )


def test_another_major_version_is_refused_in_words():
    assert topics.read(REGISTRATIONS, registration(), (("schema-version", b"1.7"), ("trace", b"\xff")))
    for version in (b"2", b"2.0", b"11", b"", b"\xff"):
        with pytest.raises(Malformed, match=rf"schema version .* is not known here: this reads major {MAJOR}"):
            topics.read(REGISTRATIONS, registration(), (("schema-version", version),))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty record"),
        (b"", "empty record"),
        (b"\xc1", "malformed"),
        (registration()[:-1], "truncated"),
        (registration() + b"\x00", "trailing"),
        (b"\x91" * 100_000, "array"),
        (b"\x82\xa4type\xacregistration\xa1x" + b"\x91" * 100_000, "recursion"),
        (b"\x82\xa4type\xacregistration\xa1x\xdd\xff\xff\xff\xff", "truncated"),
        (msgpack.packb([1, 2]), "array"),
        (registration(type="check-in"), "Invalid value 'check-in'"),
        (msgpack.packb({"type": "registration", "device": "d-1", "task": "wine"}), "missing required field `round`"),
        (registration(round=-1), r">= 0 - at `\$.round`"),
        (registration(round=4.0), r"got `float` - at `\$.round`"),
        (registration(round=True), r"got `bool` - at `\$.round`"),
        (registration(round="4"), r"got `str` - at `\$.round`"),
        (registration(round=None), r"got `null` - at `\$.round`|got `None` - at `\$.round`"),
        (registration(device=b"d-1"), r"got `bytes` - at `\$.device`"),
        (registration(device=""), r"length >= 1 - at `\$.device`"),
        (registration(device="d" * 201), r"length <= 200 - at `\$.device`"),
        (registration(task="Wine"), r"at `\$.task`"),
        (registration(task="wine\n"), r"at `\$.task`"),
    ],
)
def test_what_cannot_be_read_says_why(value, reason):
    with pytest.raises(Malformed, match=reason):
        topics.read(REGISTRATIONS, value)


def test_a_topic_of_several_types_asks_which():
    with pytest.raises(Malformed, match="missing required field `type`"):
        topics.read("demo.asia.admissions", msgpack.packb({"device": "d"}))


def test_no_negative_shard_in_a_fact():
    bad = msgpack.packb({"type": "closed", "token": 1, "task": "wine", "round": 1, "why": "", "ends": {-1: 3}})
    with pytest.raises(Malformed, match="ends"):
        topics.read("demo.asia.ledger", bad)


@pytest.mark.parametrize("name", ["demo.asia.shards", "demo.Asia.checkins", "demo.asia.checkins.", "other", ""])
def test_a_topic_that_carries_nothing_of_ours(name):
    with pytest.raises(Malformed):
        topics.read(name, registration())


@given(name=st.sampled_from(NAMES), value=st.binary(max_size=300))
def test_garbage_is_malformed(name, value):
    with pytest.raises(Malformed):
        topics.read(name, value)


@given(st.sampled_from(ROUTES), st.data())
def test_damaged_messages_are_read_or_malformed(route, data):
    name, kind = route
    value = bytearray(encode(next(e for e in EXAMPLES if type(e) is kind)))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    value = value[: data.draw(st.integers(0, len(value)))]
    with suppress(Malformed):
        assert isinstance(topics.read(name, bytes(value)), Message)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(-2, 9), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(ROUTES), st.data())
def test_any_value_in_any_field_is_read_or_malformed(route, data):
    name, kind = route
    tree = msgpack.unpackb(encode(next(e for e in EXAMPLES if type(e) is kind)), strict_map_key=False)
    tree[data.draw(st.sampled_from(list(tree)))] = data.draw(anything)
    with suppress(Malformed):
        assert encode(topics.read(name, msgpack.packb(tree)))


BULK = [e for e in EXAMPLES if "data" in e.__struct_fields__ and not isinstance(e, messages.Announcement)]


@pytest.mark.parametrize("example", BULK, ids=lambda e: kebab(type(e).__name__))
def test_tensor_bytes_are_not_copied(example):
    values = np.arange(blocks.BLOCK, dtype="<i4")
    record = encode(msgspec.structs.replace(example, data=memoryview(values)))
    for source in (record, memoryview(record)):
        got = np.frombuffer(decode(source, (type(example),)).data, dtype="<i4")
        assert np.shares_memory(got, np.frombuffer(record, dtype=np.uint8))
        assert np.array_equal(got, values)


@pytest.mark.parametrize("name", ["stretches", "ranges", "seats", "abilities"])
def test_the_order_in_which_a_map_was_filled_does_not_show(name):
    def build(order):
        return {
            "stretches": lambda: facts.Committed(
                "t", 1, {k: facts.Stretch(0, 0, 1) for k in order}, facts.Counts(len(order))
            ),
            "ranges": lambda: facts.Admitted(1, 0, dict.fromkeys(order, (0, 1)), ()),
            "seats": lambda: facts.Claimed("h", "l", {k - 1: 0 for k in order}),
            "abilities": lambda: messages.CheckIn("d", {str(k): k for k in order}),
        }[name]()

    one, other = build([0, 3, 128, 9, 70_000, 10]), build([10, 9, 70_000, 3, 128, 0])
    assert one == other
    assert encode(one) == encode(other)
    assert decode(encode(one), (type(one),)) == one


class Inner(Part):
    seen: frozenset[int]
    plain: int = 0


class Outer(Message):
    """Each way in which a map or a set can lie in a message."""

    deep: dict[int, tuple[Inner, ...]]
    pair: tuple[int, dict[int, int]]
    perhaps: Inner | None
    rows: list[frozenset[int]]
    told: Annotated[dict[int, int], msgspec.Meta(description="of what it is")]
    anything: Any
    none: Inner | None = None


def test_nor_does_it_wherever_the_map_lies():
    def build(order: list[int]) -> Outer:
        counts, seen = dict.fromkeys(order, 1), frozenset(order)
        return Outer(
            {k: (Inner(seen), Inner(frozenset())) for k in order}, (1, counts), Inner(seen), [seen], counts, [counts]
        )

    ways = build([0, 64, 128, 70_000]), build([70_000, 128, 64, 0])
    assert list(ways[0].rows[0]) != list(ways[1].rows[0]), "else this shows nothing of sets"
    assert len({encode(x) for x in ways}) == 1
    assert len({msgspec.msgpack.encode(x) for x in ways}) == 2, "nor of maps"
    assert decode(encode(ways[0]), (Outer,)) == ways[1]


def test_every_type_has_a_name_of_its_own():
    assert kebab("EpochOpened") == "epoch-opened"
    tags = {e.__struct_config__.tag for e in EXAMPLES}
    assert len(tags) == len({type(e) for e in EXAMPLES})


def test_headers_are_readable_text():
    assert HEADERS == (("content-type", b"application/msgpack"), ("schema-version", b"1"))


def test_checksum_is_xxh3():
    assert checksum(b"") == 0x2D06800538D394C2  # XXH3_64bits of nothing, as its specification gives it
    assert checksum(memoryview(b"abc")) == checksum(b"abc") != checksum(b"abd")
