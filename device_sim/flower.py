"""Runs an unchanged `ClientApp` of Flower's (https://flower.ai; flwr 1.41 was tried) as a client, in this process.

    from olearning import flower
    from my_app.client_app import app
    from my_app.task import Net

    flower("my-app", app, initial=lambda run_config: Net().state_dict())

`initial` gives the arrays that the app's `ServerApp` would begin with: by name, or as a list. An app with `train` and `evaluate`
functions gets and answers messages as from Flower's `FedAvg`: a record `arrays` under these names, and a record `config`; one made
of a `client_fn` gets `fit` and `evaluate`. The config has `server-round`, the task's `model_args` and what it says of training; the
context's `run_config` are the `model_args`, its `node_config` has `partition-id`, the device's number, and `num-partitions`, the
task's `data_args.devices`. Its `state` stays with the device for the life of the fleet. For the evaluator, which is no device, the
app scores the first `SCORED` partitions, weighted by samples.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from device_sim.client import Arrays, Client, Config, Context, Metrics, client
from device_sim.data import SPLIT
from schemas.wire import Scalar

SCORED = 10
"""Partitions on which the evaluator scores."""
TTL = 1e12
"""Seconds. Nothing is waited for: a message is answered at once, or not at all."""
TRAIN_LOSS = ("train_loss", "loss")
LOSS = ("eval_loss", "loss", "test_loss", "val_loss")
ACCURACY = ("eval_acc", "accuracy", "eval_accuracy", "acc", "test_acc", "test_accuracy", "val_accuracy")
"""What apps call these metrics, with '-' for '_' too: Flower leaves it to them. The first that is there is taken."""

Named = Mapping[str, Any] | Sequence[npt.NDArray[Any]]
"""Arrays or torch tensors by name, or a list of arrays."""


Initial = Callable[[Mapping[str, Scalar]], Named]


def flower(name: str, app: Any, initial: Initial) -> None:
    """Make a `ClientApp` known as the client `name`.

    Raises `ValueError` if that name is taken, `TypeError` for what is no `ClientApp`, `RuntimeError` without flwr.
    """
    kind = _flwr("clientapp").ClientApp
    if not isinstance(app, kind):
        raise TypeError(f"{name!r} must be a ClientApp of flwr.clientapp, not {type(app).__name__}")
    states: dict[int, Any] = {}

    @lru_cache(maxsize=8)
    def first(args: tuple[tuple[str, Scalar], ...]) -> dict[str, npt.NDArray[Any]]:
        given = initial(dict(args))
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
        return {str(k): _numpy(v) for k, v in pairs}

    def make(context: Context) -> Client:
        return FlowerClient(app, first(tuple(sorted(context.args.items()))), context, states)

    client(name)(make)


class FlowerClient:
    """One node's side of an app. `first` are the initial arrays by name, `states` the nodes' records by number."""

    def __init__(self, app: Any, first: Mapping[str, npt.NDArray[Any]], context: Context, states: dict[int, Any]):
        self.app, self.first, self.context, self.states = app, first, context, states
        self.flwr = _flwr("app")

    def get_parameters(self, config: Config) -> Arrays:
        return list(self.first.values())

    def fit(self, parameters: Arrays, config: Config) -> tuple[Arrays, int, Metrics]:
        if self.context.device is None:
            raise ValueError("who is no device trains nothing")
        content = self._ask("train", self.context.device, parameters, config)
        records = list(content.array_records.values())
        if len(records) != 1:
            raise ValueError(f"the app answered with {len(records)} records of arrays; one is the model")
        (record,) = records
        if list(record) == [str(i) for i in range(len(self.first))]:  # a list of arrays
            arrays = [a.numpy() for a in record.values()]
        elif record.keys() == self.first.keys():
            arrays = [record[k].numpy() for k in self.first]
        else:
            raise ValueError(
                f"the app answered with arrays {', '.join(record)}; the model's are {', '.join(self.first)}"
            )
        metrics = _metrics(content)
        loss = _first(metrics, TRAIN_LOSS)
        more = {} if loss is None else {"train_loss": loss}
        return arrays, _samples(metrics), metrics | more

    def evaluate(self, parameters: Arrays, config: Config) -> tuple[float, int, Metrics]:
        device = self.context.device
        nodes = range(min(SCORED, self._partitions())) if device is None else (device,)
        loss_sum = right = 0.0
        samples, scored = 0, True
        for node in nodes:
            metrics = _metrics(self._ask("evaluate", node, parameters, config))
            n, loss, accuracy = _samples(metrics), _first(metrics, LOSS), _first(metrics, ACCURACY)
            if loss is None:
                raise ValueError(f"the app's evaluate gave no loss, that is one of {', '.join(LOSS)}: {metrics}")
            loss_sum, samples, scored = loss_sum + loss * n, samples + n, scored and accuracy is not None
            right += (accuracy or 0.0) * n
        return loss_sum / samples, samples, {"accuracy": right / samples} if scored else {}

    def _partitions(self) -> int:
        return int(self.context.data_args.get("devices", SPLIT["devices"]))

    def _ask(self, kind: str, node: int, parameters: Arrays, config: Config) -> Any:
        """The content of the app's answer."""
        f, args = self.flwr, dict(self.context.args)
        if getattr(self.app, "_call", None):  # of a client_fn: the older form, in which arrays have no names
            ins = "fitins" if kind == "train" else "evaluateins"
            asked = {
                f"{ins}.parameters": f.ArrayRecord(list(parameters)),
                f"{ins}.config": f.ConfigRecord(config | args),
            }
        else:
            named = {k: f.Array(a) for k, a in zip(self.first, parameters, strict=True)}
            dashed: Config = {k.replace("_", "-"): v for k, v in config.items()}
            asked = {"arrays": f.ArrayRecord(named), "config": f.ConfigRecord(dashed | args)}
        about = f.Metadata(
            run_id=1,
            message_id=f"{kind}-{node}",
            src_node_id=1,
            dst_node_id=node + 2,
            reply_to_message_id="",
            group_id=str(config.get("server_round", "")),
            created_at=0.0,
            ttl=TTL,
            message_type=kind,
        )
        context = f.Context(
            run_id=1,
            node_id=node + 2,
            node_config={"partition-id": node, "num-partitions": self._partitions()},
            state=self.states.setdefault(node, f.RecordDict()),
            run_config=args,
        )
        answer = self.app(f.Message(content=f.RecordDict(asked), metadata=about), context)
        self.states[node] = context.state
        if answer.has_error():
            raise ValueError(f"the app answered with an error: {answer.error}")
        return answer.content


def _flwr(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"flwr.{module}")
    except ModuleNotFoundError as e:
        name = (e.name or "flwr").split(".")[0]
        raise RuntimeError(
            f"{name} is not installed, and this is an app of Flower's: install olearning[flower]"
        ) from None


def _numpy(value: Any) -> npt.NDArray[Any]:
    """An array: what torch has on any device, too, without importing it here."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _metrics(content: Any) -> Metrics:
    """All metrics of an answer in one map, with '_' in their names."""
    records = [
        *content.metric_records.values(),
        *content.config_records.values(),
    ]  # the older form has them in a config
    return {str(k).replace("-", "_"): v for record in records for k, v in record.items()}


def _samples(metrics: Metrics) -> int:
    n = metrics.get("num_examples", 0)
    if not isinstance(n, int | float) or n != int(n) or n <= 0:
        raise ValueError(
            f"the app must say its 'num-examples', a whole number above 0, and not {n!r}; it gave {metrics}"
        )
    return int(n)


def _first(metrics: Metrics, names: Sequence[str]) -> float | None:
    return next((float(metrics[n]) for n in names if n in metrics), None)
