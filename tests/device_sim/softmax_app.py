"""A Flower app as people write it: softmax regression in numpy. Nothing here knows of this project."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
CLASSES, FEATURES = 3, 4


def initial() -> dict[str, np.ndarray]:
    """What its ServerApp begins with."""
    return {
        "weight": np.zeros((FEATURES, CLASSES), np.float32),
        "bias": np.zeros(CLASSES, np.float64),
        "steps": np.zeros((), np.int64),
    }


def load_data(partition: int, partitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs around the corners of a simplex; each partition has points of its own, and more of one class."""
    dice = np.random.default_rng(partition)
    y = np.where(dice.random(60) < 0.5, partition % CLASSES, dice.integers(CLASSES, size=60))
    x = 2 * np.eye(FEATURES)[y] + dice.normal(0, 0.4, (60, FEATURES))
    return x, y


def probabilities(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    z = x @ weight + bias
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def mean_loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(p[np.arange(len(y)), y]).mean())


@app.train()
def train(msg: Message, context: Context) -> Message:
    arrays = {k: v.numpy() for k, v in msg.content["arrays"].items()}
    x, y = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    seen = context.state["seen"]["rounds"] + 1 if "seen" in context.state else 1
    context.state["seen"] = MetricRecord({"rounds": seen})
    for _ in range(context.run_config["local-epochs"]):
        p = probabilities(x, arrays["weight"], arrays["bias"])
        error = (p - np.eye(CLASSES)[y]) / len(y)
        arrays["weight"] -= (msg.content["config"]["lr"] * x.T @ error).astype(np.float32)
        arrays["bias"] -= msg.content["config"]["lr"] * error.sum(axis=0)
        arrays["steps"] += 1
    metrics = {"train_loss": mean_loss(p, y), "num-examples": len(y), "rounds-seen": seen}
    content = RecordDict(
        {"arrays": ArrayRecord({k: Array(np.asarray(v)) for k, v in arrays.items()}), "metrics": MetricRecord(metrics)}
    )
    return Message(content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    arrays = {k: v.numpy() for k, v in msg.content["arrays"].items()}
    x, y = load_data(context.node_config["partition-id"], context.node_config["num-partitions"])
    p = probabilities(x, arrays["weight"], arrays["bias"])
    metrics = {"eval_loss": mean_loss(p, y), "eval_acc": float((p.argmax(axis=1) == y).mean()), "num-examples": len(y)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
