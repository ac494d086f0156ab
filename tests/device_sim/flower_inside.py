"""Run by `test_flower.py`, with Flower's own packages behind ours: the shim around the real thing.

The apps beside this file are unchanged Flower apps; what is checked is what they see, and what becomes of what they answer.
"""

import numpy as np
import numpy_client_app
import pytest
import softmax_app
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from device_sim import client as clients
from device_sim import flower as shim
from device_sim.client import ClientLearner, Context
from device_sim.device import Device
from device_sim.flower import flower
from device_sim.learner import prepare, scorer
from schemas.messages import Evaluation, Objection
from schemas.task import TaskSpec
from tests.device_sim.test_client import announcement
from tests.olearning.test_own import plane, said

DEVICES = 12
ARGS = {"local-epochs": 5, "lr": 0.5}
BASE = np.zeros(15, np.float32)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(clients, "clients", {})


def register(app: ClientApp = softmax_app.app, name: str = "softmax") -> None:
    flower(name, app, initial=lambda run_config: softmax_app.initial())


def asks(app: ClientApp, device: int = 2, **more):
    """One device's training by this app."""
    register(app, "asked")
    a = announcement("asked", (15,), model_args=ARGS, **more)
    return ClientLearner().run(a, Device(f"east-{device}", device), BASE)


def by_hand(device: int) -> tuple[np.ndarray, float]:
    """What the app's training comes to, in plain numpy."""
    x, y = softmax_app.load_data(device, 2)
    w, b = np.zeros((4, 3), np.float32), np.zeros(3)
    for _ in range(5):
        p = softmax_app.probabilities(x, w, b)
        error = (p - np.eye(3)[y]) / len(y)
        w, b = w - (0.5 * x.T @ error).astype(np.float32), b - 0.5 * error.sum(axis=0)
    return np.concatenate([w.ravel(), b.astype(np.float32)]), softmax_app.mean_loss(p, y)


@pytest.mark.parametrize("app", [softmax_app.app, numpy_client_app.app], ids=["messages", "client_fn"])
def test_an_unchanged_app_trains_on_its_partition(app):
    run = asks(app)
    model, loss = by_hand(2)
    assert run.delta.tobytes() == model.tobytes()
    assert run.samples == 60
    assert run.loss_sum == pytest.approx(60 * loss, rel=1e-6)


@pytest.mark.parametrize("app", [softmax_app.app, numpy_client_app.app], ids=["messages", "client_fn"])
def test_it_scores_on_its_partition_and_for_the_evaluator_on_ten(app):
    register(app)
    a = announcement("softmax", (15,), model_args=ARGS)
    model, _ = by_hand(2)

    def on(n: int) -> tuple[float, float]:
        x, y = softmax_app.load_data(n, DEVICES)
        p = softmax_app.probabilities(x, model[:12].reshape(4, 3), model[12:].astype(np.float64))
        return softmax_app.mean_loss(p, y), float((p.argmax(axis=1) == y).mean())

    loss, samples, metrics = ClientLearner().evaluate(a, Device("east-3", 3), model)
    assert (loss, metrics["accuracy"], samples) == (*map(pytest.approx, on(3)), 60)
    spec = TaskSpec("toy", "softmax", "none", model_args=ARGS, data_args={"devices": DEVICES})
    accuracy, loss, samples = scorer()(spec, model)
    means = np.mean([on(n) for n in range(10)], axis=0)
    assert (loss, accuracy, samples) == (*map(pytest.approx, means), 600)


def test_version_0_is_what_its_server_app_begins_with():
    register()
    layout, start, _ = prepare(TaskSpec("toy", "softmax", "none"), 0)
    assert [t.shape for t in layout.tensors] == [(4, 3), (3,)]  # the counter does not travel
    assert not start.any()


def test_an_app_sees_what_flower_would_show_it():
    seen = []
    app = ClientApp()

    @app.train()
    def train(message, context):
        rounds = context.state["mine"]["n"] + 1 if "mine" in context.state else 1
        context.state["mine"] = MetricRecord({"n": rounds})
        record = message.content["arrays"]
        seen.append((dict(message.content["config"]), context.node_config, context.run_config, rounds, list(record)))
        assert [(v.dtype, v.shape) for v in record.values()] == [("float32", (4, 3)), ("float64", (3,)), ("int64", ())]
        metrics = MetricRecord({"num-examples": 5.0, "loss": 0.25})
        return Message(RecordDict({"model": record, "m": metrics}), reply_to=message)

    register(app, "asked")
    for device in (1, 1, 0):
        a = announcement("asked", (15,), model_args=ARGS)
        run = ClientLearner().run(a, Device(f"east-{device}", device), BASE)
        assert (run.delta.any(), run.samples, run.loss_sum) == (False, 5, 1.25)
    config, node, args, _, names = seen[0]
    assert config.items() >= {"server-round": 3, "learning-rate": 0.25, "epochs": 2, **ARGS}.items()
    assert node == {"partition-id": 1, "num-partitions": 2}
    assert args == ARGS
    assert names == ["weight", "bias", "steps"]
    assert [rounds for *_, rounds, _ in seen] == [1, 2, 1]  # each device's own


# ------------------------------------------------------------------ what is refused


def answers(content) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message, context):
        return Message(content(message.content["arrays"]), reply_to=message)

    return app


WRONG = [
    (lambda a: RecordDict({"m": MetricRecord({"num-examples": 1})}), "0 records of arrays; one is the model"),
    (
        lambda a: RecordDict({"a": a, "m": MetricRecord({"examples": 1})}),
        "must say its 'num-examples'.* not 0; it gave",
    ),
    (lambda a: RecordDict({"a": a, "m": MetricRecord({"num-examples": 1.5})}), r"'num-examples'.* not 1\.5"),
    (
        lambda a: RecordDict({"a": ArrayRecord({"w": Array(np.zeros(3))}), "m": MetricRecord({"num-examples": 1})}),
        "answered with arrays w; the model's are weight, bias, steps",
    ),
    (
        lambda a: RecordDict({"a": ArrayRecord([np.zeros(3)] * 3), "m": MetricRecord({"num-examples": 1})}),
        r"fit gave array 0 of shape \(3,\), and the model's is \(4, 3\)",
    ),
]


@pytest.mark.parametrize(("content", "words"), WRONG)
def test_an_answer_that_cannot_be_is_refused_in_words(content, words):
    with pytest.raises(ValueError, match=words):
        asks(answers(content))


def test_an_app_that_does_not_train_or_score_says_so():
    with pytest.raises(ValueError, match="No train function registered"):
        asks(ClientApp())
    app = answers(lambda a: RecordDict({"a": a, "m": MetricRecord({"num-examples": 1})}))

    @app.evaluate()
    def evaluate(message, context):
        return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "auc": 0.5})}), reply_to=message)

    register(app)
    a = announcement("softmax", (15,), model_args=ARGS)
    with pytest.raises(ValueError, match="gave no loss, that is one of eval_loss, loss"):
        ClientLearner().evaluate(a, Device("east-1", 1), BASE)


def test_what_is_no_client_app_is_refused():
    with pytest.raises(TypeError, match=r"must be a ClientApp of flwr\.clientapp, not module"):
        flower("wrong", softmax_app, initial=dict)
    made = shim.FlowerClient(softmax_app.app, {}, Context(None), {})
    with pytest.raises(ValueError, match="no device trains nothing"):
        made.fit([], {})


# ------------------------------------------------------------------ from end to end

FILE = """
import softmax_app
from olearning import flower

flower("softmax", softmax_app.app, initial=lambda run_config: softmax_app.initial())
"""


def test_a_plane_trains_it(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "mine.toml").write_text(
        'task = "softmax"\nmodel = "softmax"\ndata = "none"\nmodel_args = { local-epochs = 3, lr = 0.1 }\n'
        "data_args = { devices = 12 }\nrounds = { demand = 4, minimum = 2, lease_s = 15 }\nepochs = { count = 2, rounds = 2 }\n"
    )
    memory = plane(tmp_path / "mine.py", tmp_path / "mine.toml", devices=6)
    assert said(memory, Objection) == []
    accuracy = {e.epoch: e.accuracy for e in said(memory, Evaluation)}
    assert accuracy[0] < 0.6  # chance is 1/3, and the zeros of version 0 say the first class
    assert accuracy[2] > 0.9
