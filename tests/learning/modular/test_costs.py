"""What parts cost: by hand, and against what is known of the networks."""

import pytest
import torch

from learning.models import build
from learning.modular.costs import measure, structure_of
from learning.modular.derivation import derive, needs
from learning.modular.forms import FORMS, Form
from learning.modular.model import layout_of, modularise, sub_model
from learning.modular.structure import blocks_of
from schemas.modules import Cost


def test_an_mlp_by_hand():
    model = modularise(build("mlp", {"inputs": 561, "hidden": "256,256", "classes": 6}, 0), (561,), FORMS["mlp"])
    structure = structure_of(model)
    module = 256 * 32 + 32 + 32 * 256 + 256
    assert structure.layers == ((Cost(module, module, 32 + 256, 2 * 256 * 32),) * 15 + (Cost(),),)
    ends, selector = 561 * 256 + 256 + 256 * 6 + 6, 561 * 32 + 32 + 32 * 16  # without W_noise
    macs = 561 * 256 + 256 * 6 + 561 * 32 + 32 * 16
    assert structure.shared == Cost(ends + selector, ends + selector, 256 + 6 + 32 + 16, macs)


def test_a_convolution_by_hand_and_resnet_18_as_it_is_known():
    conv = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, 2, 1), torch.nn.BatchNorm2d(5), torch.nn.ReLU())
    assert measure(conv, (3, 8, 6)) == (2 * 5 * 4 * 3, 5 * 4 * 3 * 3 * 9)
    macs = measure(build("resnet18", {}, 0), (3, 32, 32))[1]
    assert round(macs / 1e9, 2) == 0.56  # as published of the form for CIFAR
    assert conv.training  # as it was


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_costs_are_those_of_the_real_sub_models(norm):
    """Their sum says how many values a sub-model sends, has as parameters, and multiplies."""
    model = modularise(build("resnet8", {"width": 8}, 0), (3, 32, 32), Form(modules=4, ratio=2, k=2, norm=norm))
    structure, layout = structure_of(model), layout_of(model)
    choice = ((0, 3), (1, 2, 3), (0, 1, 2, 3))
    part, cost = sub_model(model, choice), structure.cost(choice)
    blocks = blocks_of(layout, choice)
    assert cost.bytes == 4 * sum(layout.sizes[b] for b in blocks)
    assert cost.parameters == sum(p.numel() for p in part.parameters())
    assert {layer[0].values > layer[0].parameters for layer in structure.layers} == {norm == "batch"}
    shared = sum(layout.sizes[b] for b in blocks_of(layout, ((3,),) * 3))
    assert structure.shared.values == shared
    of_modules = [
        measure(p, layer.inputs) for layer in part.layers for p in layer.parts.values() if list(p.parameters())
    ]
    assert cost.activations - structure.shared.activations == sum(a for a, _ in of_modules)
    assert cost.macs - structure.shared.macs == sum(m for _, m in of_modules)


def test_a_device_of_a_third_gets_a_sub_model_of_a_third():
    model = modularise(build("resnet18", {"width": 16}, 0), (3, 32, 32), Form(ratio=4))
    structure = structure_of(model)
    importance = [[(n + 1) / 136 for n in range(16)]] * 4
    whole = needs(structure.cost(structure.whole), 16)
    limits = whole._replace(bytes=whole.bytes // 3)
    found = derive(structure, importance, limits, 16)
    assert 0.9 * limits.bytes < structure.cost(found).bytes <= limits.bytes
    values = sum(t.numel() for n, t in sub_model(model, found).state_dict().items() if "num_batches" not in n)
    assert structure.cost(found).values == values


def test_a_sub_model_has_no_structure_of_its_own():
    model = modularise(build("mlp", {"hidden": "16,16"}, 0), (64,), Form(modules=4, k=2))
    with pytest.raises(ValueError, match="this is a sub-model"):
        structure_of(sub_model(model, ((0, 3),)))
