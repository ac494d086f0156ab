"""What the experiments learn: real data with the models and the training that OLearning took over from PyramidFL."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from experiments.asked import Asked
from experiments.data import CAPACITY, FEATURES, HAR, SPEECH, archive, converted
from learning import oort, pyramidfl

DEVICES = 104
"""The shares that the data are dealt into, whatever part of the devices takes part: a device has the same samples in all runs."""


@dataclass(frozen=True)
class Work:
    """A task's model, data and training, as in a task file; `capacity`, of `olearning fleet`: how fast devices are.

    `selection` and `pyramid`: what Oort and PyramidFL were set to for this kind of task (`research`: platforms, §4.4). `wire_kbit`:
    a model's way to the device and back, where PyramidFL's code takes another than this model has.
    """

    name: str
    model: str
    model_args: Mapping[str, Any]
    data: str
    data_args: Mapping[str, Any]
    training: Mapping[str, Any]
    capacity: str
    selection: oort.Settings
    pyramid: pyramidfl.Settings


HAR_TRAINING = {"optimiser": "adamw", "learning_rate": 4e-5, "batch": 16, "steps": 5}
"""As PyramidFL's runs on HARBox had it; the rate stays, where theirs went down to the half of it in 70 rounds."""
SPEECH_TRAINING = {
    "optimiser": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "learning_rate": 0.04, "batch": 16, "steps": 5,
}  # fmt: skip
"""As on Google Speech; there the rate went down by a twentieth every 15 rounds."""
PLAIN_RATE = 0.01
"""Of the small CNN, which has no normalisation: at 0.04 the 15 steps that PyramidFL gives its fast devices make the weights of some a
thousand times as large, and the model says one word for all (in the first round, of both seeds that were tried)."""


@contextmanager
def har(asked: Asked, devices: int = DEVICES) -> Iterator[Work]:
    """Human activities, raw windows of 128 × 6, with the form of the paper's DNN, 900-300-5."""
    with converted(asked, HAR) as files:
        yield _har(asked, "har", str(files[HAR]), 768, "300", devices)


@contextmanager
def features(asked: Asked, devices: int = DEVICES) -> Iterator[Work]:
    """The same windows as 369 features, with a smaller network."""
    with converted(asked, FEATURES) as files:
        yield _har(asked, "har-features", str(files[FEATURES]), 369, "64", devices)


def _har(asked: Asked, name: str, path: str, inputs: int, hidden: str, devices: int) -> Work:
    args = {"inputs": inputs, "hidden": hidden, "classes": 6}
    return _by_user(asked, name, path, "mlp", args, HAR_TRAINING, oort.HAR, pyramidfl.HAR, devices)


def _speech(
    asked: Asked, name: str, path: str, model: str, args: Mapping[str, Any], devices: int, **training: Any
) -> Work:
    args = {"shape": "1,32,32", "classes": 20, **args}
    return _by_user(asked, name, path, model, args, SPEECH_TRAINING | training, oort.SPEECH, pyramidfl.SPEECH, devices)


def _by_user(
    asked: Asked,
    name: str,
    path: str,
    model: str,
    args: Mapping[str, Any],
    training: Mapping[str, Any],
    selection: oort.Settings,
    pyramid: pyramidfl.Settings,
    devices: int,
) -> Work:
    """Data of people, each spread over some devices; speeds are those of the capacity file."""
    data_args = {"path": path, "partition": "user", "devices": devices}
    capacity = str(archive(asked, CAPACITY))
    return Work(name, model, args, "npz", data_args, training, capacity, selection, pyramid)


@contextmanager
def speech(asked: Asked, devices: int = DEVICES) -> Iterator[Work]:
    """Spoken words of 20 kinds, 32 × 32 log-mel, with a small CNN."""
    with converted(asked, SPEECH, classes=20) as files:
        args = {"channels": "16,32", "kernel": 3, "hidden": 64}
        yield _speech(asked, "speech", str(files[SPEECH]), "cnn", args, devices, learning_rate=PLAIN_RATE)


@contextmanager
def resnet(asked: Asked, devices: int = DEVICES) -> Iterator[Work]:
    """The same words with ResNet-8."""
    with converted(asked, SPEECH, classes=20) as files:
        yield _speech(asked, "speech-resnet8", str(files[SPEECH]), "resnet8", {}, devices)


@contextmanager
def digits(asked: Asked, devices: int = DEVICES) -> Iterator[Work]:
    """Handwritten digits, which come along: to see that it works."""
    yield Work(
        name="digits",
        model="linear",
        model_args={},
        data="digits",
        data_args={"devices": devices},
        training={"learning_rate": 0.1, "batch": 16, "steps": 5},
        capacity="usual",
        selection=oort.HAR,
        pyramid=pyramidfl.HAR,
    )
