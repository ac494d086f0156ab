"""Clients of one's own: what trains and scores a model by any code, in the shape of Flower's `NumPyClient`.

    @client("softmax")
    def softmax(context: Context) -> Client:
        return Softmax(*context.samples(), **context.args)

A task names it as its `model`, and its `model_args` are the context's `args`. The model is the list of arrays that
`get_parameters` gives. Those of floats travel as float32 and reach `fit` and `evaluate` in their order, shapes and dtypes; others
(counters) stay what `get_parameters` said, and nothing is read of what `fit` gives in their place. A client lives for one call,
as in Flower; what it wants to keep it keeps elsewhere. A `NumPyClient` of Flower's with `get_parameters` is such a client.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec.structs import asdict

from device_sim.data import UnknownData, load, share
from device_sim.device import Device
from device_sim.pseudonym import seed_of
from learning import registry
from learning.words import Plain, said
from schemas.blocks import Layout, Tensor, layout
from schemas.messages import Announcement
from schemas.task import BadTask, TaskSpec
from schemas.wire import Scalar

Vector = npt.NDArray[np.float32]
Arrays = list[npt.NDArray[Any]]
Config = dict[str, Scalar]
Metrics = dict[str, Any]
Samples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


class Client(Protocol):
    """What a device does with a model. Whatever one of these raises is said on the metrics, and ends nothing else."""

    def get_parameters(self, config: Config) -> Arrays:
        """Version 0 of the model; of it devices use the shapes only. `config` has the task's `seed`."""
        ...

    def fit(self, parameters: Arrays, config: Config) -> tuple[Arrays, int, Metrics]:
        """Train from these: (the new ones, how many samples it took, metrics).

        `config` has `server_round`, `seed` (of this device and round) and what the task's `training` says: `epochs`,
        `batch`, `learning_rate` and more. Of the metrics, `train_loss` or else `loss` is the mean loss over the samples, at least 0, and
        goes to the plane; `losses` are those of the samples, from which the device bids, and stay on the device.
        """
        ...

    def evaluate(self, parameters: Arrays, config: Config) -> tuple[float, int, Metrics]:
        """Score these: (mean loss, how many samples, metrics, of which `accuracy` in 0..1 is shown)."""
        ...


@dataclass(frozen=True)
class Context:
    """Whom a client is made for. `device` is the device's number, or None for who trains nothing: `submit`, and the evaluator."""

    device: int | None
    args: Mapping[str, Scalar] = field(default_factory=dict)
    """The task's `model_args`."""
    data: str = ""
    data_args: Mapping[str, Scalar] = field(default_factory=dict)

    def samples(self) -> Samples:
        """The device's share (x, y) of the task's data; without a device, what is held out. Raises as `load` and `share`."""
        dataset = load(self.data, self.data_args)
        return (dataset.test_x, dataset.test_y) if self.device is None else share(dataset, self.device, self.data_args)


ClientFn = Callable[[Context], Client]
F = TypeVar("F", bound=ClientFn)
clients: dict[str, ClientFn] = {}


def client(name: str) -> Callable[[F], F]:
    """Make a function that returns a `Client` known by `name`. Raises `ValueError` if a client or a model has it."""

    def register(make: F) -> F:
        if name in clients or name in registry.models:
            raise ValueError(f"there is a client or a model {name!r} already")
        clients[name] = make
        return make

    return register


# ------------------------------------------------------------------ arrays and vectors


class Form:
    """What arrays a client's model is made of. Raises `ValueError` for what is no list of arrays, or without a float."""

    def __init__(self, first: Sequence[npt.NDArray[Any]]):
        self.first = [np.array(a) for a in _arrays(first, "get_parameters")]
        self.floats = [i for i, a in enumerate(self.first) if np.issubdtype(a.dtype, np.floating)]
        if not sum(self.first[i].size for i in self.floats):
            raise Plain("get_parameters gave no array of floats: there is nothing to train")
        self.layout: Layout = layout(tuple(Tensor(str(i), self.first[i].shape) for i in self.floats))

    def arrays(self, vector: Vector) -> Arrays:
        """The model in a vector, as the client wants it; all arrays are its own, to write on."""
        sizes = [self.first[i].size for i in self.floats]
        if vector.shape != (sum(sizes),):
            raise Plain(f"this client's model has {sum(sizes)} values, the vector has shape {vector.shape}")
        out = [a.copy() for a in self.first]
        for i, part in zip(self.floats, np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
            out[i] = part.reshape(out[i].shape).astype(out[i].dtype)
        return out

    def vector(self, arrays: Sequence[npt.NDArray[Any]], whose: str) -> Vector:
        """The floats of these arrays as one vector.

        Raises `ValueError` for other shapes or dtypes, `FloatingPointError` for values that are not finite in float32.
        """
        arrays = _arrays(arrays, whose)
        if len(arrays) != len(self.first):
            raise Plain(f"{whose} gave {len(arrays)} arrays, and the model has {len(self.first)}")
        for i in self.floats:
            a, wanted = arrays[i], self.first[i]
            if a.shape != wanted.shape:
                raise Plain(f"{whose} gave array {i} of shape {a.shape}, and the model's is {wanted.shape}")
            if not np.issubdtype(a.dtype, np.floating):
                raise Plain(f"{whose} gave array {i} of dtype {a.dtype}, and the model's is {wanted.dtype}")
        with np.errstate(over="ignore"):
            vector = np.concatenate([arrays[i].astype(np.float32).reshape(-1) for i in self.floats])
        if not np.isfinite(vector).all():
            raise FloatingPointError(f"{whose} gave values that are not finite: is the learning rate too high?")
        return vector


def _arrays(given: Any, whose: str) -> list[npt.NDArray[Any]]:
    if not isinstance(given, list | tuple) or not all(isinstance(a, np.ndarray | np.generic) for a in given):
        kinds = sorted({type(a).__name__ for a in given}) if isinstance(given, list | tuple) else [type(given).__name__]
        raise Plain(f"{whose} must give a list of numpy arrays, not of {', '.join(kinds)}")
    return [np.asarray(a) for a in given]  # arithmetic makes numbers of arrays without a dimension


def _three(given: Any, what: str, parts: str) -> tuple[Any, int, Metrics]:
    """What `fit` and `evaluate` have in common: three things, the last two a number of samples and metrics."""
    if not isinstance(given, tuple) or len(given) != 3:
        raise Plain(f"{what} must return ({parts}, num_examples, metrics), not {type(given).__name__}")
    first, samples, metrics = given
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples <= 0:
        got = samples if isinstance(samples, int | float) else type(samples).__name__
        raise Plain(f"{what} must return a whole number of examples above 0, not {got}")
    if not isinstance(metrics, Mapping):
        raise Plain(f"{what} must return a dict of metrics, not {type(metrics).__name__}")
    return first, int(samples), dict(metrics)


# ------------------------------------------------------------------ on devices


@dataclass(frozen=True)
class ClientRun:
    """What `fit` came to: new minus base as float32 (n,), samples, the loss summed over them, and if given each one's loss."""

    delta: Vector
    samples: int
    loss_sum: float
    losses: npt.NDArray[np.float64] | None = None


class ClientLearner:
    """Trains by clients: those that `make` gives, or those registered under the task's model."""

    def __init__(self, make: ClientFn | None = None):
        self.make = make

    def objection(self, a: Announcement) -> str:
        try:
            sizes = self._form(a).layout.sizes
        except Exception as e:  # whatever someone's code raises
            return f"client {a.model}: {said(e)}"
        if sizes != a.sizes:
            return f"client {a.model} has arrays of {sum(sizes)} values here, the task's model {sum(a.sizes)}: load its version"
        return ""

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        """Samples and classes of the device's share. Of data that the client alone knows the fewest there can be, 1 and 2, until its
        first run tells."""
        try:
            dataset = load(a.data, a.data_args)
        except UnknownData:
            return 1, 2
        _, y = share(dataset, device.number, a.data_args)
        return len(y), max(2, int(dataset.y.max()) + 1)

    def run(self, a: Announcement, device: Device, base: Vector) -> ClientRun:
        """One device's `fit`. Raises `ValueError` for a result that cannot be, `FloatingPointError` if it diverged."""
        form, seed = self._form(a), seed_of(a.seed, device.id, a.task, a.round)
        made = self._make(a.model)(_context(a, device.number))
        got = made.fit(form.arrays(base), {"server_round": a.round, "seed": seed, **asdict(a.training)})
        arrays, samples, metrics = _three(got, "fit", "parameters")
        new = form.vector(arrays, "fit")
        return ClientRun(new - base, samples, _loss(metrics) * samples, _losses(metrics))

    def evaluate(self, a: Announcement, device: Device, base: Vector) -> tuple[float, int, Metrics]:
        """One device's `evaluate` of a model. Raises `ValueError` for a result that cannot be."""
        made = self._make(a.model)(_context(a, device.number))
        return evaluate(made, self._form(a).arrays(base), {"server_round": a.round})

    def _make(self, name: str) -> ClientFn:
        if self.make is None and name not in clients:
            raise Plain(f"no client {name!r} is known here; known: {', '.join(sorted(clients)) or 'none'}")
        return self.make or clients[name]

    def _form(self, a: Announcement) -> Form:
        return _form(self._make(a.model), _context(a, 0))


def _context(a: Announcement | TaskSpec, device: int | None) -> Context:
    return Context(device, a.model_args, a.data, a.data_args)


def _form(make: ClientFn, c: Context) -> Form:
    return _made(make, c.device, tuple(sorted(c.args.items())), c.data, tuple(sorted(c.data_args.items())))


Items = tuple[tuple[str, Scalar], ...]


@lru_cache(maxsize=16)
def _made(make: ClientFn, device: int | None, args: Items, data: str, data_args: Items) -> Form:
    """Not asked for again in every round: a client may load its data as it is made."""
    return Form(make(Context(device, dict(args), data, dict(data_args))).get_parameters({"seed": 0}))


def _loss(metrics: Metrics) -> float:
    loss = metrics.get("train_loss", metrics.get("loss", 0.0))
    if isinstance(loss, bool) or not isinstance(loss, int | float | np.number) or loss < 0:
        raise ValueError(f"fit must say its mean loss as a number of at least 0, not {loss!r}, or not at all")
    return float(loss)


def _losses(metrics: Metrics) -> npt.NDArray[np.float64] | None:
    if (given := metrics.get("losses")) is None:
        return None
    losses = np.asarray(given, np.float64)
    if losses.ndim != 1 or not np.isfinite(losses).all():
        raise ValueError(f"fit's losses must be finite numbers, one for each sample, not of shape {losses.shape}")
    return losses


# ------------------------------------------------------------------ at submit, and in the evaluator


def prepare(spec: TaskSpec, seed: int) -> tuple[Layout, Vector]:
    """Version 0 of a client's model and its layout. Raises `BadTask` for whatever its code raises."""
    try:
        first = clients[spec.model](_context(spec, None)).get_parameters({"seed": seed})
        form = Form(first)
        return form.layout, form.vector(first, "get_parameters")
    except Exception as e:
        raise BadTask(f"client {spec.model}: {type(e).__name__}: {e}") from e


def score(spec: TaskSpec, vector: Vector) -> tuple[float, float, int]:
    """A client's score of a model: accuracy, mean loss, samples. Raises `ValueError` for a result that cannot be."""
    make, context = clients[spec.model], _context(spec, None)
    loss, samples, metrics = evaluate(make(context), _form(make, context).arrays(vector), {})
    if not 0 <= (accuracy := float(metrics.get("accuracy", -1))) <= 1:
        raise ValueError(f"evaluate must give a metric 'accuracy' in 0..1; its metrics were {metrics}")
    return accuracy, loss, samples


def evaluate(made: Client, arrays: Arrays, config: Config) -> tuple[float, int, Metrics]:
    """What `Client.evaluate` gives, checked. Raises `ValueError` for what cannot be."""
    loss, samples, metrics = _three(made.evaluate(arrays, config), "evaluate", "loss")
    if isinstance(loss, bool) or not isinstance(loss, int | float | np.number):
        raise ValueError(f"evaluate must return its loss as a number, not {loss!r}")
    return float(loss), samples, metrics
