"""Nights: one a day, about nine hours from about half past nine, shifted by zone."""

from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.availability import BEDTIME_H, HABIT_H, JITTER_H, LENGTH_H, STRETCH_H, Availability

HOUR = 3_600_000
DAY = 24 * HOUR

people = st.builds(
    Availability,
    device=st.text(max_size=8),
    utc_offset_h=st.floats(-12, 14),
    day_ms=st.sampled_from([1000, 60_000, DAY]),
    seed=st.integers(0, 2**63 - 1),
    origin_ms=st.integers(-(10**12), 2 * 10**12),
)


@given(people, st.integers(-50, 50))
def test_nights_are_of_a_sane_length_and_place(a, n):
    def hours(ms: float) -> float:
        return ms * 24 / a.day_ms

    start, end = a.night(n)
    slack = hours(1)  # rounding to ms
    assert abs(hours(end - start) - LENGTH_H) <= STRETCH_H + slack
    local = hours(start - a.origin_ms) + a.utc_offset_h - 24 * n
    assert abs(local - BEDTIME_H) <= HABIT_H + JITTER_H + slack
    assert end < a.night(n + 1)[0]


@given(people, st.floats(-30, 30))
def test_the_window_and_the_next_start_are_those_of_the_list_of_nights(a, days):
    now = a.origin_ms + round(days * a.day_ms)
    nights = [a.night(n) for n in range(-35, 36)]
    assert a.window(now) == next(((s, e) for s, e in nights if s <= now < e), None)
    assert a.next_start(now) == min(s for s, _ in nights if s > now)


@given(people, st.integers(-20, 20))
def test_at_the_edges_of_a_night(a, n):
    start, end = a.night(n)
    assert a.window(start) == a.window(end - 1) == (start, end)
    assert a.window(start - 1) is None
    assert a.window(end) is None
    assert a.next_start(start - 1) == start
    assert a.next_start(start) == a.next_start(end) == a.night(n + 1)[0]


def test_zones_eight_hours_apart_have_shifted_nights_that_overlap():
    def free(offset: float) -> list[int]:
        """How many of 100 devices are free at each tenth of an hour of ten days."""
        zone = [Availability(f"d{i}", offset, DAY, 7) for i in range(100)]
        held = [a.night(n) for a in zone for n in range(-2, 12)]
        return [sum(s <= t < e for s, e in held) for t in range(0, 10 * DAY, HOUR // 10)]

    west, east = free(0), free(8)
    shift = 80  # the same devices, eight hours earlier: only the first and last nights differ
    assert west[:-shift] != east[:-shift]
    assert west[shift : 9 * 240] == free(8)[: 9 * 240 - shift]
    both = sum(min(w, e) >= 20 for w, e in zip(west, east, strict=True)) / 100  # hours a day
    assert 0.5 < both < 4
    assert sum(max(w, e) == 0 for w, e in zip(west, east, strict=True)) > 0  # and there is a day in between


def test_devices_have_habits_and_no_night_is_like_the_last():
    starts = [
        [a.night(n)[0] % DAY / HOUR for n in range(60)] for a in (Availability(f"d{i}", 8, DAY, 1) for i in range(30))
    ]
    assert all(len(set(s)) == 60 for s in starts)
    habits = [mean(s) for s in starts]
    assert max(habits) - min(habits) > HABIT_H
    assert mean(habits) == pytest.approx(BEDTIME_H - 8, abs=0.5)


def test_nights_are_a_function_of_the_arguments():
    a = Availability("d1", 2, 60_000, 3, 5)
    assert [a.night(n) for n in range(20)] == [Availability("d1", 2, 60_000, 3, 5).night(n) for n in range(20)]
    assert a.night(0) == (52_098, 72_631)  # on every machine: these numbers are part of what a seed replays
    for other in (Availability("d2", 2, 60_000, 3, 5), Availability("d1", 2, 60_000, 4, 5)):
        assert other.night(0) != a.night(0)
    assert Availability("d1", 2, 60_000, 3, 1005).night(0) == tuple(t + 1000 for t in a.night(0))


def test_a_day_has_room_for_a_night():
    with pytest.raises(ValueError, match="too short"):
        Availability("d", 0, 23, 0)
    a = Availability("d", 0, 24, 0)
    assert all(s < e for s, e in map(a.night, range(100)))


@given(people, st.floats(-20, 20), st.floats(0, 5))
def test_windows_are_the_nights_that_have_some_of_a_stretch(a, at, days):
    begin = a.origin_ms + round(at * a.day_ms)
    end = begin + round(days * a.day_ms)
    nights = [a.night(n) for n in range(-25, 30)]
    assert a.windows(begin, end) == [(s, e) for s, e in nights if s < end and e > begin and begin < end]
