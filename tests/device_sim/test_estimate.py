"""How long a run takes: from what is known of the device's kind, then from its own runs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.estimate import NEWEST, SAFETY, Estimate


def plain(**speeds) -> Estimate:
    return Estimate(**{"ms_per_sample": 2.0, "down_bytes_s": 1000.0, "up_bytes_s": 500.0, "safety": 1.0} | speeds)


def test_before_the_first_run_it_is_what_is_known_of_the_device():
    e = plain()
    assert e.time(50, 300, 200, "t") == 10 * 5 * 2 + 300 + 400
    assert e.time(50, 0, 0, "t") == 100  # the model is here
    assert plain(safety=1.5).time(50, 300, 200, "t") == 1200


def test_it_is_rounded_up_and_never_0():
    assert plain(ms_per_sample=0.3).time(4, 0, 0, "t") == 2
    assert plain().time(0, 0, 0, "t") == 1


def test_the_first_run_replaces_it_and_the_next_are_averaged():
    e = plain(newest=0.25)
    e.measured("t", 50, 500)
    assert e.time(50, 0, 0, "t") == 500
    e.measured("t", 20, 400)  # 20 ms a sample
    assert e.time(1, 0, 0, "t") == math.ceil(10 + 0.25 * 10)
    assert e.time(50, 0, 0, "another model") == 100


def test_a_task_that_is_over_is_forgotten():
    e = plain()
    e.measured("t", 50, 500)
    e.forget("t")
    e.forget("never seen")
    assert e.time(50, 0, 0, "t") == 100
    assert e == plain()


def test_down_and_up_are_two_links_and_all_tasks_share_them():
    e = plain()
    e.transferred(100, 50, up=False)
    assert (e.time(0, 1000, 0, "a"), e.time(0, 0, 1000, "b")) == (500, 2000)
    e.transferred(100, 700, up=True)
    assert (e.time(0, 1000, 0, "b"), e.time(0, 0, 1000, "a")) == (500, 7000)
    e.transferred(1000, 0, up=False)  # a virtual clock may not move at all
    assert e.time(0, 1000, 0, "a") == math.ceil(500 * (1 - NEWEST))


@given(st.lists(st.integers(1, 10_000), min_size=1), st.floats(0.01, 1))
def test_an_average_lies_between_what_was_measured(runs, newest):
    e = plain(newest=newest)
    for ms in runs:
        e.measured("t", 10, ms)
    assert min(runs) <= e.time(10, 0, 0, "t") <= max(runs) + 1


def test_after_many_runs_of_a_new_speed_the_old_is_forgotten():
    e = Estimate()
    for ms in [1000] * 10 + [3000] * 20:
        e.measured("t", 10, ms)
    assert e.time(10, 0, 0, "t") == pytest.approx(SAFETY * 3000, rel=0.01)


@pytest.mark.parametrize(
    ("speeds", "words"),
    [
        ({"ms_per_sample": 0}, "ms_per_sample is a number above 0"),
        ({"down_bytes_s": math.nan}, "down_bytes_s is a number above 0, not nan"),
        ({"up_bytes_s": math.inf}, "up_bytes_s"),
        ({"safety": 0.9}, "safety is a factor of 1 or more"),
        ({"newest": 0}, "weight is above 0, up to 1"),
        ({"newest": 1.1}, "weight is above 0, up to 1"),
    ],
)
def test_speeds_that_cannot_be_are_refused(speeds, words):
    with pytest.raises(ValueError, match=words):
        plain(**speeds)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda e: e.time(-1, 0, 0, "t"), "samples are 0 or more, not -1"),
        (lambda e: e.time(1, 0, -5, "t"), "bytes up are 0 or more, not -5"),
        (lambda e: e.measured("t", 0, 10), "1 or more samples"),
        (lambda e: e.measured("t", 5, math.nan), "0 or more ms, not of 5 in nan"),
        (lambda e: e.transferred(0, 5, True), "1 or more bytes"),
        (lambda e: e.transferred(5, -1, True), "0 or more ms"),
    ],
)
def test_measurements_that_cannot_be_are_refused_and_change_nothing(act, words):
    e = plain()
    with pytest.raises(ValueError, match=words):
        act(e)
    assert e == plain()
