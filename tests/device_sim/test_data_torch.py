"""torchvision and torchaudio: their interface, played by modules of ours. The packages themselves are not in the environment."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from device_sim import data_torch
from device_sim.data import load

# ------------------------------------------------------------------ a torchvision


class Images:
    """A set of PIL-like images: what `numpy.asarray` takes, and a class."""

    def __init__(self, n: int, shape: tuple[int, ...], start: int):
        self.n, self.shape, self.start = n, shape, start

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int):
        if i >= self.n:
            raise IndexError(i)
        return np.full(self.shape, self.start + i, np.uint8), (self.start + i) % 3


def colour(root: str, train: bool = True, transform=None, target_transform=None, download: bool = False):
    if root != "here" and not download:
        raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
    return Images(6 if train else 2, (4, 5, 3), 10 if train else 100)


def grey(root: str, split: str = "train", transform=None):
    return Images({"train": 4, "test": 3}[split], (4, 5), 0)


def without_halves(root: str):
    return Images(1, (2, 2), 0)


def uneven(root: str, train: bool = True):
    return [(np.zeros((2, 2 + i), np.uint8), 0) for i in range(2)]


def boxes(root: str, train: bool = True):
    return [(np.zeros((2, 2), np.uint8), {"boxes": []})]


@pytest.fixture
def vision(monkeypatch):
    package, sets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    sets.__all__ = ("colour", "grey", "without_halves", "uneven", "boxes")
    for name in sets.__all__:
        setattr(sets, name, globals()[name])
    package.datasets = sets
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", sets)


@pytest.mark.usefixtures("vision")
def test_images_of_torchvision():
    d = load("torchvision", {"set": "colour", "root": "here"})
    assert (d.x.shape, d.test_x.shape, d.x.dtype, d.y.dtype) == ((6, 3, 4, 5), (2, 3, 4, 5), np.float32, np.int64)
    assert d.x[1].max() == d.x[1].min() == np.float32(11) / np.float32(255)
    assert (d.y.tolist(), d.test_y.tolist()) == ([1, 2, 0, 1, 2, 0], [1, 2])
    d = load("torchvision", {"set": "grey", "root": "x"})
    assert (d.x.shape, d.test_x.shape) == ((4, 1, 4, 5), (3, 1, 4, 5))
    assert len(load("torchvision", {"set": "colour", "root": "new", "download": True}).y) == 6


@pytest.mark.usefixtures("vision")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"set": "colour", "root": "x"}, "cannot give colour from x: Dataset not found .* download=True"),
        ({"set": "CIFAR11", "root": "x"}, "no set 'CIFAR11'; it has colour, grey"),
        ({"set": "without_halves", "root": "x"}, "does not say what is to train on"),
        ({"set": "grey", "root": "x", "download": True}, "does not download grey"),
        ({"set": "uneven", "root": "x"}, r"one size are needed: item 1 is \(1, 2, 3\)"),
        ({"set": "boxes", "root": "x"}, "item 0 is not an image of bytes with a class"),
        ({"set": "colour"}, "'torchvision' needs root"),
    ],
)
def test_sets_that_cannot_be_had_say_why(args, words):
    with pytest.raises(ValueError, match=words):
        load("torchvision", args)


# ------------------------------------------------------------------ a torchaudio


class Words:
    """Speech Commands: sound (1, n), samples a second, word, speaker, number."""

    rate = 16_000

    def __init__(self, root: str, download: bool = False, subset: str | None = None):
        if root != "here":
            raise RuntimeError(f"The path {root} doesn't exist.")
        said = {"training": ["yes", "no", "yes"], "testing": ["yes", "up"]}[subset]
        self.items = [
            (torch.ones(1, max(7_000, 16_001 - 9_000 * i)), self.rate, w, f"s{i % 2}", 0) for i, w in enumerate(said)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int):
        return self.items[i]


class MelSpectrogram:
    """Not mel: the sum of squares of each stretch of `hop_length`, in every band."""

    def __init__(self, sample_rate: int, n_fft: int, hop_length: int, n_mels: int):
        self.hop, self.mels = hop_length, n_mels

    def __call__(self, sound: torch.Tensor) -> torch.Tensor:
        assert sound.shape == (16_000,)
        frames = torch.nn.functional.pad(sound, (0, -len(sound) % self.hop)).reshape(-1, self.hop)
        return (frames**2).sum(1).repeat(self.mels, 1)


@pytest.fixture
def audio(monkeypatch):
    package = ModuleType("torchaudio")
    for part, has in (("datasets", {"SPEECHCOMMANDS": Words}), ("transforms", {"MelSpectrogram": MelSpectrogram})):
        monkeypatch.setitem(sys.modules, f"torchaudio.{part}", SimpleNamespace(**has))
    monkeypatch.setitem(sys.modules, "torchaudio", package)


@pytest.mark.usefixtures("audio")
def test_words_of_torchaudio():
    d = load("torchaudio", {"root": "here"})
    assert (d.x.shape, d.test_x.shape, d.x.dtype) == ((3, 32, 32), (2, 32, 32), np.float32)
    assert (d.y.tolist(), d.test_y.tolist(), d.user.tolist()) == ([2, 0, 2], [2, 1], [0, 1, 0])  # no, up, yes
    assert d.x[0, 0, 0] == pytest.approx(np.log(512), rel=1e-5)
    assert d.x[1, :13].min() > 0  # 7,000 samples of sound, then silence
    assert d.x[1, 14:].max() == pytest.approx(np.log(data_torch.SILENCE), rel=1e-5)


@pytest.mark.usefixtures("audio")
def test_words_that_cannot_be_had_say_why(monkeypatch):
    with pytest.raises(ValueError, match="cannot give SPEECHCOMMANDS from there: The path there doesn't exist"):
        load("torchaudio", {"root": "there"})
    monkeypatch.setattr(Words, "rate", 8_000)
    with pytest.raises(ValueError, match="8000 samples a second, not 16000"):
        data_torch.torchaudio("here")


# ------------------------------------------------------------------ none


@pytest.mark.parametrize(("name", "args"), [("torchvision", {"set": "CIFAR10"}), ("torchaudio", {})])
def test_a_package_that_is_not_installed_is_named(name, args, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # as Python says that there is none
    with pytest.raises(ValueError, match=f"{name} is not installed on this machine: pip install {name}"):
        load(name, {**args, "root": "x"})


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import pillow_that_is_not_there", "No module named 'pillow_that"),
        ("raise RuntimeError('other torch')", "other"),
    ],
)
def test_a_package_that_cannot_be_imported_says_why(code, says, tmp_path, monkeypatch):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(code)
    for known in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"torchvision cannot be imported: {says}"):
        load("torchvision", {"set": "CIFAR10", "root": "x"})
