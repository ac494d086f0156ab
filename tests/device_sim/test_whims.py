"""Mishaps: as often as asked, the same for the same names, each for itself."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.whims import Mishap, Whims

ALL = Whims(7, drop=0.2, slow=0.3, slow_times=4, late=0.4, latest_ms=1000, interrupted=0.5, pause_ms=200)
MANY = [(f"d{i}", "t", r) for i in range(500) for r in range(4)]


def drawn(whims: Whims) -> list[Mishap]:
    return [whims.of(*who) for who in MANY]


def test_without_whims_nothing_happens():
    assert set(drawn(Whims())) == {Mishap()}
    assert Mishap().sent(5) == 5


def test_with_a_chance_of_1_all_happens_always():
    for m in drawn(Whims(drop=1, slow=1, late=1, interrupted=1)):
        assert 0 < m.leaves < 1
        assert 0 < m.breaks < 1
        assert m.slowdown == Whims().slow_times
        assert 1 <= m.late_ms <= Whims().latest_ms
        assert 1 <= m.pause_ms <= Whims().pause_ms


def test_each_happens_as_often_as_asked():
    found = drawn(ALL)
    for chance, happened in [
        (0.2, [m.leaves is not None for m in found]),
        (0.3, [m.slowdown == 4 for m in found]),
        (0.4, [m.late_ms > 0 for m in found]),
        (0.5, [m.breaks is not None for m in found]),
    ]:
        assert abs(sum(happened) / len(found) - chance) < 5 * math.sqrt(chance * (1 - chance) / len(found))


def test_how_badly_is_drawn_evenly():
    found = drawn(replace(ALL, drop=1.0))
    assert sum(m.leaves for m in found) / len(found) == pytest.approx(0.5, abs=0.04)
    late = [m.late_ms for m in found if m.late_ms]
    assert sum(late) / len(late) == pytest.approx(500, abs=60)


def test_the_same_names_the_same_mishap_and_others_another():
    assert drawn(ALL) == drawn(ALL)
    assert ALL.of("d", "t", 1) == Mishap(0.10155214001403079, 1.0, 0, 0.5306600127749367, 160)  # in every process
    assert len(set(drawn(replace(ALL, drop=1.0)))) == len(MANY)
    assert drawn(replace(ALL, seed=8)) != drawn(ALL)


@pytest.mark.parametrize(("what", "field"), [("drop", "leaves"), ("slow", "slowdown"), ("late", "late_ms")])
def test_a_chance_moves_no_other_mishap(what, field):
    more = drawn(replace(ALL, **{what: 1.0}))
    assert [m._replace(**{field: None}) for m in more] == [m._replace(**{field: None}) for m in drawn(ALL)]
    assert more != drawn(ALL)


def test_whom_it_hits_at_a_small_chance_it_hits_at_a_larger_one():
    few = [m.leaves for m in drawn(ALL)]
    more = [m.leaves for m in drawn(replace(ALL, drop=0.5))]
    assert all(b == a for a, b in zip(few, more, strict=True) if a is not None)


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_an_interrupted_upload_has_sent_some_and_has_some_left(blocks, share):
    sent = Mishap(breaks=share, pause_ms=5).sent(blocks)
    assert sent == blocks if blocks < 2 else 1 <= sent < blocks
    assert abs(sent - blocks * share) <= 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"drop": 1.1}, "drop is a probability from 0 to 1, not 1.1"),
        ({"interrupted": math.nan}, "interrupted is a probability"),
        ({"slow_times": 0.5}, "1 or more times as long"),
        ({"latest_ms": -1}, "latest_ms is 0 or more, not -1"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Whims(**wrong)
