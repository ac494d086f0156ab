"""The offline stage on shapes that take seconds: it learns, it balances, it follows M, and it goes on where it stopped."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from learning.models import build, score
from learning.modular.forms import Form
from learning.modular.model import modularise, routes, sub_model, to_vector
from learning.modular.training import Settings, by_classes, enhance, optimiser_of, plan, pretrain

CLASSES = 6
SETTINGS = Settings(batch=32, lr=0.01)


def data(samples: int = 240, seed: int = 0):
    """Clouds around a point for each class, in 12 dimensions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(CLASSES, 12)) * 2
    y = np.arange(samples, dtype=np.int64) % CLASSES
    return (centres[y] + rng.normal(size=(samples, 12))).astype(np.float32), y


def model(seed: int = 0):
    torch.manual_seed(seed)
    args = {"inputs": 12, "hidden": "16,16", "classes": CLASSES}
    return modularise(build("mlp", args, seed), (12,), Form(modules=8, ratio=2, k=2))


def trained(passes: int, settings: Settings = SETTINGS):
    x, y = data()
    one = model()
    optimiser = optimiser_of(one, settings)
    losses = [pretrain(one, optimiser, x, y, settings, 0, i) for i in range(passes)]
    return one, optimiser, losses


def spread(one) -> float:
    """CV² of how many samples come to each module, noise off."""
    counts = routes(one.eval(), data()[0])[0].sum(axis=0)
    return float(counts.var() / counts.mean() ** 2)


def test_end_to_end_it_learns():
    one, _, losses = trained(8)
    assert losses[-1].entropy < losses[0].entropy / 2
    accuracy, _ = score(one, *data(seed=1))
    assert accuracy > 0.8 > score(model(), *data(seed=1))[0] + 0.3


def test_balancing_spreads_the_load_and_without_it_modules_collapse():
    balanced, free = (trained(12, Settings(batch=32, lr=0.01, balance=b))[0] for b in (1.0, 0.0))
    assert spread(balanced) < 0.75 * spread(free)


def test_who_goes_on_after_a_pass_gets_the_same_bits():
    """From the model and the optimiser's state as a checkpoint keeps them."""
    x, y = data()
    straight, _, _ = trained(3)
    one, optimiser, _ = trained(1)
    kept = io.BytesIO()
    torch.save([one.state_dict(), optimiser.state_dict()], kept)
    other = model(seed=9)
    other_optimiser = optimiser_of(other, SETTINGS)
    torch.manual_seed(1234)  # the process's own state counts for nothing
    states = torch.load(io.BytesIO(kept.getvalue()))
    other.load_state_dict(states[0])
    other_optimiser.load_state_dict(states[1])
    before = torch.random.get_rng_state()
    for i in (1, 2):
        pretrain(other, other_optimiser, x, y, SETTINGS, 0, i)
    assert np.array_equal(to_vector(other), to_vector(straight))
    assert torch.equal(torch.random.get_rng_state(), before)
    pretrain(one, optimiser, x, y, SETTINGS, 0, 2)  # control: another pass is another
    pretrain(one, optimiser, x, y, SETTINGS, 0, 1)
    assert not np.array_equal(to_vector(one), to_vector(straight))


def test_enhancing_brings_the_routing_to_what_m_says():
    x, y = data()
    settings = Settings(batch=32, lr=0.01, guide=1.0)
    one, optimiser, _ = trained(6, Settings(batch=32, lr=0.01, balance=0.3))
    todo = plan(one, x, y, most_modules=2)
    assert todo.h[0].shape == (CLASSES, 8)
    assert np.allclose(todo.h[0].sum(axis=1), 1)
    assert (todo.h[0] * todo.mask[0]).sum(axis=0).max() <= todo.load[0] + 1e-5
    assert todo.mask[0].sum(axis=1).max() <= 2

    def outside() -> float:
        """The share of the load that goes to modules which M does not recommend."""
        chosen = routes(one.eval(), x)[0]
        return float((chosen & ~todo.mask[0][y]).sum() / chosen.sum())

    began = outside()
    losses = [enhance(one, optimiser, x, y, y, todo.targets, settings, 1, i) for i in range(10)]
    assert losses[-1].routing < losses[0].routing / 2
    assert outside() < began
    assert one.noisy  # as it was
    accuracy, _ = score(one, *data(seed=1))
    assert accuracy > 0.8


def test_after_enhancing_a_class_needs_only_its_own_modules():
    """What it is for: a sub-model of the modules that M gives a class knows that class."""
    x, y = data()
    one, optimiser, _ = trained(6, Settings(batch=32, lr=0.01, balance=0.3))
    todo = plan(one, x, y, most_modules=2)
    for i in range(10):
        enhance(one, optimiser, x, y, y, todo.targets, Settings(batch=32, lr=0.01, guide=1.0), 1, i)
    test_x, test_y = data(seed=1)
    right = []
    for c in range(CLASSES):
        chosen = sorted({*np.flatnonzero(todo.mask[0][c]).tolist(), 7})
        part = sub_model(one, (tuple(chosen),))
        right.append(score(part, test_x[test_y == c], test_y[test_y == c])[0])
    assert np.mean(right) > 0.8


def test_sub_tasks_of_classes_that_appear_together():
    y = np.array([0, 1, 2, 3, 0])
    assert by_classes(y, [[0, 2], [1, 3]]).tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"one sub-task: \[3\] are in none"):
        by_classes(y, [[0, 2], [1]])
    with pytest.raises(ValueError, match="one sub-task: some are in two"):
        by_classes(y, [[0, 1, 2], [2, 3]])


def test_a_convolutional_model_goes_through_both_stages():
    """Digits, 8 × 8: a pass of each."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.images[:256, None] / 16).astype(np.float32), digits.target[:256].astype(np.int64)
    torch.manual_seed(0)
    network = build("resnet8", {"width": 8, "shape": "1,8,8"}, 0)
    one = modularise(network, (1, 8, 8), Form(modules=4, ratio=2, k=2))
    optimiser = optimiser_of(one, SETTINGS)
    first = [pretrain(one, optimiser, x, y, SETTINGS, 0, i) for i in range(3)]
    assert first[-1].entropy < first[0].entropy
    todo = plan(one, x, y)
    assert [h.shape for h in todo.h] == [(10, 4)] * 3
    second = [enhance(one, optimiser, x, y, y, todo.targets, SETTINGS, 0, i) for i in range(2)]
    assert second[-1].entropy < first[0].entropy
    assert all(np.isfinite(loss) for pair in second for loss in pair)


def test_bad_data_is_said_in_words():
    x, y = data(10)
    one = model()
    optimiser = optimiser_of(one, SETTINGS)
    with pytest.raises(ValueError, match="as many as labels: 10 and 9"):
        pretrain(one, optimiser, x, y[1:], SETTINGS, 0, 0)
    with pytest.raises(ValueError, match="needs samples"):
        pretrain(one, optimiser, x[:0], y[:0], SETTINGS, 0, 0)
    with pytest.raises(ValueError, match="10 samples, 3 sub-tasks"):
        enhance(one, optimiser, x, y, y[:3], [], SETTINGS, 0, 0)


def test_a_last_sample_joins_the_batch_before():
    """BatchNorm cannot normalise one value a channel: 33 samples in batches of 32."""
    ends = [nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU()], [nn.Linear(8, 8), nn.ReLU()]
    network = nn.Sequential(*ends[0], *ends[1], nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    one = modularise(network, (12,), Form(modules=3, ratio=2, k=2))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        one(torch.zeros(1, 12))
    x, y = data(33)
    assert np.isfinite(pretrain(one, optimiser_of(one, SETTINGS), x, y, SETTINGS, 0, 0).entropy)


def test_fine_tuning_is_without_noise():
    x, y = data(64)
    one, other = model(), model()
    with torch.no_grad():
        other.selector.noises[0].weight.fill_(3.0)
    todo = plan(one, x, y)
    losses = [enhance(m, optimiser_of(m, SETTINGS), x, y, y, todo.targets, SETTINGS, 0, 0) for m in (one, other)]
    assert losses[0] == losses[1]
    assert pretrain(one, optimiser_of(one, SETTINGS), x, y, SETTINGS, 0, 1) != pretrain(  # control
        other, optimiser_of(other, SETTINGS), x, y, SETTINGS, 0, 1
    )
