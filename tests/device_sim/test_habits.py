"""Made habits: windows of a device with three faces that agree, at night most of all, by the zone's clock."""

from itertools import pairwise
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.device import Device
from device_sim.habits import NIGHT_SHIFT_H, QUIET_H, STYLES, Day, Habits

HOUR = 3_600_000
DAY = 24 * HOUR
MINUTE_DAY = 60_000

people = st.builds(
    Habits,
    device=st.text(max_size=8),
    utc_offset_h=st.floats(-12, 14),
    day_ms=st.sampled_from([24, 1000, MINUTE_DAY, DAY]),
    seed=st.integers(0, 2**63 - 1),
    origin_ms=st.integers(-(10**12), 2 * 10**12),
)


def fresh(h: Habits) -> Habits:
    return Habits(h.device, h.utc_offset_h, h.day_ms, h.seed, h.origin_ms)


def orderly(windows) -> bool:
    """Of some length, in order, disjoint."""
    return all(s < e for s, e in windows) and all(x[1] <= y[0] for x, y in pairwise(windows))


@given(people, st.floats(-30, 30), st.floats(0, 5))
def test_windows_are_those_of_the_list_of_days(h, at, days):
    begin = h.origin_ms + round(at * h.day_ms)
    end = begin + 1 + round(days * h.day_ms)
    found = h.windows(begin, end)
    assert orderly(found)
    every = [w for n in range(int(at) - 4, int(at + days) + 4) for w in _of_day(h, n)]
    assert found == [(s, e) for s, e in every if s < end and e > begin]


def _of_day(h: Habits, n: int) -> list[tuple[int, int]]:
    zero = h.origin_ms - round(h.utc_offset_h * h.day_ms / 24)
    spans = [(zero + round(a * h.day_ms / 24), zero + round(b * h.day_ms / 24)) for a, b in h.day(n).free()]
    return [(s, e) for s, e in spans if s < e]


@given(people, st.lists(st.floats(-20, 20), min_size=1, max_size=6))
def test_the_window_and_the_next_start_are_those_of_the_list(h, days):
    """In whatever order it is asked: what it keeps of the last days changes no answer."""
    known = fresh(h)
    for at in days:
        now = h.origin_ms + round(at * h.day_ms)
        around = known.windows(now, now + 1)
        assert h.window(now) == (around[0] if around else None)
        then = h.next_start(now)
        assert then > now
        assert not [s for s, _ in known.windows(now, then) if s > now]
        assert then in [s for s, _ in known.windows(then, then + 1)]


def test_at_the_edges_of_the_windows_of_a_day():
    """The first comes soon after rising, the last ends with the next; asked afresh: what it keeps of the last days helps nobody."""
    for i in range(60):
        h = Habits(f"d{i}", 1, DAY, 2)
        for n in range(3, 9):
            pairs = list(pairwise([*_of_day(h, n), *_of_day(h, n + 1)]))
            for (start, end), after in pairs[:1] + pairs[len(_of_day(h, n)) - 1 :][:1]:
                assert fresh(h).window(start) == fresh(h).window(end - 1) == (start, end)
                assert fresh(h).window(end) is fresh(h).window(start - 1) is None
                assert fresh(h).next_start(start) == fresh(h).next_start(end - 1) == after[0]


@given(people, st.integers(-100, 100))
def test_a_day_is_whole_and_free_is_charging_on_wifi_with_the_screen_off(h, n):
    day = h.day(n)
    assert day.rise < day.bed < day.next_rise == h.day(n + 1).rise
    spans = [day.charging, day.wifi, day.screen, day.free()]
    assert all(map(orderly, spans))
    assert all(day.rise <= s and e <= day.next_rise for list in spans for s, e in list)
    assert day.screen[0][0] == day.rise
    assert consistent(day, day.free())


def consistent(day: Day, free) -> bool:
    def within(list, a, b):
        return any(s <= a and b <= e for s, e in list)

    def looked_at(a, b):
        return any(a < e + QUIET_H and s < b for s, e in day.screen)

    return all(within(day.charging, a, b) and within(day.wifi, a, b) and not looked_at(a, b) for a, b in free)


def test_control_a_window_that_is_none_is_seen():
    day = Day(7, 23, 31, [(7, 9), (23, 31)], [(7, 9), (18, 31)], [(7, 8), (22, 23)])
    assert day.free() == [(8 + QUIET_H, 9), (23 + QUIET_H, 31)]
    assert consistent(day, day.free())
    for bad in ((18, 19), (7, 8), (8, 9), (8.5, 10), (23, 24)):
        assert not consistent(day, [bad])
    assert not orderly([(1, 3), (2, 4)])
    assert not orderly([(3, 4), (1, 2)])
    assert not orderly([(1, 1)])


@given(people, st.integers(-12, 12))
def test_another_zone_has_the_same_windows_shifted(h, hours):
    day_ms = 24 * max(1, h.day_ms // 24)  # so that an hour is a whole number of ms
    here, there = (Habits(h.device, o, day_ms, h.seed, h.origin_ms) for o in (0, hours))
    shift = hours * day_ms // 24
    begin, end = h.origin_ms, h.origin_ms + 3 * day_ms
    assert there.windows(begin - shift, end - shift) == [(s - shift, e - shift) for s, e in here.windows(begin, end)]


def test_windows_are_a_function_of_the_arguments():
    a = Habits("d1", 2, MINUTE_DAY, 3, 5)
    days = a.windows(5, 5 + 3 * MINUTE_DAY)
    assert days == fresh(a).windows(5, 5 + 3 * MINUTE_DAY)
    assert days[:3] == [
        (-9938, 9220),
        (9597, 9928),
        (11654, 12213),
    ]  # on every machine: these numbers are part of what a seed replays
    for other in (Habits("d2", 2, MINUTE_DAY, 3, 5), Habits("d1", 2, MINUTE_DAY, 4, 5)):
        assert other.windows(5, 5 + 3 * MINUTE_DAY) != days
    moved = Habits("d1", 2, MINUTE_DAY, 3, 1005)
    assert moved.windows(1005, 1005 + 3 * MINUTE_DAY) == [(s + 1000, e + 1000) for s, e in days]


def test_a_short_day_has_the_windows_of_a_long_one():
    long, short = (Habits("d7", 1, day, 9).windows(0, 7 * day) for day in (DAY, DAY // 100))
    assert len(long) == len(short) > 10
    assert all(abs(a - b * 100) <= 50 for x, y in zip(long, short, strict=True) for a, b in zip(x, y, strict=True))


# ------------------------------------------------------------------ what is known of phones


@pytest.fixture(scope="module")
def week() -> list[list[Day]]:
    """Seven days of 500 devices."""
    return [[h.day(n) for n in range(7)] for h in (Habits(f"device-{i}", 0, DAY, 1) for i in range(500))]


def test_phones_charge_as_long_as_flash_says(week):
    assert median(hours(d.charging for d in days) / 7 for days in week) == pytest.approx(18.6, abs=0.7)


def hours(lists) -> float:
    return sum(b - a for spans in lists for a, b in spans)


def test_most_are_free_at_night_by_the_zone_s_clock(week):
    share = np.zeros(24)
    for windows in ([w for d in days for w in d.free()] for days in week):
        for t in (24, 72, 120):
            share += [any(a <= t + hour + 0.5 < b for a, b in windows) for hour in range(24)]
    assert 0 <= share.argmax() <= 5
    assert 8 <= share.argmin() <= 18
    assert 3 < share.max() / share.min() < 5.5  # Bonawitz et al.: 4


def test_weekends_are_later(week):
    """Rising, for all; and to bed on the evenings before."""
    assert all(min(d.rise % 24 for d in days[5:]) > days[1].rise % 24 - 0.5 for days in week)
    late = [np.mean([d.rise - 24 * (5 + i) for i, d in enumerate(days[5:])]) for days in week]
    usual = [np.mean([d.rise - 24 * i for i, d in enumerate(days[:5])]) for days in week]
    assert 0.9 < np.mean(np.subtract(late, usual)) < 1.6
    to_bed = np.mean([[d.bed - 24 * i for i, d in enumerate(days)] for days in week], axis=0)
    assert 0.5 < to_bed[4:6].mean() - to_bed[[0, 1, 2, 3, 6]].mean() < 1


def test_people_differ_and_no_day_is_like_the_last(week):
    people = [Habits(f"device-{i}", 0, DAY, 1).person for i in range(500)]
    share = {style: sum(p.style == style for p in people) / 500 for style in STYLES}
    assert share == pytest.approx(STYLES, abs=0.06)
    assert len({p.bed for p in people}) == 500
    assert all(len({d.bed % 24 for d in days}) == 7 for days in week)
    charge = {
        s: np.mean([hours(d.charging for d in w) / 7 for p, w in zip(people, week, strict=True) if p.style == s])
        for s in STYLES
    }
    assert charge["docked"] > charge["desk"] > charge["overnight"] > charge["top-ups"] > 1


def test_night_workers_are_free_by_day(week):
    shifted = [w for i, w in enumerate(week) if Habits(f"device-{i}", 0, DAY, 1).person.bed > 21 + NIGHT_SHIFT_H]
    assert 5 < len(shifted) < 40
    for days in shifted:
        assert all(6 < d.bed % 24 < 14 for d in days)


def test_a_day_has_room_for_hours():
    with pytest.raises(ValueError, match="too short"):
        Habits("d", 0, 23, 0)


def test_a_device_takes_habits_as_it_takes_nights():
    h = Habits("d", 0, MINUTE_DAY, 0)
    device = Device("d", 0, h)
    (_, end), (then, until) = h.windows(0, 5 * MINUTE_DAY)[:2]
    for now, awake, next in ((end, False, then), (then, True, until), (until, False, h.next_start(until))):
        assert len(list(device.wake(now, {}))) == awake  # it checks in
        assert (device.awake, device.next) == (awake, next)
