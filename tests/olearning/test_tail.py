"""`tail` shows every topic of a run, and what nobody can read."""

import json

import numpy as np
import pytest

from learning.codecs import write_values
from olearning.tail import Tail, as_line, as_map
from schemas.blocks import CODECS, DeltaBlock, codec
from schemas.wire import encode
from streams.processor import Record, Send
from tests.olearning.watched import finished
from tests.plane import NS


@pytest.fixture(scope="module")
def plane():
    plane, _ = finished()
    plane.memory.append(Send(f"{NS}.east.registrations", b"\xff\x00garbage\x1b[31m", "k\x1b[31m"))
    plane.memory.run(limit=500)
    return plane


def tail(plane, name: str, **more) -> tuple[list[str], object]:
    out: list[str] = []
    host = plane.memory.host(lambda life: Tail(name, out.append, **more))
    plane.memory.run(lambda: host.stopped is not None, 1_000)
    return out, host


def test_every_topic_whole(plane):
    for name, partitions in sorted(plane.memory.topics.items()):
        there = sum(map(len, partitions))
        out, host = tail(plane, name)
        if "metrics" not in name and "announcements" not in name:  # these go on meanwhile
            assert len(out) == there, name
        assert host.stopped.ok
        assert not any("\n" in line or "\x1b" in line for line in out)
        lines, _ = tail(plane, name, as_json=True)
        for line in lines:
            entry = json.loads(line)
            assert entry["topic"] == name
            assert "fields" in entry or entry["type"] == "unreadable"


def test_the_letter_keeps_its_own_place(plane):
    out, _ = tail(plane, f"{NS}.global.dead-letters", as_json=True)
    entry = json.loads(out[0])
    assert entry["topic"] == f"{NS}.global.dead-letters"
    assert entry["fields"]["topic"] == f"{NS}.east.registrations"


def test_garbage_is_shown_as_such(plane):
    out, _ = tail(plane, f"{NS}.east.registrations")
    (bad,) = [line for line in out if "unreadable" in line]
    assert "hex=ff0067" in bad
    assert "\\x1b" in bad
    assert "reason=" in bad


def test_tensors_are_told_by_norm():
    data = np.array([3, -4], "<i4")
    block = DeltaBlock("toy", 1, 0, "d", 0, "int32", 2, 1, 1, 0, data.data.cast("B"))
    record = Record(f"{NS}.east.deltas.toy", 1, 7, "d", encode(block), 0)
    assert as_map(record)["fields"]["data"] == {"dtype": "int32", "length": 2, "l2": 20.0}
    assert "data=int32[2] |20|" in as_line(record)
    assert as_line(record).startswith("1970-01-01 00:00:00.000 1@7 d delta-block ")
    absurd = DeltaBlock("toy", 1, 0, "d", 0, "int32", 10**6, 1, 1, 0, memoryview(b"abc"))
    assert "3 bytes 616263" in as_line(Record(f"{NS}.east.deltas.toy", 1, 7, "d", encode(absurd), 0))


@pytest.mark.parametrize("name", CODECS)
def test_a_delta_is_told_by_norm_whatever_its_codec(name):
    data, exponent = write_values(np.array([3.0, -4.0]), codec(name), 0, 100.0, np.random.default_rng(0))
    block = DeltaBlock("toy", 1, 0, "d", 0, name, exponent + 2, 1, 1, 0, data)
    tensor = as_map(Record(f"{NS}.east.deltas.toy", 1, 7, "d", encode(block), 0))["fields"]["data"]
    assert tensor == {"dtype": f"int{codec(name).bits}", "length": 2, "l2": 20.0}


def test_tombstones_and_strangers():
    assert " tombstone" in as_line(Record(f"{NS}.global.tasks", 0, 0, "toy", None, 0))
    assert "not in the topic table" in as_line(Record("elsewhere", 0, 0, None, b"x", 0))


def test_where_it_begins_and_ends(plane):
    name = f"{NS}.east.ledger"
    end = len(plane.memory.topics[name][0])
    assert len(tail(plane, name, last=3)[0]) == 3
    assert len(tail(plane, name, limit=2)[0]) == 2
    assert len(tail(plane, name, offsets={0: end - 4})[0]) == 4
    assert tail(plane, name, from_start=False)[0] == []


def test_it_follows(plane):
    name = f"{NS}.east.receipts"
    out, host = tail(plane, name, follow=True, from_start=False)
    assert host.alive
    plane.memory.append(Send(name, b"\x00", "x", partition=2))
    plane.memory.run(limit=100)
    assert len(out) == 1
    assert " 2@" in out[0]
    host.close()
