"""Tensors that are not weights: which are in the vector, in which blocks, and how a model is scored without them."""

import numpy as np
import pytest
import torch
from torch import nn

from learning import models
from learning.models import layout_of, load_vector, rules_of, score, to_vector
from schemas.blocks import STATISTICS

KEPT = {"*running_mean": "keep", "*running_var": "keep"}


def normed(rules: dict[str, str] | None = None) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.BatchNorm1d(2))
    if rules is not None:
        module.tensor_rules = rules
    return module


def test_the_rule_of_each_tensor():
    rules = rules_of(normed())
    assert {n for n, rule in rules.items() if rule == "keep"} == {"1.num_batches_tracked", "3.num_batches_tracked"}
    kept = rules_of(normed({"1.running_*": "keep", "1.running_var": "mean"}))  # the last that fits
    assert {n for n in rules if rules[n] != kept[n]} == {"1.running_mean"}


def test_the_vector_is_parameters_then_statistics_and_no_block_has_both():
    layout = layout_of(normed())
    names = [t.name for t in layout.tensors]
    assert names[:8] == [f"{i}.{what}" for i in range(4) for what in ("weight", "bias")]
    assert names[8:] == [f"{i}.running_{what}" for i in (1, 3) for what in ("mean", "var")]
    assert [t.group for t in layout.tensors] == [""] * 8 + [STATISTICS] * 4
    assert layout.sizes == (9 + 6 + 8 + 4, 6 + 4)
    assert to_vector(normed())[-10:].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]


def test_what_is_kept_is_not_sent_and_stays():
    module = normed(KEPT)
    assert [t.name for t in layout_of(module).tensors] == [n for n, _ in module.named_parameters()]
    module(torch.rand(50, 2))
    before = {n: t.clone() for n, t in module.named_buffers()}
    load_vector(module, np.ones_like(to_vector(module)))
    assert all(torch.equal(t, before[n]) for n, t in module.named_buffers())
    assert all((p == 1).all() for p in module.parameters())


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"*.running_mean": "last"}, r"rule of \*.running_mean is 'last'; rules are mean and keep"),
        ({"*.runing_mean": "keep"}, r"is for no tensor: there are 0.weight"),
        ({"0.weight": "keep"}, "0.weight is a parameter"),
        ({"1.*tracked": "mean"}, "1.num_batches_tracked is not of floats"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules, words):
    with pytest.raises(ValueError, match=words):
        layout_of(normed(rules))


# ------------------------------------------------------------------ scoring with kept statistics


def samples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Far from mean 0 and variance 1; the first value says the class."""
    x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    return 5 + 3 * x, (x[:, 0] > 0).astype(np.int64)


def solved(rules: dict[str, str] | None) -> nn.Module:
    """Normalises, then looks at the first value."""
    module = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[-9.0, 0.0], [9.0, 0.0]]))
        module[1].bias.zero_()
    if rules is not None:
        module.tensor_rules = rules
    return module


def test_statistics_that_have_seen_nothing_are_taken_from_the_samples_and_forgotten(monkeypatch):
    x, y = samples(900)
    assert score(solved(None), x, y)[0] < 0.6  # mean 0 and variance 1 are wrong
    module = solved(KEPT)
    one = score(module, x, y)
    assert one[0] > 0.97
    assert module.training
    assert module[0].momentum == 0.1
    assert (module[0].running_mean.tolist(), int(module[0].num_batches_tracked)) == ([0, 0], 0)
    monkeypatch.setattr(models, "_SCORED", 100)  # in batches: the mean of their statistics
    order = np.argsort(x[:, 0])
    assert score(module, x[order], y[order])[0] == pytest.approx(one[0], abs=0.03)
    assert score(module, x[:101], y[:101])[0] > 0.9  # none of these batches is of one sample
    assert 0 <= score(module, x[:1], y[:1])[0] <= 1


def test_statistics_of_ones_own_are_used_as_they_are():
    x, y = samples(900)
    module = solved(KEPT)
    module(torch.tensor(x) + 100)  # what this device has seen
    seen = module[0].running_mean.clone()
    assert score(module, x, y)[0] < 0.6
    assert torch.equal(module[0].running_mean, seen)
