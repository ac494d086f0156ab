"""Networks made modular: the sizes that the research sheet says, sub-models that are what the whole does with those modules alone, and
vectors of which a device has just its blocks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from learning import models
from learning.models import build
from learning.modular.forms import FORMS, Form, form_of
from learning.modular.gating import top_k
from learning.modular.model import (
    Blueprint,
    importance,
    layout_of,
    load_vector,
    modularise,
    received,
    routes,
    sub_model,
    to_vector,
)
from learning.modular.modules import Bypass, ModuleLayer
from learning.modular.stages import stages
from learning.modular.structure import NOISE, SELECTOR, blocks_of, cut, owners, paste
from schemas.blocks import BLOCK, STATISTICS
from schemas.modules import Modules


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def first(k: int, model) -> tuple:
    """k shrunk modules of each layer, and the residual one."""
    return tuple((*range(k), layer.number - 1) for layer in model.layers)


SMALL = {
    "mlp": ("mlp", {"inputs": 20, "hidden": "24,16,8", "classes": 3}, (20,), Form(modules=4, ratio=2, k=2)),
    "mlp-run": (
        "mlp",
        {"inputs": 20, "hidden": "24,16,8", "classes": 3},
        (20,),
        Form(modules=4, ratio=2, k=2, hidden="run"),
    ),
    "resnet": ("resnet18", {"width": 4, "shape": "3,16,16"}, (3, 16, 16), Form(modules=4, ratio=2, k=2)),
    "resnet-group": ("resnet8", {"width": 4}, (3, 32, 32), Form(modules=4, ratio=2, k=2, norm="group")),
    "kept": ("resnet8", {"width": 4, "statistics": "keep"}, (3, 32, 32), Form(modules=4, ratio=2, k=2)),
    "cnn1d": ("cnn1d", {"shape": "32,3", "channels": "4,8", "hidden": 12}, (32, 3), Form(modules=4, ratio=2, k=2)),
}


def small(name: str, seed: int = 0):
    """A modular model whose selector and statistics are not as they were made, and samples for it."""
    model, args, shape, form = SMALL[name]
    torch.manual_seed(seed)
    modular = modularise(build(model, args, seed), shape, form)
    for linear in modular.selector.gates:
        nn.init.normal_(linear.weight)
    x = torch.rand(9, *shape)
    modular.train()
    with torch.no_grad():
        modular(x)
    return modular.eval(), x


# ------------------------------------------------------------------ sizes

SIZES = [
    # model, arguments, sample, form; the original [M]; h of each stage; all modules, and 2, 4, 8 shrunk ones a layer [M]
    ("resnet18", {}, FORMS["resnet18"], 11.17, [8, 16, 32, 64], 11.4, [1.52, 3.04, 6.07]),
    ("resnet18", {}, Form(ratio=2.73), 11.17, [24, 47, 94, 188], 41.7, [5.56, 11.1, 22.2]),
    ("resnet18", {"width": 16}, Form(ratio=4), 0.70, [4, 8, 16, 32], 1.62, [0.22, 0.43, 0.86]),
    ("vgg16", {"classes": 100}, FORMS["vgg16"], 14.8, [22, 43, 43], 25.4, [1.93, 3.55, 6.79]),
    ("resnet34", {"classes": 35, "shape": "1,32,32"}, FORMS["resnet34"], 21.3, [13, 26, 52], 21.8, [1.63, 3.03, 5.81]),
    (
        "resnet34",
        {"classes": 35, "width": 16, "shape": "1,32,32"},
        Form(32, 4, last=3),
        1.34,
        [8, 16, 32],
        4.54,
        [0.31, 0.60, 1.19],
    ),
]


@pytest.mark.parametrize(("name", "args", "form", "original", "widths", "cloud", "parts"), SIZES)
def test_sizes_are_those_of_the_research_sheet(name, args, form, original, widths, cloud, parts):
    """To the digits it gives, the selector apart (8 k on a device). On no device: nothing is computed."""
    shape = (int(args.get("shape", "3")[0]), 32, 32)
    with torch.device("meta"):
        network = build(name, args, 0)
        assert rounded(parameters(network), original) == original
        model = modularise(network, shape, form)
    assert [form.width(layer.outputs[0]) for layer in model.layers] == widths
    sizes = [parameters(model) - parameters(model.selector)]
    subs = [sub_model(model, first(k, model)) for k in (2, 4, 8)]
    assert all(7000 < parameters(s.selector) < 9000 for s in subs)
    sizes += [parameters(s) - parameters(s.selector) for s in subs]
    said = [cloud, *parts]
    assert [rounded(size, s) for size, s in zip(sizes, said, strict=True)] == said


def rounded(size: int, said: float) -> float:
    """In millions, to as many digits after the point as the sheet gives of that size."""
    return round(size / 1e6, 2 if said < 10 or said == 11.17 else 1)


def test_a_resnet_module_has_the_parameters_that_its_layers_need():
    """Stage 4 of ResNet-18, 256 → 512, h = 64: four 3×3 convolutions, two 1×1 ways around, their norms."""
    with torch.device("meta"):
        model = modularise(build("resnet18", {}, 0), (3, 32, 32), FORMS["resnet18"])
    convolutions = 9 * (256 * 64 + 64 * 64 + 64 * 64 + 64 * 512) + 256 * 64 + 64 * 512
    norms = 2 * (4 * 64 + 2 * 512)
    assert [parameters(part) for part in model.layers[3].parts.values()] == [convolutions + norms] * 15 + [0]


def test_the_mlp_of_har_has_one_layer_in_the_middle():
    model = modularise(build("mlp", {"inputs": 561, "hidden": "256,256", "classes": 6}, 0), (561,), FORMS["mlp"])
    (layer,) = model.layers
    assert [parameters(part) for part in layer.parts.values()] == [256 * 32 + 32 + 32 * 256 + 256] * 15 + [0]
    assert parameters(model.network) - parameters(layer) == 561 * 256 + 256 + 256 * 6 + 6


def test_a_run_of_hidden_layers_is_one_stage_the_first_among_them():
    """HAR's MLP, ρ 16: modules of two layers, 369 → 16 → 256, and nothing shared but the head and the selector."""
    form = form_of("mlp", Modules(ratio=16, hidden="run"))
    assert form == Form(ratio=16, hidden="run")
    network = build("mlp", {"inputs": 369, "hidden": "256,256", "classes": 6}, 0)
    original = parameters(network)
    model = modularise(network, (369,), form)
    (layer,) = model.layers
    module = 369 * 16 + 16 + 16 * 256 + 256
    assert [parameters(part) for part in layer.parts.values()] == [module] * 15 + [0]
    assert parameters(model.network) - parameters(layer) == 256 * 6 + 6
    assert parameters(model.network) == pytest.approx(original, rel=0.05), "about the original's size"
    one = modularise(build("mlp", {"hidden": 16}, 0), (64,), form).layers[0].parts["0"]  # of one hidden layer
    assert [tuple(m.weight.shape) for m in one if isinstance(m, nn.Linear)] == [(4, 64), (16, 4)]


def test_new_weights_are_drawn_from_the_seed_alone():
    before = torch.random.get_rng_state()
    a, b, other = (
        to_vector(modularise(build("mlp", {"hidden": "16,16"}, 0), (64,), Form(modules=3, k=2), seed=seed))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(a, b)
    assert not np.array_equal(a, other)
    assert torch.equal(torch.random.get_rng_state(), before)


# ------------------------------------------------------------------ which stages


@pytest.mark.parametrize(
    ("name", "args", "found"),
    [
        ("mlp", {"hidden": "64,32,16"}, [("3", "linear"), ("5", "linear")]),
        ("cnn", {}, [("4", "plain"), ("8", "linear")]),
        ("vgg16", {}, [("8", "plain"), ("15", "plain"), ("25", "plain"), ("35", "plain")]),
        ("resnet8", {}, [(f"layer{i}", "residual") for i in (1, 2, 3)]),
        ("resnet34", {}, [(f"layer{i}", "residual") for i in (1, 2, 3, 4)]),
    ],
)
def test_repeated_blocks_are_found_and_the_stem_is_left(name, args, found):
    with torch.device("meta"):
        network = build(name, args, 0)
    got = stages(network, "batch")
    if name == "vgg16":
        assert [len(s.children) for s in got] == [6, 9, 9, 9]
    assert [(s.name, s.kind) for s in got] == found
    assert [s.name for s in stages(network, "batch", last=1)] == [found[-1][0]]


def test_a_run_is_of_alike_units_and_ends_at_what_is_none():
    def unit(n: int, m: int, normed: bool, **kw):
        return [nn.Conv2d(n, m, 3, padding=1, **kw), *[nn.BatchNorm2d(m)] * normed, nn.ReLU()]

    stem, normed, plain = unit(3, 4, True), [*unit(4, 8, True), *unit(8, 8, True)], unit(8, 8, False)
    grouped, bare = unit(8, 8, True, groups=2), [nn.Conv2d(8, 8, 3, padding=1), nn.Sigmoid()]
    network = nn.Sequential(*stem, nn.MaxPool2d(2), *normed, *plain, *grouped, *bare, *unit(8, 6, False))
    found = stages(network, "batch")
    assert [(s.children[0], len(s.children)) for s in found] == [("4", 6), ("10", 2), ("17", 2)]
    norms = [[m for m in s.shrunk(8, 4, 8).modules() if isinstance(m, nn.BatchNorm2d)] for s in found]
    assert [len(n) for n in norms] == [2, 0, 0]
    assert modularise(network, (3, 8, 8), Form(modules=3, ratio=2, k=2))(torch.rand(2, 3, 8, 8)).shape == (2, 6, 4, 4)


def test_convolutions_without_padding_are_made_modular_too():
    """LeNet-5: 12 → 8 pixels, which no stride gives."""
    features = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*features, nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 10))
    model = modularise(network, (1, 28, 28), Form(modules=4, k=4))
    assert [(layer.inputs, layer.outputs) for layer in model.layers] == [((6, 12, 12), (16, 8, 8)), ((256,), (120,))]
    assert model(torch.rand(5, 1, 28, 28)).shape == (5, 10)


class Own(nn.Module):
    """A network with blocks of its own, which says what is a stage and how a narrower one is built."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 10), nn.Linear(12, 2)
        self.body = nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 12))
        self.module_layers = {
            "body": lambda n, h, m: nn.Sequential(nn.Linear(n, h), nn.Tanh(), nn.Linear(h, m)),
        }

    def forward(self, x):
        return self.head(self.body(torch.relu(self.stem(x))))


def test_a_network_of_one_s_own_says_its_stages():
    model = modularise(Own(), (6,), Form(modules=3, ratio=2, k=2))
    (layer,) = model.layers
    assert (layer.inputs, layer.outputs) == ((10,), (12,))
    assert parameters(layer.parts["0"]) == 10 * 6 + 6 + 6 * 12 + 12
    assert model(torch.rand(4, 6)).shape == (4, 2)


def test_where_the_stem_stands_alone_all_stages_are_found():
    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(6, 10), nn.Linear(12, 2)
            self.body = nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())

    assert [s.name for s in stages(Alone(), "batch")] == ["body.0", "body.2"]


class Twice(Own):
    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(self.body(x) + self.body(x))


def test_what_cannot_be_made_modular_is_said_in_words():
    with pytest.raises(ValueError, match=r"no repeated blocks were found: .* says its stages in module_layers"):
        modularise(build("mlp", {"hidden": 16}, 0), (64,), Form())
    with pytest.raises(ValueError, match="9 stages are to be modular, and there are 3: layer1, layer2, layer3"):
        modularise(build("resnet8", {}, 0), (3, 32, 32), Form(last=9))
    with pytest.raises(ValueError, match="a pass runs 2 times through body"):
        modularise(Twice(), (6,), Form())
    wrong = Own()
    wrong.module_layers = {"trunk": wrong.module_layers["body"]}
    with pytest.raises(ValueError, match="module_layers names trunk, which the network has not"):
        modularise(wrong, (6,), Form())
    wrong = Own()
    wrong.module_layers = {"body": lambda n, h, m: nn.Linear(n, 1)}
    with pytest.raises(ValueError, match=r"a module for body gives \(1,\) of \(10,\); the stage gives \(12,\)"):
        modularise(wrong, (6,), Form())
    wrong = Own()
    wrong.module_layers = {"body": lambda n, h, m: nn.Linear(m, m)}
    with pytest.raises(ValueError, match=r"a module for body does not take what comes in, \(10,\) a sample"):
        modularise(wrong, (6,), Form())
    with pytest.raises(ValueError, match=r"a choice of .* for 1 layers of 3 modules"):
        modularise(Own(), (6,), Form(modules=3, k=2), choice=((0, 5),))


@pytest.mark.parametrize(
    "wrong",
    [{"modules": 1}, {"ratio": 0.5}, {"k": 0}, {"k": 17}, {"last": -1}, {"norm": "layer"}, {"hidden": "all"}],
)
def test_a_form_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) if "modules" not in wrong else "not 1 modules"):
        Form(**wrong)


# ------------------------------------------------------------------ a layer


def test_the_residual_module_averages_down_and_adds_zeros():
    x = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    assert torch.equal(Bypass((2, 3, 4), (2, 3, 4))(x), x)
    y = Bypass((2, 3, 4), (3, 2, 2))(x)
    assert y.shape == (1, 3, 2, 2)
    assert y[0, 0].tolist() == [[(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4], [(8 + 9) / 2, (10 + 11) / 2]]
    assert not y[0, 2].any()
    assert Bypass((3,), (2,))(torch.tensor([[1.0, 2, 3]])).tolist() == [[1, 2]]
    edges = Bypass((1, 5, 5), (1, 4, 4))(torch.arange(25.0).reshape(1, 1, 5, 5))  # no padding: parts that overlap
    assert edges.shape == (1, 1, 4, 4)
    assert float(edges[0, 0, 1, 1]) == (6 + 7 + 11 + 12) / 4
    assert Bypass((2, 9), (2, 7))(torch.ones(3, 2, 9)).shape == (3, 2, 7)
    assert Bypass((5,), (7,))(torch.ones(2, 5)).tolist() == [[1] * 5 + [0] * 2] * 2
    assert Bypass((5,), (3,))(torch.ones(2, 5)).tolist() == [[1] * 3] * 2


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_is_the_weighted_sum_of_its_modules(name, training):
    """However it runs them: each on all samples, or on those that come to it. ReLU comes after the sum."""
    model, _ = small(name)
    if training and any(layer.whole for layer in model.layers):
        model.train()
    for layer in model.layers:
        x = torch.rand(6, *layer.inputs)
        layer.gate = gate = top_k(torch.randn(6, layer.number), 2).gate
        got = layer(x)
        shape = (-1,) + (1,) * (got.dim() - 1)
        expected = sum(gate[:, n].view(shape) * part(x) for n, part in enumerate(layer.parts.values()))
        assert torch.allclose(got, torch.relu(expected), atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "resnet", "cnn1d"])
def test_modules_end_without_relu_since_the_layer_has_one(name):
    model, _ = small(name)
    for layer in model.layers:
        for part in list(layer.parts.values())[:-1]:
            assert float(part(torch.randn(6, *layer.inputs)).detach().min()) < 0


def test_a_layer_without_a_gate_says_so():
    model, x = small("mlp")
    with pytest.raises(ValueError, match="run by its Modular"):
        model.network(x)


# ------------------------------------------------------------------ sub-models


@pytest.mark.parametrize("name", SMALL)
def test_a_sub_model_is_the_whole_with_those_modules_alone(name):
    model, x = small(name)
    choice = tuple((i % 3, 3) for i in range(len(model.layers)))
    part = sub_model(model, choice)
    for layer, gate in zip(model.layers, model.selector(x, choice), strict=True):
        layer.gate = gate.gate
    with torch.no_grad():
        assert torch.allclose(part(x), model.network(x), atol=1e-6)
        assert not torch.allclose(part(x), model(x), atol=1e-3)  # control: the others do count
    assert part.choice == choice
    made = {n for n, _ in part.named_parameters()}
    assert not any(f".parts.{n}." in name for name in made for n in range(4) if all(n not in c for c in choice))
    assert model.choice == ((0, 1, 2, 3),) * len(model.layers)  # the cloud's is as it was
    assert model.selector.noises is not None
    with pytest.raises(ValueError, match="from a model of"):
        sub_model(part, ((2, 3),) * len(model.layers))


def test_a_sub_model_is_a_copy_and_its_selector_does_not_learn_unless_told():
    model, x = small("mlp")
    part, learning = (sub_model(model, first(2, model), selector=told) for told in (False, True))
    before = to_vector(model)
    for one in (part, learning):
        one.train()
        optimiser = torch.optim.SGD([p for p in one.parameters() if p.requires_grad], lr=1.0)
        one(x).square().sum().backward()
        optimiser.step()
    assert np.array_equal(to_vector(model), before)

    def changed(one):
        return not torch.equal(one.selector.gates[0].weight, model.selector.gates[0].weight)

    assert not changed(part)
    assert changed(learning)
    assert not torch.equal(part.network[1].weight, model.network[1].weight)


# ------------------------------------------------------------------ vectors


@pytest.mark.parametrize("name", SMALL)
def test_the_whole_s_blocks_of_a_choice_are_the_sub_model_s_vector(name):
    """What a device fetches is what it needs, nothing more; what it sends back changes just that."""
    model, x = small(name)
    cloud, layout = to_vector(model), layout_of(model)
    choice = tuple((i % 3, 3) for i in range(len(model.layers)))
    blocks = blocks_of(layout, choice)
    part = sub_model(model, choice)
    assert np.array_equal(cut(cloud, layout, blocks), to_vector(part))
    assert layout_of(part).sizes == tuple(layout.sizes[b] for b in blocks)
    names, args, shape, form = SMALL[name]
    mine = received(Blueprint(lambda: build(names, args, 1), shape, form), choice, cut(cloud, layout, blocks))
    assert np.array_equal(to_vector(mine), to_vector(part))
    if name != "kept":
        with torch.no_grad():
            assert torch.allclose(mine.eval()(x), part.eval()(x), atol=1e-6)
    mine.train()
    mine(x).square().sum().backward()
    torch.optim.SGD([p for p in mine.parameters() if p.requires_grad], lr=0.1).step()
    load_vector(model, paste(cloud, layout, blocks, to_vector(mine)))
    moved = [
        b for b, piece in enumerate(np.split(to_vector(model) != cloud, np.cumsum(layout.sizes)[:-1])) if piece.any()
    ]
    assert set(moved) <= set(blocks_of(layout, choice, selector=False))
    assert moved


def test_blocks_have_one_owner_each_and_large_modules_take_several():
    with torch.device("meta"):
        model = modularise(build("resnet18", {}, 0), (3, 32, 32), FORMS["resnet18"])
    layout = layout_of(model)
    names = owners(layout)
    module = parameters(model.layers[3].parts["0"])
    assert names.count("3/0") == -(-module // BLOCK) + 1  # and its statistics
    assert {*names} == {"", SELECTOR, NOISE, *(f"{i}/{n}" for i in range(4) for n in range(15))}
    statistics = {b for b, name in enumerate(names) if b in layout.plain}
    assert len(statistics) == 4 * 15 + 1
    assert sum(layout.sizes[b] for b in statistics) == sum(t.size for t in layout.tensors if t.group == STATISTICS)


def test_statistics_that_stay_behind_are_in_no_block():
    model, _ = small("kept")
    assert not any("running" in t.name for t in layout_of(model).tensors)
    assert any("running" in t.name for t in layout_of(small("resnet")[0]).tensors)


def test_a_vector_of_another_length_changes_nothing():
    model, _ = small("mlp")
    before = to_vector(model)
    with pytest.raises(ValueError, match=r"this model has \d+ values, the vector has shape"):
        load_vector(model, before[1:])
    assert np.array_equal(to_vector(model), before)


class Allocated(TorchDispatchMode):
    """Bytes of all CPU memory that torch takes while it is on, the vector that it is given apart."""

    def __init__(self, given: np.ndarray | None = None):
        super().__init__()
        self.given = range(0) if given is None else range(given.ctypes.data, given.ctypes.data + given.nbytes)
        self.seen: dict[int, int] = {}
        self.kept = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor) and t.device.type == "cpu":
                storage = t.untyped_storage()
                if storage.data_ptr() in self.given:
                    continue
                self.seen[storage.data_ptr()] = storage.nbytes()
                self.kept.append(t)  # so that no address comes twice
        return out

    @property
    def bytes(self) -> int:
        return sum(self.seen.values())


def test_a_device_never_has_the_original_s_stages_or_other_modules_in_memory():
    args, shape, form = {"width": 32}, (3, 32, 32), Form(modules=16, ratio=8)
    with torch.device("meta"):
        layout = layout_of(modularise(build("resnet18", args, 0), shape, form))
    choice = ((0, 15),) * 4
    vector = np.zeros(sum(layout.sizes[b] for b in blocks_of(layout, choice)), np.float32)
    with Allocated(vector) as device:
        received(Blueprint(lambda: build("resnet18", args, 0), shape, form), choice, vector)
    assert (
        2 * vector.nbytes <= device.bytes < 2.2 * vector.nbytes
    )  # the vector's copies, one tensor after another, and the model
    with Allocated() as control:
        build("resnet18", args, 0)
    assert control.bytes > 5 * device.bytes


def test_modules_lie_as_their_network_does():
    args, shape, form = {"width": 4}, (3, 32, 32), Form(modules=4, ratio=4)
    cloud = modularise(build("resnet18", args, 0), shape, form)
    choice = ((0, 3),) * 4
    part = sub_model(cloud, choice)
    mine = received(Blueprint(lambda: build("resnet18", args, 0), shape, form), choice, to_vector(part))
    own = modularise(build("resnet18", args, 0).to(memory_format=torch.contiguous_format), shape, form)
    for model, last in ((cloud, True), (part, True), (mine, True), (own, False)):
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and min(m.weight.shape[1:3]) > 1]
        assert len(convolutions) > 8
        assert {m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions} == {last}


def test_a_network_whose_tensors_would_not_come_is_refused_on_a_device():
    class Counting(Own):
        def __init__(self):
            super().__init__()
            self.register_buffer("positions", torch.arange(6))

    with pytest.raises(ValueError, match=r"network\.positions would not come with the model's blocks"):
        received(Blueprint(Counting, (6,), Form(modules=3, k=2)), ((0, 2),), np.zeros(1, np.float32))


# ------------------------------------------------------------------ importance and routes


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_importance_is_the_mean_of_the_selector_s_softmax_as_if_all_were_there(name):
    model, x = small(name)
    many = np.concatenate([x.numpy()] * 40)  # in several pieces
    got = importance(model, many)
    with torch.no_grad():
        expected = [p.mean(dim=0) for p in model.selector.probabilities(x)]
    assert np.allclose(got, torch.stack(expected).numpy(), atol=1e-6)
    assert np.allclose(got.sum(axis=1), 1)
    assert np.allclose(importance(sub_model(model, first(1, model)), many), got)
    with pytest.raises(ValueError, match="no samples"):
        importance(model, many[:0])


def test_routes_are_the_k_best_of_each_sample():
    model, x = small("mlp")
    for chosen, p in zip(routes(model, x.numpy()), model.selector.probabilities(x), strict=True):
        assert chosen.sum(axis=1).tolist() == [2] * len(x)
        best = p.argsort(dim=1, descending=True)[:, :2]
        assert all(set(np.flatnonzero(row)) == set(b.tolist()) for row, b in zip(chosen, best, strict=True))


def test_an_evaluator_s_statistics_are_of_whole_batches_as_in_training():
    """Those that stay behind, which the scorer takes from the samples it has."""
    model, _ = small("kept")
    x = torch.rand(40, 3, 32, 32)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    seen = []
    for training in (True, False):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        model.noisy = False
        model.train(training)
        for norm in norms:
            norm.train()
        with torch.no_grad():
            model(x)
        seen.append([norm.running_var.clone() for norm in norms])
    assert all(int(norm.num_batches_tracked) == 1 for norm in norms)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_the_platform_s_scorer_takes_it():
    model, x = small("resnet")
    accuracy, loss = models.score(model, x.numpy(), np.zeros(len(x), np.int64))
    assert 0 <= accuracy <= 1
    assert np.isfinite(loss)
    assert isinstance(model.layers[0], ModuleLayer)
