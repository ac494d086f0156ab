"""Stacked training is `train`, up to rounding, for whatever devices come together."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from device_sim import batched
from device_sim.batched import train_stacked, widths
from device_sim.trainer import Job, train
from learning import models, registry
from learning.models import build, to_vector
from schemas.task import Training

SGD = Training()
ADAMW = Training(epochs=3, batch=4, learning_rate=0.01, optimiser="adamw", weight_decay=0.1, prox=0.1)


def job(samples: int, seed: int = 0, hidden: str | None = "5", training: Training = SGD, base: int = 1) -> Job:
    """A device of its own samples, with 3 inputs and 4 classes; without `hidden` a linear model."""
    name = "mlp" if hidden else "linear"
    args = {"inputs": 3, "classes": 4} | ({"hidden": hidden} if hidden else {})
    dice = np.random.default_rng(seed)
    x, y = dice.standard_normal((samples, 3)).astype(np.float32), dice.integers(0, 4, samples)
    return Job(name, args, to_vector(build(name, args, base)), x, y, training, seed)


def assert_alike(jobs: list[Job], tolerance: float = 1e-5) -> None:
    for j, run in zip(jobs, train_stacked(jobs), strict=True):
        alone = train(*j)
        np.testing.assert_allclose(run.delta, alone.delta, rtol=1e-4, atol=tolerance)
        np.testing.assert_allclose(run.losses, alone.losses, rtol=1e-4, atol=tolerance)
        assert run.loss_sum == pytest.approx(alone.loss_sum, rel=1e-4, abs=tolerance)
        assert (run.samples, run.steps) == (alone.samples, alone.steps)
        assert run.delta.dtype == run.losses.dtype == np.float32


@settings(max_examples=30)
@given(
    samples=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    hidden=st.sampled_from([None, "5", "7,3"]),
    epochs=st.integers(1, 3),
    batch=st.integers(1, 33),
    prox=st.sampled_from([0.0, 0.5]),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.01]),
    own=st.booleans(),
    steps=st.sampled_from([0, 0, 1, 2, 5]),
)
def test_ragged_devices_train_as_they_would_alone(
    samples, hidden, epochs, batch, prox, momentum, weight_decay, own, steps
):
    training = Training(epochs, batch, 0.05, prox, "sgd", momentum, weight_decay, steps)
    jobs = [job(m, seed, hidden, training, base=seed if own else 1) for seed, m in enumerate(samples)]
    if not own:
        jobs = [j._replace(base=jobs[0].base) for j in jobs]
    assert_alike(jobs)


def test_adamw_too():
    assert_alike([job(m, seed, training=ADAMW) for seed, m in enumerate((1, 9, 30, 16, 17))], tolerance=1e-4)


def test_the_comparison_sees_what_is_not_the_same():
    right = [job(9, 0), job(20, 1)]
    for wrong in (
        right[1]._replace(seed=5),
        right[1]._replace(training=Training(prox=0.1)),
        right[1]._replace(x=right[1].x[::-1].copy()),
        right[1]._replace(base=right[1].base + np.float32(1e-3)),
    ):
        alone, run = train(*wrong), train_stacked(right)[1]
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(run.delta, alone.delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [Training(epochs=2, batch=8), Training(epochs=2, batch=8, momentum=0.5, prox=1.0)])
def test_who_else_is_in_the_stack_changes_no_bit(training, monkeypatch):
    jobs = [job(m, seed, "16", training) for seed, m in enumerate((1, 9, 30, 16, 17, 30, 4, 8, 30, 23, 24, 2))]
    together = train_stacked(jobs)
    for some in ([3], [2, 5], list(range(11, -1, -1))):
        for i, run in zip(some, train_stacked([jobs[i] for i in some]), strict=True):
            assert run.delta.tobytes() == together[i].delta.tobytes()
            assert run.losses.tobytes() == together[i].losses.tobytes()
    monkeypatch.setattr(batched, "STACK", 1)
    assert [r.delta.tobytes() for r in train_stacked(jobs)] == [r.delta.tobytes() for r in together]


def test_a_device_that_diverges_spoils_only_its_own():
    jobs = [job(20, seed) for seed in range(4)]
    before = train_stacked(jobs)
    jobs[2] = jobs[2]._replace(x=jobs[2].x * np.float32(1e38))
    with np.errstate(all="ignore"):
        after = train_stacked(jobs)
    assert not np.isfinite(after[2].delta).all()
    assert [r.delta.tobytes() for r in after[:2]] == [r.delta.tobytes() for r in before[:2]]
    assert after[3].delta.tobytes() == before[3].delta.tobytes()


def test_samples_of_any_shape_are_flattened():
    flat = job(6)
    pixels = flat._replace(x=flat.x.reshape(6, 3, 1))
    assert train_stacked([pixels])[0].delta.tobytes() == train_stacked([flat])[0].delta.tobytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": np.zeros(3, np.float32)}, r"this model has 44 values, the vector has shape \(3,\)"),
        ({"y": np.zeros(5, np.int64)}, "as many as labels: 6 and 5 given"),
        ({"x": np.zeros((0, 3), np.float32), "y": np.zeros(0, np.int64)}, "needs samples"),
        ({"x": np.zeros((6, 2), np.float32)}, "takes 3 values a sample, not 2"),
        ({"y": np.arange(6)}, "has 4 classes, and the data has labels of others"),
        ({"y": np.zeros(6, np.int32)}, "labels are int64, not int32"),
        ({"y": np.arange(-1, 5) % 4 - 1}, "the data has labels of others"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        train_stacked([job(6), job(6)._replace(**changes)])


def test_what_can_be_stacked(monkeypatch):
    assert widths(job(1, hidden="7,3")) == (3, 7, 3, 4)
    assert widths(job(1, hidden=None)) == (3, 4)
    monkeypatch.setattr(registry, "models", dict(registry.models))

    def frozen() -> nn.Module:
        module = build("mlp", {}, 0)
        module[1].bias.requires_grad_(False)
        return module

    class Own(nn.Linear):
        """Might compute anything."""

    for name, builder in {
        "no-bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4, bias=False)),
        "tanh": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)),
        "ends-in-relu": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU()),
        "nothing": lambda: nn.Sequential(nn.Flatten()),
        "bare": lambda: nn.Linear(3, 4),
        "own-layer": lambda: nn.Sequential(nn.Flatten(), Own(3, 4)),
        "frozen": frozen,
    }.items():
        models.model(f"odd-{name}")(builder)
        assert widths(Job(f"odd-{name}", {}, *job(1)[2:])) == (), name


def test_stacks_hold_devices_alike_and_not_too_many(monkeypatch):
    jobs = [job(m, training=Training(batch=8)) for m in (1, 30, 8, 9, 3, 30, 4)]
    monkeypatch.setattr(batched, "STACK", 2 * 44)
    found = list(batched.stacks((3, 5, 4), jobs))
    assert sorted(i for _, some in found for i in some) == list(range(7))
    assert found == [(1, [0]), (4, [4, 6]), (8, [1, 5]), (8, [3, 2])]
    sizes = [n * k + k for n, k in pairwise((3, 5, 4))]
    assert sum(sizes) == 44
