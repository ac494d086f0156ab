"""The convolutional models have the parameters that are known of them, take the shapes they say, and learn."""

import numpy as np
import pytest
import torch

from learning.models import build, layout_of, load_vector, score, to_vector
from learning.models_conv import is_channels_last
from schemas.blocks import BLOCK


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other take all of a busy machine."""
    many = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(many)


KNOWN = [
    # torchvision's documentation: 11,689,512 and 21,797,672 for ImageNet
    ("resnet8", {}, 78_042),
    ("resnet18", {"stem": "imagenet", "shape": "3,224,224", "classes": 1000}, 11_689_512),
    ("resnet34", {"stem": "imagenet", "shape": "3,224,224", "classes": 1000}, 21_797_672),
    # the CIFAR form: without the 7 × 7 stem (9,408) and the large head (513,000), with 3 × 3 (1,728) and 10 classes (5,130)
    ("resnet18", {}, 11_689_512 - 9_408 - 513_000 + 1_728 + 5_130),
    ("resnet18", {"shape": "1,32,32"}, 11_173_962 - 2 * 64 * 9),
    # torchvision's vgg16_bn has 138,365,992, of which 123,642,856 are its three linear layers
    ("vgg16", {"classes": 100}, 138_365_992 - 123_642_856 + 512 * 100 + 100),
    # McMahan et al. 2017
    ("cnn", {}, 1_663_370),
    # HARBox
    ("mlp", {"inputs": 900, "hidden": 300, "classes": 5}, 900 * 300 + 300 + 300 * 5 + 5),
]


@pytest.mark.parametrize(("name", "args", "parameters"), KNOWN, ids=[f"{k[0]}-{k[2]}" for k in KNOWN])
def test_parameters_are_as_many_as_are_known(name, args, parameters):
    module = build(name, args, 0)
    assert sum(p.numel() for p in module.parameters()) == parameters
    sizes = layout_of(module).sizes
    assert max(sizes) <= BLOCK
    statistics = [t.numel() for n, t in module.state_dict().items() if n.endswith(("running_mean", "running_var"))]
    assert sum(sizes) == parameters + sum(statistics)


SHAPES = [
    ("cnn1d", {}, (128, 6), 6),
    ("cnn1d", {"shape": "20,3", "channels": 8, "kernel": 3, "hidden": 5, "classes": 2}, (20, 3), 2),
    ("cnn", {}, (28, 28), 10),
    ("cnn", {"shape": "1,8,8", "channels": "4,4,4", "hidden": 8}, (64,), 10),
    ("cnn", {"shape": "3,9,12", "channels": "4"}, (3, 9, 12), 10),
    ("resnet8", {"shape": "1,5,4", "width": 2, "classes": 3}, (5, 4), 3),
    ("resnet18", {"shape": "1,9,4", "width": 2, "classes": 3}, (9, 4), 3),
    ("resnet18", {"shape": "3,33,20", "width": 2, "stem": "imagenet"}, (3, 33, 20), 10),
    ("resnet34", {"shape": "1,28,28", "width": 2}, (28, 28), 10),
    ("vgg16", {"shape": "1,17,5"}, (17, 5), 10),
]


@pytest.mark.parametrize(("name", "args", "sample", "classes"), SHAPES)
def test_samples_have_the_shape_that_is_said_and_may_come_alone(name, args, sample, classes):
    module = build(name, args, 0)
    module.train()
    for n in (1, 3):
        assert module(torch.rand(n, *sample)).shape == (n, classes)
    with pytest.raises(RuntimeError):
        module(torch.rand(2, *sample[:-1], sample[-1] + 1))


@pytest.mark.parametrize("name", ["cnn", "resnet8", "vgg16"])
def test_channels_lie_last_and_what_is_computed_is_the_same(name):
    args = {"shape": "3,18,18", "classes": 4}
    last, first = build(name, args, 0), build(name, args, 0).to(memory_format=torch.contiguous_format)
    assert is_channels_last(last)
    assert not is_channels_last(first)
    assert to_vector(last).tobytes() == to_vector(first).tobytes()
    dice = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, 18, 18, generator=dice)
    said = [module.eval()(x) for module in (last, first)]
    gradients = [
        torch.autograd.grad(s.logsumexp(1).sum(), [*m.parameters()]) for s, m in zip(said, (last, first), strict=True)
    ]
    for a, b in zip((said[0], *gradients[0]), (said[1], *gradients[1]), strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()
    vector = to_vector(last)[::-1].copy()
    load_vector(last, vector)
    assert is_channels_last(last)
    assert to_vector(last).tobytes() == vector.tobytes()


def test_windows_are_read_along_time():
    """What the first convolution of `cnn1d` sees of channel c at time t is x[t, c]."""
    module = build("cnn1d", {"shape": "16,2", "channels": 1, "kernel": 1}, 0)
    x = torch.zeros(1, 16, 2)
    x[0, 5, 1] = 1
    with torch.no_grad():
        seen = module[1](module[0](x)) - module[1].bias[:, None]
    assert torch.equal(seen[0, 0].nonzero().flatten(), torch.tensor([5]))
    assert seen[0, 0, 5] == module[1].weight[0, 1, 0]


def test_resnets_tensors_have_torchvisions_names():
    names = set(build("resnet34", {"width": 2}, 0).state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight"} <= names
    assert {"layer3.5.bn2.num_batches_tracked", "layer4.2.conv2.weight", "fc.bias"} <= names
    assert not {n for n in names if n.startswith(("layer1.0.downsample", "layer1.3", "layer5"))}


def images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of faint noise; a bright stripe lies across in one class and upright in the other."""
    dice = np.random.default_rng(n)
    x, y = dice.normal(size=(n, 1, 10, 10), scale=0.2).astype(np.float32), np.arange(n) % 2
    for i in range(n):
        at = dice.integers(10)
        x[(i, 0, at) if y[i] else (i, 0, slice(None), at)] += 3
    return x, y


def learned(module: torch.nn.Module, x: np.ndarray, y: np.ndarray, steps: int) -> torch.nn.Module:
    parameters = list(module.parameters())
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(y))
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p -= 0.2 * g
    return module


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resnet18", {"shape": "1,10,10", "width": 4, "classes": 2}),
        ("resnet18", {"shape": "1,10,10", "width": 4, "classes": 2, "statistics": "keep"}),
        ("cnn", {"shape": "1,10,10", "channels": 8, "hidden": 16, "classes": 2}),
    ],
)
def test_they_learn_stripes_and_what_they_learned_is_in_the_vector(name, args):
    module = learned(build(name, args, 0), *images(80), steps=25)
    other = build(name, args, 1)
    assert score(other, *images(200))[0] < 0.7
    load_vector(other, to_vector(module))
    assert score(other, *images(200))[0] > 0.9


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("cnn", {"shape": "28,28"}, r"shape must be 3 numbers \(channels,height,width\), not '28,28'"),
        ("cnn", {"shape": 28}, "shape must be 3 numbers"),
        ("cnn", {"shape": "1,a,2"}, "shape must be a whole number, or several as text"),
        ("cnn", {"kernel": 4}, "kernel must be odd, not 4"),
        ("cnn", {"shape": "1,28,3"}, "too small for 2 stages"),
        ("cnn1d", {"shape": "3,6"}, "too small for 2 stages"),
        ("cnn1d", {"channels": "8,0"}, "channels must be a whole number of at least 1"),
        ("cnn1d", {"hidden": 0}, "hidden must be"),
        ("resnet18", {"shape": "1,8,8"}, r"more than 8 pixels high or wide, not \(1, 8, 8\)"),
        ("resnet34", {"shape": "3,32,32", "stem": "imagenet"}, "more than 32 pixels"),
        ("resnet18", {"stem": "large"}, "stem must be cifar or imagenet, not 'large'"),
        ("resnet18", {"statistics": "last"}, "statistics must be mean or keep, not 'last'"),
        ("resnet18", {"width": 0}, "width must be"),
        ("vgg16", {"shape": "3,16,16"}, "more than 16 pixels"),
        ("vgg16", {"classes": "ten"}, "classes must be"),
    ],
)
def test_bad_arguments_are_refused_in_clear_words(name, args, words):
    with pytest.raises(ValueError, match=words):
        build(name, args, 0)
