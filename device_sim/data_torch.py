"""torchvision's and torchaudio's data sets, by their own loaders. Neither package comes with olearning: install what you use."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from device_sim.dataset import Dataset, Float32, Int64
from learning.words import Plain

RATE = 16_000
"""Samples of sound a second, and so of a word: the recordings are of a second at most."""
MELS, WINDOW, HOP = 32, 1_024, 512
"""The log-mel form: 32 bands from windows of 64 ms, one every 32 ms, which makes 32 of them."""
SILENCE = 1e-6
"""Added before the logarithm."""


def torchvision(set: str, root: str, download: bool = False) -> Dataset:
    """An image set of torchvision's by the name of its class ("CIFAR10", "FashionMNIST", "SVHN", …), in its folder `root`.

    Images of one size: float32 (n, channels, height, width) in [0, 1]. `download` lets torchvision fetch it if it is not there.
    Raises `ValueError` if the package or the set is not there, or is of another kind.
    """
    sets = _package("torchvision", "datasets")
    if set not in sets.__all__:
        raise ValueError(f"torchvision has no set {set!r}; it has {', '.join(sets.__all__)}")
    takes = inspect.signature(kind := getattr(sets, set)).parameters
    halves: tuple[dict[str, Any], ...]
    if "train" in takes:
        halves = {"train": True}, {"train": False}
    elif "split" in takes:
        halves = {"split": "train"}, {"split": "test"}
    else:
        raise ValueError(f"torchvision's {set} does not say what is to train on and what to test on")
    more = {"download": download} if "download" in takes else {}
    if download and not more:
        raise ValueError(f"torchvision does not download {set}: leave download out")
    try:
        (x, y), (test_x, test_y) = [_images(kind(root=root, **half, **more)) for half in halves]
    except Exception as e:  # another's code: whatever it raises
        raise ValueError(f"torchvision cannot give {set} from {root}: {e}") from e
    return Dataset(f"torchvision {set}", x, y, test_x, test_y)


def _images(items: Sequence[tuple[Any, Any]]) -> tuple[Float32, Int64]:
    x, y = np.empty(0, np.float32), np.empty(len(items), np.int64)
    for i in range(len(items)):
        image, label = items[i]
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not isinstance(label, int | np.integer):
            raise ValueError(
                f"item {i} is not an image of bytes with a class: {pixels.dtype} {pixels.shape}, {label!r}"
            )
        pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        if i == 0:
            x = np.empty((len(items), *pixels.shape), np.float32)
        if pixels.shape != x.shape[1:]:
            raise ValueError(f"images of one size are needed: item {i} is {pixels.shape}, those before {x.shape[1:]}")
        np.divide(pixels, np.float32(255), out=x[i])
        y[i] = label
    return x, y


def torchaudio(root: str, download: bool = False) -> Dataset:
    """Google's Speech Commands (Warden 2018) by torchaudio, in its folder `root`: 35 words, by speaker, speakers held out.

    Float32 (n, 32, 32): time, and the logarithm of power in 32 mel bands. Words by their alphabet are the classes. What it calls
    training is trained on, what it calls testing is tested on. Raises `ValueError` if the package or the set is not there.
    """
    audio, transforms = _package("torchaudio", "datasets"), _package("torchaudio", "transforms")
    bands = transforms.MelSpectrogram(sample_rate=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=MELS)
    try:
        sides = [
            _words(audio.SPEECHCOMMANDS(root, download=download, subset=subset), bands)
            for subset in ("training", "testing")
        ]
    except Exception as e:
        raise ValueError(f"torchaudio cannot give SPEECHCOMMANDS from {root}: {e}") from e
    (x, words, speakers), (test_x, test_words, _) = sides
    names = np.unique(words + test_words)
    return Dataset(
        "torchaudio SPEECHCOMMANDS",
        x,
        np.searchsorted(names, words),
        test_x,
        np.searchsorted(names, test_words),
        np.unique(speakers, return_inverse=True)[1],
    )


def _words(items: Any, bands: Any) -> tuple[Float32, list[str], list[str]]:
    from torch.nn.functional import pad

    x = np.empty((len(items), RATE // HOP + 1, MELS), np.float32)
    words, speakers = [], []
    for i in range(len(items)):
        sound, rate, word, speaker, *_ = items[i]
        if rate != RATE:
            raise ValueError(f"item {i} has {rate} samples a second, not {RATE}")
        second = pad(sound[0, :RATE], (0, max(0, RATE - sound.shape[1])))
        x[i] = np.log(bands(second).numpy().T + np.float32(SILENCE))
        words.append(word)
        speakers.append(speaker)
    return x, words, speakers


def _package(name: str, part: str) -> Any:
    try:
        return importlib.import_module(f"{name}.{part}")
    except Exception as e:  # it may be made for another torch, say
        if isinstance(e, ModuleNotFoundError) and (e.name or "").split(".")[0] == name:
            raise Plain(f"{name} is not installed on this machine: pip install {name}") from None
        raise Plain(f"{name} cannot be imported: {e}") from e
