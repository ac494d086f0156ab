"""Devices that travel: the nearest zone, trips that begin and end, nights by where one is."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.availability import Availability
from device_sim.journeys import Trips, zone_at

DAY = 24_000
OFFSETS = {"asia": 8.0, "europe": 1.0, "america": -6.0}


def trips(device: str = "d", chance: float = 0.3, seed: int = 1, home: float = 1.0) -> Trips:
    return Trips(device, home, OFFSETS, lambda hours: Availability(device, hours, DAY, seed), chance, DAY, seed)


@pytest.mark.parametrize(
    ("offset", "zone"),
    [(8, "asia"), (5, "asia"), (4, "europe"), (-3, "america"), (-12, "asia"), (12, "asia"), (0, "europe")],
)
def test_a_device_belongs_to_the_zone_whose_time_is_nearest(offset, zone):
    assert zone_at(offset, OFFSETS) == zone


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no zones"):
        zone_at(0, {})
    with pytest.raises(ValueError, match="from 0 to 1"):
        trips(chance=1.5)


def test_who_never_travels_is_at_home():
    assert {trips(chance=0).place(d * DAY) for d in range(50)} == {1.0}
    assert {trips(chance=0, home=9.0).zone(d * DAY) for d in range(50)} == {"asia"}


def test_trips_are_as_frequent_as_said_and_lead_everywhere():
    places = [trips(f"d{i}", 0.1, home=0.5).place(d * DAY) for i in range(200) for d in range(20)]
    # A trip of one day or two, equally likely, begins on a day with 0.1: away is 0.1 + 0.9 · 0.1 · 0.5 = 0.145 of days.
    assert sum(p != 0.5 for p in places) / len(places) == pytest.approx(0.145, abs=0.02)
    assert set(places) == {0.5, *(o + x for o in OFFSETS.values() for x in (-1, 0, 1))}


def test_a_place_holds_for_a_whole_day():
    t = trips()
    for d in range(40):
        assert len({t.place(d * DAY + x) for x in range(0, DAY, 999)}) == 1


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(0, 60 * DAY), st.floats(0, 1))
def test_free_is_what_it_is_where_the_device_is(seed, now, chance):
    t = trips(seed=seed, chance=chance)
    there = Availability("d", t.place(now), DAY, seed).window(now)
    found = t.window(now)
    assert (found is None) == (there is None)
    if found:
        assert there[0] <= found[0] <= now < found[1] <= there[1]
        assert len({t.place(x) for x in (found[0], now, found[1] - 1)}) == 1, "a window lies at one place"
    all_of_them = t.windows(now, now + 2 * DAY)
    assert all(a[0] < a[1] <= b[0] < b[1] for a, b in pairwise(all_of_them))
    for x in range(now, now + 2 * DAY, DAY // 40):
        assert any(a <= x < b for a, b in all_of_them) == (t.window(x) is not None)
    begins = t.next_start(now)
    assert begins > now
    assert t.window(begins) is not None
    if found is None:  # nothing before it
        for x in range(now + 1, begins, max(1, (begins - now) // 50)):
            assert t.window(x) is None, x


class Sharp:
    """Free from each third midnight on, for a quarter of a day."""

    def window(self, now: int):
        return (now - now % (3 * DAY), now - now % (3 * DAY) + DAY // 4) if now % (3 * DAY) < DAY // 4 else None

    def next_start(self, now: int) -> int:
        return (now // (3 * DAY) + 1) * 3 * DAY


def test_a_window_that_begins_at_midnight_sharp_is_not_missed():
    t = Trips("d", 1.0, OFFSETS, lambda hours: Sharp(), 0.0, DAY)
    assert t.next_start(10_000) == 3 * DAY
    assert t.next_start(3 * DAY) == 6 * DAY
