"""One adaptation step, all of it but the wire: profile, derive, fetch, train, send, aggregate (ECLM §6, ii to iv)."""

from pathlib import Path

import numpy as np
import torch

from learning.aggregation import quantise
from learning.models import build
from learning.modular.aggregation import Contribution, Sums, weights_of
from learning.modular.costs import structure_of
from learning.modular.derivation import Derivation, needs
from learning.modular.forms import Form
from learning.modular.model import Blueprint, importance, layout_of, modularise, received, to_vector
from learning.modular.structure import blocks_of, cut, owners
from schemas.blocks import slices

FORM, SHAPE, ARGS = Form(modules=6, ratio=2, k=2), (10,), {"inputs": 10, "hidden": "12,12,12", "classes": 3}
BLUEPRINT = Blueprint(lambda: build("mlp", ARGS, 0), SHAPE, FORM)
UNIT = -24


def test_devices_of_different_data_and_means_change_just_the_modules_they_had():
    torch.manual_seed(0)
    cloud = modularise(build("mlp", ARGS, 0), SHAPE, FORM)
    for linear in cloud.selector.gates:
        torch.nn.init.normal_(linear.weight, std=2)
    layout, vector, structure = layout_of(cloud), to_vector(cloud), structure_of(cloud)
    answer = Derivation(structure, batch=8)
    sums, trained, expected = Sums(layout), set(), {}
    whole = needs(structure.cost(structure.whole), 8)
    for seed, share in enumerate((0.6, 0.8)):
        x = np.random.default_rng(seed).normal(loc=2 * seed - 1, size=(30, 10)).astype(np.float32)
        y = np.arange(30) % 3
        a = importance(cloud, x)
        choice = answer(a.tolist(), whole._replace(memory=int(share * whole.memory)))
        fetched = blocks_of(layout, choice)
        part = received(BLUEPRINT, choice, cut(vector, layout, fetched))
        base = to_vector(part)
        assert 4 * len(base) == structure.cost(choice).bytes < whole.bytes

        optimiser = torch.optim.SGD([p for p in part.parameters() if p.requires_grad], lr=0.1)
        for _ in range(5):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(part(torch.tensor(x)), torch.tensor(y)).backward()
            optimiser.step()

        delta, at = {}, 0
        for b in fetched:
            delta[b] = (to_vector(part) - base)[at : at + layout.sizes[b]]
            at += layout.sizes[b]
        weights = weights_of(layout, choice, a.tolist(), len(x))
        values = {b: quantise(delta[b].astype(np.float64) * w, UNIT, 2.0**17) for b, w in weights.items()}
        sums.add(Contribution({}, weights, values), {})
        trained |= set(weights)
        for b, w in weights.items():
            expected.setdefault(b, []).append((w, delta[b]))

    new = sums.model(vector, UNIT)
    for b, piece in enumerate(slices(layout.sizes)):
        if b not in trained:
            assert np.array_equal(new[piece], vector[piece]), owners(layout)[b]
        else:
            mean = sum(w * d for w, d in expected[b]) / sum(w for w, _ in expected[b])
            assert np.allclose(new[piece] - vector[piece], mean, atol=1e-5)
    names = owners(layout)
    both = {names[b] for b in trained if len(expected[b]) == 2}
    one = {names[b] for b in trained if len(expected[b]) == 1}
    none = {name for name in names if "/" in name} - both - one
    assert "" in both
    assert one
    assert none
    assert {name for name, version in sums.versions({}).items() if version} == both | one


def test_the_example_of_the_document_runs():
    text = (Path(__file__).parents[3] / "docs/modular.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    names: dict = {"x": np.random.default_rng(0).random((4, 3, 32, 32), np.float32)}
    exec(code, names)
    cost = names["structure"].cost(names["choice"])
    assert to_vector(names["mine"]).nbytes == cost.bytes <= 6_000_000
    assert cost.memory(16) <= 200_000_000
    assert cost.training_macs <= 10**9
