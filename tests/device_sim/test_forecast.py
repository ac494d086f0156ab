"""The forecast on the device: it learns a person's week, forgets an old one, and says no more than it knows."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim import forecast
from device_sim.forecast import BINS, FADE, UNIT, WEEK, Forecast

HOUR = 3_600_000
DAY = 24 * HOUR
BIN = DAY // BINS


def spans(days, *windows, day=DAY, offset=0):
    """The same windows, in local hours, on each of these days."""
    return sorted(
        (round((24 * n + a - offset) * day / 24), round((24 * n + b - offset) * day / 24))
        for n in days
        for a, b in windows
    )


def told(windows, until, since=0, offset=0.0, day=DAY) -> Forecast:
    """A forecast that has seen these windows."""
    f = Forecast(offset, day, since)
    for start, end in windows:
        if start < until and end > since:
            f.observe(max(start, since), min(end, until))
    f.observe(until, until)
    return f


def overlap(one, other) -> float:
    """Hours in both."""
    return sum(max(0, min(b, d) - max(a, c)) for a, b in one for c, d in other) / HOUR


histories = st.lists(st.integers(0, 15 * DAY), max_size=40, unique=True).map(
    lambda ts: list(zip(sorted(ts)[::2], sorted(ts)[1::2], strict=False))
)

# ------------------------------------------------------------------ before there is any history


@pytest.mark.parametrize("offset", [0, 8, -3.5])
def test_nothing_seen_is_the_night_of_local_time(offset):
    noon = round((12 - offset) * HOUR)
    f = Forecast(offset, DAY, noon)
    ((start, end),) = f.windows(noon, DAY, 3)
    hours = [(t + offset * HOUR) / HOUR - 24 for t in (start, end)]
    assert -2 < hours[0] < 2
    assert 5 < hours[1] < 8
    assert f.windows(noon, DAY // 4, 3) == []


def test_a_week_ahead_has_seven_nights_and_m_of_them_are_given():
    f = Forecast(0, DAY, 0)
    assert len(f.windows(DAY // 2, 7 * DAY, 50)) == 7
    assert [len(f.windows(DAY // 2, 7 * DAY, m)) for m in (0, 1, 4)] == [0, 1, 4]


# ------------------------------------------------------------------ what it learns


def test_learns_a_night_worker_in_two_weeks():
    day_sleep = spans(range(16), (9, 16))
    f = told(day_sleep, 14 * DAY)
    ((start, end),) = f.windows(14 * DAY, DAY, 3)
    assert (start, end) == (14 * DAY + 9 * HOUR, 14 * DAY + 16 * HOUR)
    unseen = Forecast(0, DAY, 0).windows(14 * DAY, DAY, 3)  # control: who has seen nothing says night
    assert unseen
    assert overlap(unseen, day_sleep) == 0


def test_the_longest_come_first_and_are_given_in_order_of_time():
    f = told(spans(range(28), (1, 3), (8, 14), (18, 22)), 28 * DAY)
    hours = [[(s / HOUR - 672, e / HOUR - 672) for s, e in f.windows(28 * DAY, DAY, m)] for m in (1, 2, 3, 4)]
    assert hours == [[(8, 14)], [(8, 14), (18, 22)], *2 * [[(1, 3), (8, 14), (18, 22)]]]


def test_weekends_are_learned_as_such():
    week = sorted(
        spans([d for d in range(35) if d % 7 < 5], (1, 6)) + spans([d for d in range(35) if d % 7 >= 5], (3, 11))
    )
    f = told(week, 28 * DAY)
    for n in range(7):
        now = 28 * DAY + n * DAY
        ((start, end),) = f.windows(now, DAY, 1)
        assert ((start - now) / HOUR, (end - now) / HOUR) == ((3, 11) if n >= 5 else (1, 6))


def test_a_window_is_as_long_as_most_were():
    """Nights that began at 22 to 24 and ended at 6 to 8: nine in ten surely, or half of them."""
    dice = np.random.default_rng(0)
    nights = [
        (round((24 * n + a) * HOUR), round((24 * n + b) * HOUR))
        for n, (a, b) in enumerate(zip(dice.uniform(22, 24, 400), dice.uniform(30, 32, 400), strict=True))
    ]
    f = told(nights, 300 * DAY + 12 * HOUR)
    length = {}
    for sure in (0.5, 0.9):
        held = []
        for n in range(300, 400):
            ((start, end),) = f.windows(f.seen_ms, DAY, 1, sure)
            length[sure] = (end - start) / HOUR
            held.append(nights[n][0] <= start + (n - 300) * DAY and end + (n - 300) * DAY <= nights[n][1])
        assert np.mean(held) > sure - 0.1
    assert 6 <= length[0.9] < length[0.5] <= 9


def test_short_windows_at_any_time_are_no_long_one():
    """Free three quarters of the time, in pieces: no window of some hours can be promised."""
    pieces = [(round(s * HOUR), round((s + 0.75) * HOUR)) for s in np.arange(0, 28 * 24, 1.0)]
    f = told(pieces, 28 * DAY)
    assert all(e - s <= 1 * HOUR for s, e in f.windows(28 * DAY, DAY, 9))
    assert sum(e - s for s, e in pieces) / (28 * DAY) == pytest.approx(0.75)


def test_forgets_when_habits_change(monkeypatch):
    nights, days = spans(range(56), (0, 7)), spans(range(56, 90), (10, 17))
    now = 84 * DAY  # four weeks later
    f = told(nights + days, now)
    assert overlap(f.windows(now, DAY, 3), days) == 7
    assert overlap(f.windows(now, DAY, 3), spans([84], (0, 7))) == 0
    assert overlap(told(nights, 56 * DAY).windows(56 * DAY, DAY, 3), spans([56], (0, 7))) == 7
    monkeypatch.setattr(forecast, "FADE", 0.999)  # control: who does not forget
    assert overlap(told(nights + days, now).windows(now, DAY, 3), days) == 0


def test_knows_that_it_is_free_now():
    f = told(spans(range(28), (1, 7)), 28 * DAY + 2 * HOUR)
    now = f.seen_ms
    assert f.windows(now, 6 * HOUR, 1, free=True) == [(now, 28 * DAY + 7 * HOUR)]
    assert all(s >= now + BIN for s, _ in f.windows(now, 6 * HOUR, 9, free=False))
    seldom = told(spans(range(0, 28, 2), (1, 7)), 28 * DAY)  # every other day: not sure until it is so
    then = 28 * DAY + 2 * HOUR
    assert seldom.windows(then, 6 * HOUR, 1) == []
    assert seldom.windows(then, 6 * HOUR, 1, free=True) == [(then, 28 * DAY + 7 * HOUR)]


# ------------------------------------------------------------------ always


@given(histories, st.integers(0, 20 * DAY), st.integers(1, 9 * DAY), st.integers(0, 6), st.floats(0.05, 1))
def test_windows_are_ahead_in_order_disjoint_and_as_sure_as_asked(history, now, horizon, m, sure):
    f = told(history, 15 * DAY, offset=1.25)
    found = f.windows(now, horizon, m, sure)
    assert len(found) <= m
    assert proper(found, now, horizon)
    free, goes_on = f.chances()
    for start, end in found:
        first, last = f._bin(start), f._bin(end - 1)
        chance = free[first % WEEK] * np.prod([goes_on[b % WEEK] for b in range(first + 1, last + 1)])
        assert chance >= sure - 1e-6


def proper(windows, now, horizon) -> bool:
    within = all(now <= s < e <= now + horizon for s, e in windows)
    return within and all(x[1] < y[0] for x, y in pairwise(windows))


@pytest.mark.parametrize("sure", np.linspace(0.1, 0.9, 17))
def test_no_window_begins_where_another_ends(sure):
    assert proper(Forecast(0, DAY, 0).windows(DAY // 2, 2 * DAY, 9, sure), DAY // 2, 2 * DAY)


@pytest.mark.parametrize("bad", [[(1, 4), (3, 5)], [(3, 5), (1, 2)], [(-1, 2)], [(9, 12)], [(2, 2)], [(1, 2), (2, 3)]])
def test_control_improper_windows_are_seen(bad):
    assert proper([(0, 4), (5, 10)], 0, 10)
    assert not proper(bad, 0, 10)


@given(histories, st.integers(0, 4 * DAY), st.floats(0.2, 1))
def test_no_window_is_longer_than_the_longest(history, now, sure):
    f = told(history, 15 * DAY)
    free, goes_on = f.chances()
    first, longest = f._bin(now), 0
    for a in range(first, first + BINS):
        chance = free[a % WEEK]
        for c in range(a, first + BINS):
            chance *= goes_on[c % WEEK] if c > a else 1
            if chance >= sure:
                longest = max(longest, c + 1 - a)
    begin = f._edge(first)
    found = f.windows(begin, DAY, 1, sure)
    assert longest * BIN == (found[0][1] - found[0][0] if found else 0)


@given(histories, st.integers(0, DAY), st.floats(-12, 14))
def test_a_bin_counts_if_it_was_free_throughout(history, since, offset):
    """Beside the plain reading of its docstring."""
    until = 15 * DAY
    f = told(history, until, since, offset)
    free, stayed, before = np.zeros(WEEK), np.zeros(WEEK), False
    merged: list[list[int]] = []
    for s, e in ((max(s, since), e) for s, e in history if e > since):
        if merged and s <= merged[-1][1]:
            merged[-1][1] = e
        else:
            merged.append([s, e])
    for b in range(f._bin(since - 1) + 1, f._bin(until)):
        now = any(s <= f._edge(b) and f._edge(b + 1) <= e for s, e in merged)
        free[b % WEEK] = FADE * free[b % WEEK] + now
        stayed[b % WEEK] = FADE * stayed[b % WEEK] + (now and before)
        before = now
    state = f.state()
    assert np.abs(np.array(state["free"]) / UNIT - free).max() < 0.002
    assert np.abs(np.array(state["stayed"]) / UNIT - stayed).max() < 0.002


@given(histories, st.lists(st.integers(0, 15 * DAY), max_size=20))
def test_it_does_not_matter_in_how_many_pieces_it_is_told(history, cuts):
    whole, pieces = told(history, 15 * DAY), Forecast(0, DAY, 0)
    for start, end in history:
        for t in sorted(t for t in cuts if pieces.seen_ms <= t < start):
            pieces.observe(t, t)
        for t in [*sorted(t for t in cuts if start < t < end), end]:
            pieces.observe(max(start, pieces.seen_ms), t)
    pieces.observe(15 * DAY, 15 * DAY)
    assert pieces.state() == whole.state()


def test_a_short_day_is_predicted_as_a_long_one():
    short, zone = 60_000, 5
    scaled = [
        [(round(s / day * DAY / HOUR, 2), round(e / day * DAY / HOUR, 2)) for s, e in f.windows(15 * day, 2 * day, 4)]
        for day in (DAY, short)
        for f in [told(spans(range(20), (2, 9), (13, 16), day=day, offset=zone), 15 * day, offset=zone, day=day)]
    ]
    assert scaled[0] == scaled[1]
    assert len(scaled[0]) == 4


@pytest.mark.parametrize("since", [0, DAY // 2, 3 * DAY + DAY // 2, 6 * DAY])
def test_each_bin_has_been_seen_as_often_as_it_was(since):
    """Free for one week: once each. At noon, where the prior says never: its own once, and as three the days alike."""
    free, _ = told([(since, since + 7 * DAY)], since + 7 * DAY, since).chances()
    noon = free.reshape(7, BINS)[:, BINS // 2]
    assert noon[:5] == pytest.approx((1 + 3 * 5 / (5 + 1)) / (1 + 3))
    assert noon[5:] == pytest.approx((1 + 3 * 2 / (2 + 1)) / (1 + 3))


# ------------------------------------------------------------------ its state


@given(histories)
def test_it_goes_on_from_its_state(history):
    f = told(history, 12 * DAY, offset=-7)
    text = json.dumps(f.state())
    assert len(text) < 4500
    again = Forecast.restored(json.loads(text))
    for x in (f, again):
        x.observe(12 * DAY + HOUR, 13 * DAY)
    assert again.state() == f.state()
    assert again.windows(13 * DAY, 3 * DAY, 5) == f.windows(13 * DAY, 3 * DAY, 5)


def test_counts_never_outgrow_their_bits():
    assert UNIT / (1 - FADE) < 2**16
    f = told([(0, 200 * 7 * DAY)], 200 * 7 * DAY)
    counts = f.state()["free"]
    assert max(counts) < 2**16
    assert min(counts) == pytest.approx(UNIT / (1 - FADE), abs=2)
    assert f.windows(f.seen_ms, DAY, 1, free=True) == [(f.seen_ms, f.seen_ms + DAY)]


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least 48"):
        Forecast(0, 47, 0)
    f = told([(HOUR, 2 * HOUR)], 3 * HOUR)
    for start, end in ((2 * HOUR, 4 * HOUR), (5 * HOUR, 4 * HOUR)):
        with pytest.raises(ValueError, match="tell them in order"):
            f.observe(start, end)
    for horizon, m, sure in ((0, 1, 0.5), (DAY, -1, 0.5), (DAY, 1, 0.0), (DAY, 1, 1.1)):
        with pytest.raises(ValueError, match="no windows"):
            f.windows(0, horizon, m, sure)
    with pytest.raises(ValueError, match="3 bins a week"):
        Forecast.restored(f.state() | {"free": [1, 2, 3]})
