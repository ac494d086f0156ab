"""Oort's selector: the numbers worked by hand, its draws, its pacer, and the two faults of its code that are not here."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.oort import HAR, SPEECH, Oort, Report, Settings, squared_loss, utility

ALL = np.arange(4)
DEFAULT = Settings()
GREEDY = Settings(explored=0, least_explored=0)


def four(settings: Settings) -> Oort:
    """a, b, c, d of the research sheet, section 8."""
    oort = Oort([1, 1, 1, 1], [1, 1, 1, 1], np.random.default_rng(0), settings)
    for device, (worth, last, seconds) in enumerate([(10, 10, 40), (6, 5, 10), (4, 2, 20), (2, 10, 5)]):
        oort.report(last, {device: Report(worth, seconds)})
    return oort


def some(n: int = 50, settings: Settings = DEFAULT, seed: int = 0) -> Oort:
    dice = np.random.default_rng(seed)
    return Oort([int(k) for k in dice.integers(8, 300, n)], list(dice.uniform(1, 60, n)), dice, settings)


# ------------------------------------------------------------------ scores


def test_the_scores_worked_by_hand():
    """t = 11: the preferred time is c's, a is twice as slow and worth a quarter."""
    oort = four(Settings(threshold=50, penalty=2))
    assert oort.preferred == 20
    assert oort.scores(11, ALL) == pytest.approx([0.2887, 0.7191, 0.5964, 0.1551], abs=5e-5)


def test_without_a_preferred_time_nobody_is_too_slow():
    oort = four(Settings(threshold=100))
    assert oort.preferred == math.inf
    assert oort.scores(11, ALL)[0] == pytest.approx(1.1549, abs=5e-5)


def test_utilities_are_clipped_at_a_quantile_and_the_untried_have_no_score():
    oort = Oort([5, 5, 5, 5], [1, 1, 1, 1], np.random.default_rng(0), Settings(threshold=100, clip=0.5))
    oort.report(1, {0: Report(100, 1), 1: Report(7, 1)})
    scores = oort.scores(2, ALL)  # of 5, 5, 7, 100 the third clips: device 0 counts as much as device 1
    assert scores[0] == scores[1]
    assert np.isnan(scores[2:]).all()


def test_a_report_long_ago_counts_for_more():
    oort = Oort([5, 5], [1, 1], np.random.default_rng(0), Settings(threshold=100))
    oort.report(3, {0: Report(6, 1)})
    oort.report(30, {1: Report(6, 1)})
    early, late = oort.scores(31, np.arange(2))
    assert early > late


def test_losses_that_are_all_nought_score_nought():
    oort = Oort([5, 5], [1, 1], np.random.default_rng(0), GREEDY)
    oort.report(1, {0: Report(0, 1), 1: Report(0, 1)})
    assert oort.scores(2, np.arange(2)).tolist() == [0, 0]
    assert sorted(oort.select(2, 2)) == [0, 1]
    assert len(oort.select(1, 3)) == 1


# ------------------------------------------------------------------ who is selected


def test_the_first_round_explores_though_nobody_was_tried():
    picked = some().select(26, 1)
    assert len(set(picked)) == 26


def test_all_that_were_tried_may_be_exploited():
    """E is the number of the tried: the code looked one past the end."""
    oort = some(6, GREEDY)
    oort.report(1, {i: Report(10.0 + i, 5) for i in range(6)})
    assert sorted(oort.select(6, 2)) == list(range(6))
    assert len(oort.select(3, 3)) == 3


def test_a_round_that_asks_for_more_than_there_are_gets_all():
    oort = some(8)
    for now in range(1, 4):
        picked = oort.select(26, now)
        assert sorted(picked) == list(range(8))
        oort.report(now, {i: Report(1.0, 1.0) for i in picked})


def test_a_draw_follows_the_scores_above_the_cut_off():
    """Equally fast, just heard of: device 9 is the best, and those below the cut-off are not looked at."""
    counts = np.zeros(10, int)
    for seed in range(400):
        oort = Oort([50] * 10, [1.0] * 10, np.random.default_rng(seed), replace(GREEDY, threshold=100))
        oort.report(1, {i: Report(1.0 + i, 1.0) for i in range(10)})
        counts[oort.select(3, 3)] += 1
    assert counts[9] > counts[5] > 0
    assert counts[4] > 0  # it has 0.776, and 0.7 of device 6's score is 0.699; device 3 has 0.664
    assert counts[:4].sum() == 0


def test_exploration_prefers_many_samples_and_speed():
    samples, seconds = [100] * 10 + [1] * 40, [1.0] * 5 + [50.0] * 5 + [1.0] * 40
    picked = [i for seed in range(200) for i in Oort(samples, seconds, np.random.default_rng(seed)).select(2, 1)]
    counts = np.bincount(picked, minlength=50)
    assert counts[:5].sum() > 0.9 * len(picked)


def test_exploration_looks_no_further_than_its_window():
    samples = list(range(100, 50, -1))
    picked = [i for seed in range(200) for i in Oort(samples, [1.0] * 50, np.random.default_rng(seed)).select(2, 1)]
    assert set(picked) == set(range(5 * 2))


def test_exploration_fades_and_ends_when_all_were_tried():
    oort = some(40)
    for now in range(1, 30):
        picked = oort.select(10, now)
        if now == 1:
            assert oort.explored == pytest.approx(0.9 * 0.95)
        oort.report(now, {i: Report(5.0, oort.seconds[i]) for i in picked})
    assert (oort.last > 0).all()
    assert oort.explored == 0


def test_infeasible_devices_are_never_selected():
    oort, able = some(), set(range(0, 50, 3))
    for now in range(1, 12):
        picked = oort.select(10, now, able)
        assert len(set(picked)) == 10
        assert set(picked) <= able
        oort.report(now, {i: Report(5.0, 1.0) for i in picked[:6]}, picked[6:])


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_a_selection_is_of_distinct_devices_and_the_same_for_the_same_seed(n, count, silent, seed):
    def picks() -> list[list[int]]:
        oort, out = some(n, seed=seed), []
        for now in range(1, 6):
            picked = oort.select(count, now)
            assert len(picked) == len(set(picked)) == min(n, count)
            ran = picked[silent:]
            oort.report(now, {i: Report(float((i * now) % 7), 1.0 + i) for i in ran}, picked[:silent])
            out.append(picked)
        return out

    assert picks() == picks()


# ------------------------------------------------------------------ feedback


def test_who_was_cut_gets_the_mean_and_was_tried():
    oort = some(4)
    oort.report(3, {0: Report(4.0, 2.0), 1: Report(8.0, 2.0)}, cut=[2])
    assert oort.utilities[[0, 1, 2]].tolist() == [4, 8, 6]
    assert oort.last.tolist() == [3, 3, 3, 0]


def test_a_round_without_a_report_teaches_nothing():
    oort = some(4)
    before = oort.utilities.tolist()
    oort.report(1, {}, cut=[0, 1])
    assert oort.utilities.tolist() == before
    assert not oort.last.any()


@pytest.mark.parametrize("bad", [Report(math.nan, 1), Report(-1, 1), Report(1, 0), Report(math.inf, 1)])
def test_a_report_that_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="device 2 reports a utility of"):
        some().report(1, {2: bad})


@pytest.mark.parametrize(("samples", "seconds"), [([], []), ([1, 2], [1]), ([0], [1]), ([1], [0]), ([1], [math.nan])])
def test_devices_that_cannot_be_are_refused(samples, seconds):
    with pytest.raises(ValueError, match=r"Oort needs|each device has"):
        Oort(samples, seconds, np.random.default_rng(0))


def test_squared_losses_are_averaged_batch_by_batch():
    """(1, 1), (3, 3), (2): 1 → 0.8·1 + 0.2·9 = 2.6 → 0.8·2.6 + 0.2·4 = 2.88."""
    assert squared_loss(np.array([1, 1, 3, 3, 2], np.float32), 2) == pytest.approx(2.88)
    assert utility(2.25, samples=100, trained=80) == utility(2.25, samples=80, trained=400) == 1.5 * 80


# ------------------------------------------------------------------ the pacer


def paced(*utilities: float, delta: float = 5, threshold: float = 50) -> float:
    """The threshold after rounds in which everyone reported these; it looks every second round. Before them is one in which nobody
    was exploited, whose utility is 0."""
    oort = some(3, replace(GREEDY, pacer_step=2, threshold=threshold, pacer_delta=delta))
    oort.report(1, {i: Report(1.0, 1.0) for i in range(3)})
    for now, worth in enumerate(utilities, 1):
        picked = oort.select(3, now)
        oort.report(now, {i: Report(worth, 1.0) for i in picked})
    oort.select(3, len(utilities) + 1)
    return oort.threshold


def test_the_pacer_allows_more_time_when_utility_stands_still():
    assert paced(5, 5, 5) == 50  # 0 + 5 and 5 + 5
    assert paced(*[5] * 5) == paced(*[5] * 6) == 55
    assert paced(*[5] * 7) == 60


def test_the_pacer_allows_less_when_all_changed_and_nothing_between():
    assert paced(1, 1, 1, 9, 20) == 45
    assert paced(5, 5, 5, 6, 6) == 50


def test_the_pacer_stays_between_its_delta_and_100():
    assert paced(*[5] * 7, delta=30) == 100
    assert paced(1, 1, 1, 9, 20, delta=30) == 30


def test_pyramidfls_settings_are_those_of_its_logs():
    assert (HAR.threshold, HAR.pacer_delta, HAR.cut_off, HAR.least_explored) == (10, 0.3, 0.7, 0.4)
    assert (SPEECH.threshold, SPEECH.pacer_delta, SPEECH.cut_off, SPEECH.least_explored) == (40, 30, 0.4, 0.2)
    assert (HAR.penalty, HAR.clip, HAR.explored) == (SPEECH.penalty, SPEECH.clip, SPEECH.explored) == (2, 0.98, 0.9)
