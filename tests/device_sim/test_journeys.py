"""Devices that travel: the nearest zone, trips that begin and end, nights by where one is."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.availability import Availability
from device_sim.journeys import Trips, zone_at

DAY = 24_000
OFFSETS = {"asia": 8.0, "europe": 1.0, "america": -6.0}


def trips(device: str = "d", chance: float = 0.3, seed: int = 1, home: str = "europe") -> Trips:
    homes = {z: Availability(device, o, DAY, seed) for z, o in OFFSETS.items()}
    return Trips(device, home, homes, chance, DAY, seed)


@pytest.mark.parametrize(
    ("offset", "zone"),
    [(8, "asia"), (5, "asia"), (4, "europe"), (-3, "america"), (-12, "asia"), (12, "asia"), (0, "europe")],
)
def test_a_device_belongs_to_the_zone_whose_time_is_nearest(offset, zone):
    assert zone_at(offset, OFFSETS) == zone


def test_there_must_be_a_zone_and_a_home():
    with pytest.raises(ValueError, match="no zones"):
        zone_at(0, {})
    with pytest.raises(ValueError, match="none of the zones"):
        trips(home="mars")
    with pytest.raises(ValueError, match="from 0 to 1"):
        trips(chance=1.5)


def test_who_never_travels_is_at_home():
    assert {trips(chance=0).zone(d * DAY) for d in range(50)} == {"europe"}


def test_trips_are_as_frequent_as_said_and_end():
    away = [trips(f"d{i}", 0.1).zone(d * DAY) != "europe" for i in range(200) for d in range(20)]
    # A trip of one day or two, equally likely, begins on a day with 0.1: away is 0.1 + 0.9 · 0.1 · 0.5 = 0.145 of days.
    assert sum(away) / len(away) == pytest.approx(0.145, abs=0.02)


def test_a_zone_holds_for_a_whole_day():
    t = trips()
    for d in range(40):
        assert len({t.zone(d * DAY + x) for x in range(0, DAY, 999)}) == 1


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(0, 60 * DAY), st.floats(0, 1))
def test_free_is_what_it_is_where_the_device_is(seed, now, chance):
    t = trips(seed=seed, chance=chance)
    there = t.homes[t.zone(now)].window(now)
    found = t.window(now)
    assert (found is None) == (there is None)
    if found:
        assert there[0] <= found[0] <= now < found[1] <= there[1]
        assert len({t.zone(x) for x in (found[0], now, found[1] - 1)}) == 1, "a window lies in one zone"
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
