"""Who ECLM is compared with: HeteroFL's worked example and rules, and the AdaptiveNet-like supernet by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from experiments.eclm import adaptive, heterofl
from experiments.eclm.adaptive import SKIPPED, Costs, Supernet, supernet
from experiments.eclm.worlds import Samples
from learning.models import build

MLP = {"inputs": 6, "hidden": "8,8", "classes": 3}


def some(n: int = 40) -> Samples:
    x = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    return Samples(x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0))


# ------------------------------------------------------------------ HeteroFL


def test_heterofl_s_worked_example():
    """Global [1, 2, 3, 4]; rate 1 returns [2, 2, 2, 2], rate 1/2 [4, 6]; then the second alone."""
    old = {"w": np.array([1, 2, 3, 4], np.float32)}
    whole, half = {"w": np.full(4, 2, np.float32)}, {"w": np.array([4, 6], np.float32)}
    assert heterofl.combined(old, [whole, half], [None, None], [])["w"].tolist() == [3, 4, 2, 2]
    assert heterofl.combined(old, [half], [None], [])["w"].tolist() == [4, 6, 3, 4]


def test_the_class_layer_s_rows_count_only_who_has_the_class():
    old = {"fc": np.zeros((3, 2), np.float32)}
    mine, other = ({"fc": np.full((3, n), v, np.float32)} for n, v in ((2, 1.0), (1, 5.0)))
    new = heterofl.combined(old, [mine, other], [[0], [0, 2]], ["fc"])["fc"]
    assert new.tolist() == [[3, 1], [0, 0], [5, 0]]
    bias = [{"b": np.full(3, v, np.float32)} for v in (1.0, 5.0)]
    assert heterofl.combined({"b": np.zeros(3, np.float32)}, bias, [[0], [0, 2]], ["b"])["b"].tolist() == [3, 0, 5]


@pytest.mark.parametrize("rate", [0.5, 0.25, 1 / 16])
def test_a_narrow_network_is_the_corner_of_the_whole_one(rate):
    args = heterofl.narrowed(MLP, rate)
    whole, narrow = build("mlp", MLP, 0), build("mlp", args, 1)
    heterofl.load(narrow, heterofl.state_of(whole))
    width = max(1, round(8 * rate))
    assert narrow[3].weight.shape == (width, width)
    assert torch.equal(narrow[3].weight, whole[3].weight[:width, :width])
    assert torch.equal(narrow[5].weight, whole[5].weight[:, :width])
    with pytest.raises(ValueError, match="width"):
        heterofl.narrowed({"inputs": 3}, 0.5)


def test_while_training_outputs_are_scaled_and_other_classes_logits_are_0():
    net, x = build("mlp", MLP, 0), torch.tensor(some().x)
    plain = net(x)
    with heterofl.training(net, 1.0, [0, 2]):
        masked = net(x)
    assert torch.equal(masked[:, [0, 2]], plain[:, [0, 2]])
    assert not masked[:, 1].any()
    with heterofl.training(net, 0.5, None):
        scaled = net(x)
    expected = net[5](torch.relu(2 * net[3](torch.relu(2 * net[1](x)))))
    assert torch.allclose(scaled, expected)
    assert torch.equal(net(x), plain), "nothing of it stays"


def test_norms_are_tested_with_the_device_s_own_statistics():
    net = heterofl.static(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3)))
    x = some(64).x * 3 + 1
    net(torch.tensor(x * 9))
    heterofl.seen(net, x)
    assert torch.allclose(net[0].running_mean, torch.tensor(x.mean(axis=0)), atol=1e-5)
    assert not net.training


# ------------------------------------------------------------------ AdaptiveNet-like


def test_the_strongest_rows_are_kept():
    weight = torch.tensor([[1.0, 0], [3, 3], [0, 2], [2, 2]])
    assert adaptive.strongest(weight, 0.5).tolist() == [1, 3]
    assert adaptive.strongest(weight, 0.75).tolist() == [1, 2, 3]


def test_an_mlp_s_supernet_begins_as_the_network_and_pruned_copies_of_it():
    network = build("mlp", MLP, 0).eval()
    net, x = supernet(network), torch.tensor(some().x)
    assert [sorted(map(int, o)) for o in net.options] == [[-2, -1, 0]]
    assert torch.equal(net(x), network(x))
    net.path = (-2,)
    kept = adaptive.strongest(network[3].weight, 0.5)
    hidden = torch.relu(network[3](torch.relu(network[1](x))))
    left = torch.zeros_like(hidden)
    left[:, torch.tensor(kept)] = hidden[:, torch.tensor(kept)]
    assert torch.allclose(net(x), network[5](left), atol=1e-6)


def a_resnet() -> Supernet:
    return supernet(build("resnet18", {"shape": "3,16,16", "width": 4}, 0).eval())


def test_a_resnet_s_merged_blocks_have_the_shape_of_those_they_stand_for():
    net = a_resnet()
    assert len(net.options) == 8
    assert sorted(map(int, net.options[0])) == [-2, -1, 0, 1, 2]
    assert sorted(map(int, net.options[7])) == [-2, -1, 0]
    x = net.stem(torch.zeros(2, 3, 16, 16))
    for i, there in enumerate(net.options):
        for more in (1, 2):
            if str(more) in there:
                y = x
                for covered in net.options[i : i + more + 1]:
                    y = covered["0"](y)
                assert there[str(more)](x).shape == y.shape
        x = there["0"](x)
    strides = [o["0"].conv1.stride[0] for o in net.options]
    assert [i for i, o in enumerate(net.options[:6]) if "2" not in o] == [2, 4]
    assert (strides[2:5], strides[4:7]) == ([2, 1, 2], [2, 1, 2]), "of two that stride there is none for both"


def test_a_resnet_s_branches_are_trained_whatever_is_drawn():
    net, dice = a_resnet(), np.random.default_rng(0)
    data = Samples(dice.normal(size=(64, 3, 16, 16)).astype(np.float32), dice.integers(0, 10, 64))
    before = copy.deepcopy(net.state_dict())
    adaptive.train(net, data, 8, 4, 0.01, seed=0)
    changed = {".".join(n.split(".")[:3]) for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {f"options.{i}.{o}" for i, there in enumerate(net.options) for o in there if o != "0"}


def test_what_an_option_covers_is_skipped_and_what_is_covered_by_none_is_the_original():
    net = a_resnet()
    assert adaptive._valid(net, (1, -1, SKIPPED, 0, 0, 0, 0, 2)) == (1, SKIPPED, 0, 0, 0, 0, 0, 0)
    dice = np.random.default_rng(0)
    for _ in range(20):
        path = adaptive.drawn(net, dice)
        assert adaptive._valid(net, path) == path


def test_on_the_cloud_only_new_branches_are_trained():
    net = supernet(build("mlp", MLP, 0))
    before = copy.deepcopy(net.state_dict())
    adaptive.train(net, some(), 2, 8, 0.01, seed=0)
    changed = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {f"options.0.{o}.inner.{what}" for o in (-1, -2) for what in ("weight", "bias")}


def test_a_device_finds_the_best_path_within_its_multiplications():
    net, data = supernet(build("mlp", MLP, 0)), some()
    adaptive.train(net, data, 2, 8, 0.01, seed=0)
    costs = Costs(net, (6,))
    assert costs.of((0,)) == 6 * 8 + 8 * 8 + 8 * 3
    assert costs.of((-2,)) == 6 * 8 + 8 * 4 + 8 * 3
    rows = np.random.default_rng(3).permutation(len(data))[:28]
    accuracies = {}
    for option in (0, -1, -2):
        net.path = (option,)
        hits = net(torch.tensor(data.x[rows])).argmax(dim=1) == torch.tensor(data.y[rows])
        accuracies[option] = float(hits.float().mean())
    free = adaptive.search(net, costs, data, 10**6, seed=3)
    assert free.accuracy == pytest.approx(max(accuracies.values()))
    assert adaptive.search(net, costs, data, costs.of((-2,)), seed=3).path == (-2,)
    assert adaptive.search(net, costs, data, 1, seed=3).path == (-2,), "none fits: the least"
    part = adaptive.Chosen(net, (-1,))
    net.path = (-1,)
    x = torch.tensor(data.x)
    assert torch.equal(part(x), net(x))
    assert all(p.requires_grad for p in part.parameters())


def test_evolution_looks_in_a_space_too_large_to_try(monkeypatch):
    monkeypatch.setattr(adaptive, "POPULATION", 4)
    monkeypatch.setattr(adaptive, "GENERATIONS", 1)
    net = a_resnet()
    costs = Costs(net, (3, 16, 16))
    x = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    budget = costs.of((0,) * 8) * 3 // 4
    found = adaptive.search(net, costs, Samples(x, np.zeros(3, np.int64)), budget, seed=1)
    assert found.macs == costs.of(found.path) <= budget
