"""What the selectors make of a round: utilities that are theirs to keep."""

import numpy as np
import pytest

from device_sim.trainer import Run
from experiments.peers import Devices, Heard, Peer, selector

DEVICES = Devices([10, 20, 30, 40], [2, 3, 4, 5], [5] * 4, np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 9]))


def heard(loss: float, *delta: float, samples: int = 20) -> Heard:
    values, losses = np.array(delta, np.float32), np.full(samples, loss, np.float32)
    run = Run(values, samples, float(losses.sum()), 5, losses)
    return Heard(run, values, np.ones_like(values))


def made(name: str):
    return selector(Peer(name), DEVICES, 8, np.random.default_rng(0))


def test_oort_hears_of_losses_and_times():
    peer = made("oort")
    peer.report(1, {0: heard(2, 3, 4, samples=10), 1: heard(3, 3, 4)}, cut=[2])
    assert peer.oort.utilities.tolist() == pytest.approx([2 * 10, 3 * 20, 40, 40])
    assert peer.oort.seconds.tolist() == [5, 5, 5, 13]
    assert peer.oort.last.tolist() == [1, 1, 1, 0]


def test_pyramidfl_hears_of_deltas_too_and_who_was_cut_has_the_mean_of_both():
    peer = made("pyramidfl")
    assert peer.gradients.tolist() == [10, 20, 30, 40]
    peer.report(1, {0: heard(2, 3, 4, samples=10), 1: heard(3, 0, 10)}, cut=[2])
    assert peer.gradients.tolist() == pytest.approx([0.5, 2, 1.25, 40])
    assert peer.oort.utilities[2] == pytest.approx(40)
    peer.report(2, {}, cut=[3])
    assert peer.gradients[3] == 40


def test_the_codes_gradient_takes_the_model_off():
    peer = made("pyramidfl-code")
    peer.report(1, {1: heard(3, 4, 5)}, cut=[])
    assert peer.gradients[1] == pytest.approx(5 * 20 / 100)  # |(3, 4)|


def test_plans():
    """Of three that run 3 is the best, and drops least: the round is as long as its 4 + 0.9 × 9 s."""
    plain = made("random").plan([3, 0, 1], 3)
    assert (plain.ratios.tolist(), plain.seconds, plain.steps) == ([0, 0, 0], 13, [5, 5, 5])
    mine = made("pyramidfl").plan([3, 0, 1], 3)
    assert mine.ratios.tolist() == pytest.approx([0.1, 0.1 + 1 / 3, 0.1 + 1 / 6])
    assert mine.seconds == pytest.approx(12.1)
    assert mine.steps == [5, 10, 15]  # time for 55 and 24, of which five passes are 10 and 15


@pytest.mark.parametrize("name", ["random", "oort", "pyramidfl"])
def test_a_selection_is_of_the_feasible(name):
    assert sorted(made(name).select(9, 1, {3, 1})) == [1, 3]
    assert len(made(name).select(2, 1, {0, 1, 2})) == 2
