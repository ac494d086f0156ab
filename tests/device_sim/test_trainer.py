"""Training on a device: the same bits anywhere, and models that learn."""

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from device_sim import trainer
from device_sim.data import load, share
from device_sim.trainer import central, fit, one_thread, seed_of, train
from learning import models, registry
from learning.aggregation import add, apply_mean, merge, quantise
from learning.models import UnknownModel, build, layout_of, load_vector, score, to_vector
from schemas.blocks import slices
from schemas.task import Limits, Training

ROOT = Path(__file__).parents[2]
ARGS = {"hidden": 32}
PRINT_A_RUN = """
import hashlib
import numpy as np
from device_sim.trainer import train
from learning.models import build, to_vector
from schemas.task import Training
dice = np.random.default_rng(0)
x, y = dice.random((36, 64), np.float32), dice.integers(0, 10, 36)
run = train("mlp", {"hidden": 32}, to_vector(build("mlp", {"hidden": 32}, 1)), x, y, Training(), 9)
print(hashlib.sha256(run.delta.tobytes()).hexdigest(), run.loss_sum.hex())
"""


@pytest.fixture(scope="module")
def mine():
    return share(load("digits", {}), 3, {})


@pytest.fixture(scope="module")
def base():
    return to_vector(build("mlp", ARGS, 1))


@pytest.mark.program
def test_a_run_is_bit_for_bit_the_same_in_another_process(base):
    dice = np.random.default_rng(0)
    x, y = dice.random((36, 64), np.float32), dice.integers(0, 10, 36)
    run = train("mlp", ARGS, base, x, y, Training(), 9)
    out = subprocess.run([sys.executable, "-c", PRINT_A_RUN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.split() == [hashlib.sha256(run.delta.tobytes()).hexdigest(), run.loss_sum.hex()]


def test_runs_leave_nothing_behind(mine, base):
    first = train("mlp", ARGS, base, *mine, Training(), 9)
    state = torch.get_rng_state()
    train("mlp", ARGS, base * 2, *mine, Training(epochs=2), 5)
    again = train("mlp", ARGS, base, *mine, Training(), 9)
    assert again.delta.tobytes() == first.delta.tobytes()
    assert torch.equal(torch.get_rng_state(), state)
    assert train("mlp", ARGS, base, *mine, Training(), 10).delta.tobytes() != first.delta.tobytes()


def test_a_failed_run_does_not_spoil_the_next(mine, base):
    first = train("mlp", ARGS, base, *mine, Training(), 9)
    with pytest.raises(ValueError, match="as many as labels"):
        train("mlp", ARGS, base, mine[0], mine[1][1:], Training(), 9)
    with pytest.raises(ValueError, match="values, the vector"):
        train("mlp", ARGS, base[1:], *mine, Training(), 9)
    assert train("mlp", ARGS, base, *mine, Training(), 9).delta.tobytes() == first.delta.tobytes()


def test_one_step_worked_by_hand():
    # One sample x = (1, 2) of class 0, weights 0: p = (½, ½), loss ln 2, gradient of the logits (-½, ½).
    x, y = np.array([[1, 2]], np.float32), np.array([0])
    run = train("linear", {"inputs": 2, "classes": 2}, np.zeros(6, np.float32), x, y, Training(epochs=1), 0)
    np.testing.assert_allclose(run.delta, [0.05, 0.1, -0.05, -0.1, 0.05, -0.05], rtol=1e-6)
    assert run.loss_sum == pytest.approx(math.log(2))
    assert (run.samples, run.steps) == (1, 1)


def softmax_sgd(x: np.ndarray, y: np.ndarray, w: np.ndarray, steps: int, rate: float, prox: float) -> np.ndarray:
    """Full-batch SGD on softmax regression in float64: w is the weight row by row and then the bias, flat."""
    w0, classes = w.astype(np.float64), len(w) // (x.shape[1] + 1)
    w = w0.copy()
    for _ in range(steps):
        weight, bias = w[:-classes].reshape(classes, -1), w[-classes:]
        p = np.exp(x @ weight.T + bias)
        off = (p / p.sum(axis=1, keepdims=True) - np.eye(classes)[y]) / len(y)  # of the mean loss, by logit
        gradient = np.concatenate([(off.T @ x).reshape(-1), off.sum(axis=0)])
        w = w - rate * (gradient + prox * (w - w0))
    return w - w0


@pytest.mark.parametrize("prox", [0.0, 0.1, 3.0])
def test_prox_pulls_towards_the_base_as_worked_in_numpy(prox):
    dice = np.random.default_rng(5)
    x, y = dice.standard_normal((12, 3)).astype(np.float32), dice.integers(0, 4, 12)
    start = dice.standard_normal(16).astype(np.float32)
    training = Training(epochs=9, batch=12, learning_rate=0.2, prox=prox)
    run = train("linear", {"inputs": 3, "classes": 4}, start, x, y, training, 0)
    np.testing.assert_allclose(run.delta, softmax_sgd(x, y, start, 9, 0.2, prox), rtol=1e-4, atol=1e-6)
    for wrong in (-prox, 2 * prox, 0.0) if prox else (0.1,):  # sign, factor of the square, none
        off = np.abs(run.delta - softmax_sgd(x, y, start, 9, 0.2, wrong)).max()
        assert off > 1e-3, wrong


def test_prox_shortens_the_way_and_is_not_in_the_loss(mine, base):
    runs = [train("mlp", ARGS, base, *mine, Training(prox=mu), 9) for mu in (0.0, 0.1, 1.0)]
    lengths = [float(np.linalg.norm(r.delta)) for r in runs]
    assert lengths == sorted(lengths, reverse=True)
    assert runs[0].delta.tobytes() == train("mlp", ARGS, base, *mine, Training(), 9).delta.tobytes()
    whole = {"batch": len(mine[1]), "learning_rate": 1e-3}
    plain = train("mlp", ARGS, base, *mine, Training(epochs=1, **whole), 9)
    first = train("mlp", ARGS, base, *mine, Training(epochs=1, prox=100.0, **whole), 9)
    second = train("mlp", ARGS, base, *mine, Training(epochs=2, prox=100.0, **whole), 9)
    assert first.delta.tobytes() == plain.delta.tobytes()  # nothing pulls yet
    module = build("mlp", ARGS, 0)
    load_vector(module, base + first.delta)
    assert second.loss_sum == pytest.approx(score(module, *mine)[1] * len(mine[1]), rel=1e-5)


def test_central_training_knows_no_prox():
    d, args = load("digits", {}), {"hidden": 8}
    few = type(d)(**{**vars(d), "x": d.x[:100], "y": d.y[:100]})
    assert central("mlp", args, few, 2, Training(prox=50.0), 0) == central("mlp", args, few, 2, Training(), 0)


def test_the_loss_is_the_last_epochs_and_falls(mine, base):
    x, y = mine
    module = build("mlp", ARGS, 0)
    load_vector(module, base)
    whole = Training(epochs=1, batch=len(y))  # one batch: the loss before the only step is the base's
    assert train("mlp", ARGS, base, x, y, whole, 0).loss_sum == pytest.approx(score(module, x, y)[1] * len(y), rel=1e-5)
    losses = [train("mlp", ARGS, base, x, y, Training(epochs=n), 0).loss_sum for n in (1, 5, 20)]
    assert losses == sorted(losses, reverse=True)
    run = train("mlp", ARGS, base, x[:21], y[:21], Training(epochs=3, batch=10), 0)
    assert (run.samples, run.steps) == (21, 9)  # a last batch of one sample, too


def test_losses_are_by_sample_before_the_step_each_takes_part_in(mine, base):
    x, y = mine
    n = len(y)
    module = build("mlp", ARGS, 0)
    load_vector(module, base)
    run = train("mlp", ARGS, base, x, y, Training(epochs=1, batch=n), 0)  # one step: all before it, at the base
    alone = [score(module, x[i : i + 1], y[i : i + 1])[1] for i in range(n)]
    np.testing.assert_allclose(np.sort(run.losses), np.sort(alone), rtol=1e-5)
    for training in (Training(epochs=3, batch=10), Training(epochs=2, batch=7, optimiser="adamw", learning_rate=0.01)):
        run = train("mlp", ARGS, base, x, y, training, 0)
        assert (run.losses.shape, run.losses.dtype) == ((n,), np.float32)
        assert run.losses.sum(dtype=np.float64) == pytest.approx(run.loss_sum, rel=1e-6)
    # The first batch of the second pass is seen by the model that the first pass left.
    first, second = (train("mlp", ARGS, base, x, y, Training(epochs=e, batch=10), 4) for e in (1, 2))
    load_vector(module, base + first.delta)
    dice = torch.Generator().manual_seed(4)
    batch = [torch.randperm(n, generator=dice) for _ in range(2)][1][:10].numpy()
    assert second.losses[:10].mean() == pytest.approx(score(module, x[batch], y[batch])[1], rel=1e-5)


def by_hand(x: np.ndarray, y: np.ndarray, w: np.ndarray, training: Training) -> np.ndarray:
    """Full-batch steps on softmax regression in float64 by the optimiser's published formula; w flat, as `softmax_sgd` has it."""
    w0, classes = w.astype(np.float64), len(w) // (x.shape[1] + 1)
    w, m, v = w0.copy(), np.zeros(len(w)), np.zeros(len(w))
    for t in range(1, training.epochs + 1):
        weight, bias = w[:-classes].reshape(classes, -1), w[-classes:]
        p = np.exp(x @ weight.T + bias)
        off = (p / p.sum(axis=1, keepdims=True) - np.eye(classes)[y]) / len(y)
        g = np.concatenate([(off.T @ x).reshape(-1), off.sum(axis=0)]) + training.prox * (w - w0)
        if training.optimiser == "adamw":  # Loshchilov and Hutter, algorithm 2
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            w = w - training.learning_rate * (step + training.weight_decay * w)
        else:
            m = training.momentum * m + g + training.weight_decay * w
            w = w - training.learning_rate * m
    return w - w0


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9},
        {"weight_decay": 0.5},
        {"momentum": 0.5, "weight_decay": 0.1, "prox": 0.5},
        {"optimiser": "adamw", "learning_rate": 0.01},
        {"optimiser": "adamw", "learning_rate": 0.05, "weight_decay": 0.3, "prox": 0.5},
    ],
    ids=str,
)
def test_optimisers_as_worked_in_numpy(settings):
    dice = np.random.default_rng(5)
    x, y = dice.standard_normal((12, 3)).astype(np.float32), dice.integers(0, 4, 12)
    start = dice.standard_normal(16).astype(np.float32)
    training = Training(**{"epochs": 9, "batch": 12, "learning_rate": 0.2} | settings)
    run = train("linear", {"inputs": 3, "classes": 4}, start, x, y, training, 0)
    np.testing.assert_allclose(run.delta, by_hand(x, y, start, training), rtol=1e-3, atol=1e-5)
    for name in settings.keys() - {"learning_rate"}:
        plain = {k: v for k, v in settings.items() if k != name}
        other = Training(**{"epochs": 9, "batch": 12, "learning_rate": 0.2} | plain)
        assert np.abs(run.delta - by_hand(x, y, start, other)).max() > 1e-3, name


@pytest.mark.parametrize("training", [Training(optimiser="adamw", learning_rate=0.01), Training(momentum=0.9)], ids=str)
def test_weights_may_lie_in_memory_as_a_model_likes(training):
    """torch's fused step goes through memory, and does not look whether a gradient lies there as its weights do."""

    class Own(nn.Module):
        def __init__(self, last: bool):
            super().__init__()
            w = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(3))
            self.w = nn.Parameter(w.to(memory_format=torch.channels_last) if last else w)

        def forward(self, x):
            return nn.functional.linear(x, self.w.reshape(4, 12))

    dice = np.random.default_rng(5)
    x, y = dice.standard_normal((20, 12)).astype(np.float32), dice.integers(0, 4, 20)
    last, usual = Own(True), Own(False)
    for module in (last, usual):
        fit(module, x, y, training, 0)
    np.testing.assert_allclose(to_vector(last), to_vector(usual), rtol=1e-5, atol=1e-7)


def test_optimisers_begin_anew_in_each_run(mine, base):
    for training in (Training(momentum=0.9), Training(optimiser="adamw", learning_rate=0.01)):
        runs = [train("mlp", ARGS, base, *mine, training, 9) for _ in range(2)]
        assert runs[0].delta.tobytes() == runs[1].delta.tobytes()


def test_what_cannot_be_trained_is_refused(mine, base):
    with pytest.raises(UnknownModel):
        train("nobody", {}, base, *mine, Training(), 0)
    with pytest.raises(ValueError, match="needs samples"):
        train("mlp", ARGS, base, mine[0][:0], mine[1][:0], Training(), 0)


def test_a_run_that_diverges_is_refused_when_rounded(mine, base):
    run = train("mlp", ARGS, base, *mine, Training(learning_rate=1e30), 0)
    with pytest.raises(ValueError, match="NaN"):
        quantise(run.delta, Limits().unit, Limits().largest)


def test_models_with_dice_and_counters_repeat_too(mine, monkeypatch):
    monkeypatch.setattr(registry, "models", dict(registry.models))

    @models.model("noisy")
    def noisy() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8, momentum=None), nn.Dropout(0.5), nn.Linear(8, 10))

    start = to_vector(build("noisy", {}, 0))
    runs = []
    for elsewhere in range(3):
        torch.manual_seed(elsewhere)
        runs.append(train("noisy", {}, start, *mine, Training(epochs=2, batch=len(mine[1])), 9))
    assert len({r.delta.tobytes() for r in runs}) == 1


def test_frozen_parameters_stay(mine):
    module = build("mlp", ARGS, 0)
    module[1].weight.requires_grad_(False)
    before, rest = module[1].weight.clone(), module[3].weight.clone()
    fit(module, *mine, Training(epochs=1), 0)
    assert torch.equal(module[1].weight, before)
    assert not torch.equal(module[3].weight, rest)


def test_torch_computes_on_one_thread(mine, base):
    torch.set_num_threads(2)
    train("mlp", ARGS, base, *mine, Training(epochs=1), 0)
    assert torch.get_num_threads() == 1
    one_thread()
    assert torch.get_num_threads() == 1


def test_seeds_are_reached_from_here():
    assert trainer.seed_of is seed_of
    assert seed_of("d1", "t", 1) != seed_of("d1", "t", 2)


# ------------------------------------------------------------------ does it learn


def test_federated_averaging_learns_digits_nearly_as_well_as_central_training():
    """FedAvg as the demo runs it, in a few lines: two zones, 10 of their 20 devices a round, 2 epochs of 5 rounds."""
    seed, limits, args = 0, Limits(), {"hidden": 64}
    d, module = load("digits", {}), build("mlp", args, seed)
    sizes = layout_of(module).sizes
    dice = np.random.default_rng(seed)
    model = to_vector(module)
    untrained = score(module, d.test_x, d.test_y)[0]
    for epoch in range(2):
        zones, samples = [], []
        for zone in range(2):
            vector, seen = model, 0
            for n in range(5):
                sums, weight = np.zeros(len(vector), np.int64), 0
                for device in map(int, dice.choice(20, 10, replace=False) + 20 * zone):
                    x, y = share(d, device, {"devices": 40, "alpha": 0.5})
                    run = train("mlp", args, vector, x, y, Training(), seed_of(device, "demo", 5 * epoch + n, seed))
                    weight += run.samples
                    for block in slices(sizes):
                        weighted = run.delta[block].astype(np.float64) * run.samples
                        add(sums[block], *quantise(weighted, limits.unit, limits.largest))
                vector = apply_mean(vector, sums, [weight] * len(sizes), sizes, limits.unit)
                seen += weight
            zones.append(vector)
            samples.append(seen)
        model = merge(zones, samples)
    load_vector(module, model)
    accuracy = score(module, d.test_x, d.test_y)[0]
    reached = central("mlp", args, d, epochs=10, training=Training(), seed=seed)
    assert untrained < 0.3
    assert reached > 0.92
    assert 0.85 <= accuracy <= reached + 0.02


@pytest.mark.parametrize(("samples", "steps"), [(40, 3), (7, 1), (25, 3), (25, 4), (25, 8), (9, 5)])
def test_as_many_steps_as_asked_for_whatever_there_is(samples, steps):
    training = Training(batch=10, steps=steps)
    drawn = [b.tolist() for b in trainer.batches(samples, training, 4)]
    assert len(drawn) == steps == training.taken(samples)
    flat = [i for b in drawn for i in b]
    assert len(flat) == training.drawn(samples)
    for at in range(0, len(flat), samples):  # each pass has each sample once
        assert len(set(flat[at : at + samples])) == len(flat[at : at + samples])
    dice = np.random.default_rng(0)
    x, y = dice.random((samples, 64), np.float32), dice.integers(0, 10, samples)
    run = train("linear", {}, to_vector(build("linear", {}, 1)), x, y, training, 4)
    assert (run.steps, run.samples, len(run.losses)) == (steps, len(set(flat)), len(set(flat)))


def test_the_losses_are_those_of_the_last_time_a_sample_was_drawn():
    dice = np.random.default_rng(0)
    x, y = dice.random((5, 64), np.float32), dice.integers(0, 10, 5)
    base = to_vector(build("linear", {}, 1))
    before = train("linear", {}, base, x, y, Training(batch=2, steps=3), 4)  # one pass
    after = train("linear", {}, base, x, y, Training(batch=2, steps=4), 4)  # and two samples again
    drawn = [i for b in trainer.batches(5, Training(batch=2, steps=4), 4) for i in b.tolist()]
    once, again = drawn[:5], drawn[5:]
    kept = [at for at, i in enumerate(once) if i not in again]
    np.testing.assert_array_equal(after.losses[:3], before.losses[kept])
    assert not np.isin(after.losses[3:], before.losses).any()
