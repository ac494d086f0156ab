"""Slots that owe some of a model's blocks, and updates that weigh them one by one, as the fold takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas import sets
from schemas.blocks import CODECS
from schemas.facts import LEADERSHIP, Admitted, Slot, Taken, Update
from schemas.task import Upload
from streams.ledger import Zone, cost, restore, snapshot
from tests.streams.book import MANIFEST, Book, claim, opened, zone
from tests.streams.test_ledger import running

SIZES = (4, 6, 100)


def partial(**more: object) -> tuple[Book, int]:
    book = zone()
    token = claim(book, LEADERSHIP)
    o = opened(token, sizes=SIZES, partial=True, upload=Upload("int8"), cost=1000, **more)
    book.ok(replace(o, cost=4 * sum(SIZES) + Upload("int8").bytes(SIZES)))
    return book, token


def admit(book: Book, token: int, *owed: bytes) -> str:
    first = len(book.state.tasks["t"].rounds[1].devices)
    slots = tuple(Slot("t", 1, first + i, f"d{first + i}", s) for i, s in enumerate(owed))
    return book.add(Admitted(token, book.state.admitted, {}, slots))


def test_a_round_knows_what_each_slot_owes_also_from_a_checkpoint() -> None:
    book, token = partial()
    assert admit(book, token, b"", sets.bitmap((0, 2), 3), sets.bitmap(range(3), 3)) == ""
    for state in (book.state, restore(snapshot(book.state), Zone)):
        r = state.tasks["t"].rounds[1]
        assert [r.owed(i) for i in range(3)] == [3, 2, 3]
        assert [[b for b in range(3) if sets.has(r.set_of(i), b)] for i in range(3)] == [[0, 1, 2], [0, 2], [0, 1, 2]]
    assert book.state.spent["default"].bytes == 2 * (4 * 110 + 110) + 4 * 104 + 104
    o = book.state.tasks["t"].rounds[1].opened
    assert o
    assert cost(o, sets.bitmap((1,), 3)) == 4 * 6 + 6


@pytest.mark.parametrize(
    ("owed", "why"),
    [(b"\x00", "it is empty"), (b"\x81", "the last one is 2"), (b"\x80\x00", "has 1 bytes, not 2")],
)
def test_a_slot_that_owes_no_set_of_blocks_is_void(owed: bytes, why: str) -> None:
    book, token = partial()
    assert why in admit(book, token, b"", owed)


def test_a_round_of_whole_models_has_no_slots_of_parts() -> None:
    book = zone()
    token = claim(book, LEADERSHIP)
    book.ok(opened(token, sizes=SIZES))
    assert "whole models alone" in admit(book, token, sets.bitmap((0,), 3))
    assert admit(book, token, b"") == ""


def test_what_a_zone_did_adds_up_block_by_block() -> None:
    book, token = running()
    n = len(book.state.tasks["t"].layout.sizes)
    zone, start = "east", book.state.tasks["t"].taken["east"]

    def taken(a: int, b: int, samples: int, weights: tuple[int, ...]) -> Taken:
        return Taken(token, "t", 1, {zone: (a, b)}, (Update(zone, 1, MANIFEST, samples, 1, 0, weights=weights),))

    assert "weighs other blocks" in book.add(taken(start, start + 1, 3, (1,) * (n + 1)))
    book.ok(taken(start, start + 1, 3, ()))
    book.ok(taken(start + 1, start + 2, 4, tuple(range(n))))
    assert book.state.tasks["t"].updates[zone].weigh(n) == tuple(3 + b for b in range(n))
    assert book.state.tasks["t"].updates[zone].samples == 7


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_a_set_reads_back(case: tuple[int, set[int]]) -> None:
    n, blocks = case
    made = sets.bitmap(blocks, n)
    assert sets.flaw(made, n) == ""
    assert sets.members(made, n) == tuple(sorted(blocks))
    assert sets.size(made, n) == len(blocks)
    assert {b for b in range(n) if sets.has(made, b)} == blocks
    assert sets.flaw(made + b"\x00", n)
    if n % 8:
        assert sets.flaw(made[:-1] + bytes([made[-1] | 1]), n)
    with pytest.raises(ValueError, match=f"not {n}"):
        sets.bitmap([n], n)


@given(
    st.lists(st.tuples(st.integers(1, 2**20), st.booleans()), min_size=1, max_size=40), st.sampled_from(sorted(CODECS))
)
def test_a_slot_costs_its_blocks_there_and_its_delta_of_them_back(model: list[tuple[int, bool]], codec: str) -> None:
    _, token = partial()
    sizes, upload = tuple(n for n, _ in model), Upload(codec)
    mine = [n for n, there in model if there]
    owed = sets.bitmap((b for b, (_, there) in enumerate(model) if there), len(model))
    o = opened(token, sizes=sizes, partial=True, upload=upload, cost=1)
    assert cost(o, owed) == 4 * sum(mine) + upload.bytes(mine)
