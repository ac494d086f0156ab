"""A client in numpy alone: it needs no torch, so that fleet, evaluator and `submit` run from the plane's image (docs/deployment.md).

olearning up --memory --devices 10 --load examples/own_client.py --task examples/own_client.toml
"""

import numpy as np

from olearning import Client, Context, Dataset, client, data, held_out


@data("clouds")
def clouds(samples: int = 1500, clouds: int = 4) -> Dataset:
    """Points around the corners of a simplex; a point's class is its corner."""
    dice = np.random.default_rng(0)
    y = dice.integers(clouds, size=samples)
    return held_out("clouds", 2 * np.eye(clouds)[y] + dice.normal(0, 0.7, (samples, clouds)), y)


class Softmax(Client):
    """Softmax regression by gradient descent."""

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int):
        self.x, self.y = x, np.eye(classes)[y]

    def get_parameters(self, config):
        return [np.zeros((self.x.shape[1], self.y.shape[1])), np.zeros(self.y.shape[1])]

    def fit(self, parameters, config):
        w, b = parameters
        for _ in range(config["epochs"]):
            error = self.p(w, b) - self.y
            w -= config["learning_rate"] * self.x.T @ error / len(self.x)
            b -= config["learning_rate"] * error.mean(axis=0)
        losses = self.losses(w, b)
        return [w, b], len(self.x), {"train_loss": losses.mean(), "losses": losses}

    def evaluate(self, parameters, config):
        right = self.p(*parameters).argmax(axis=1) == self.y.argmax(axis=1)
        return self.losses(*parameters).mean(), len(self.x), {"accuracy": right.mean()}

    def p(self, w, b):
        e = np.exp(self.x @ w + b)
        return e / e.sum(axis=1, keepdims=True)

    def losses(self, w, b):
        return -np.log((self.p(w, b) * self.y).sum(axis=1))


@client("softmax")
def softmax(context: Context) -> Client:
    return Softmax(*context.samples(), classes=int(context.data_args["clouds"]))
