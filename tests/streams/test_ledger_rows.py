"""A round's devices as they grow: what the fold remembers of a row changes no result, whichever state is folded on."""

from random import Random

from streams.ledger import rounds
from streams.ledger.rounds import _joined_by


def naive(devices: tuple[str, ...], new: list[str]) -> tuple[str, ...]:
    row = (*devices, *new)
    return row, len(set(row)) < len(row)


def test_rows_grow_as_if_nothing_was_remembered() -> None:
    dice = Random(4)
    rows: list[tuple[str, ...]] = [()]
    grew = 0
    for _ in range(3_000):  # any row may go on, an old one as well: a reader that starts from a checkpoint does so
        row = dice.choice(rows[-200:])
        new = [f"d{dice.randrange(400)}" for _ in range(dice.randrange(4))]
        made, twice = _joined_by(row, new)
        assert (made, twice) == naive(row, new)
        if not twice and len(made) < 60:
            rows.append(made)
            grew += 1
    assert grew > 500
    assert len(rounds._NAMES) <= rounds._MOST_NAMES


def test_a_row_that_looks_alike_is_another() -> None:
    rounds._NAMES.clear()
    row, _ = _joined_by(("a",), ["b"])
    other = ("a", "b")
    assert other is not row
    assert _joined_by(row, ["c"]) == _joined_by(other, ["c"]) == (("a", "b", "c"), False)
    assert _joined_by(row, ["c"]) == (
        ("a", "b", "c"),
        False,
    )  # again from the same state: it knows nothing of the c before
