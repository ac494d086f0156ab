"""The same app in Flower's older form, a `NumPyClient` made by a `client_fn`. Nothing here knows of this project."""

import numpy as np
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from softmax_app import CLASSES, load_data, mean_loss, probabilities


class SoftmaxClient(NumPyClient):
    def __init__(self, partition: int, partitions: int):
        self.x, self.y = load_data(partition, partitions)

    def fit(self, parameters, config):
        weight, bias, steps = parameters
        for _ in range(config["local-epochs"]):
            p = probabilities(self.x, weight, bias)
            error = (p - np.eye(CLASSES)[self.y]) / len(self.y)
            weight = weight - (config["lr"] * self.x.T @ error).astype(np.float32)
            bias = bias - config["lr"] * error.sum(axis=0)
        return [weight, bias, steps + 1], len(self.y), {"train_loss": mean_loss(p, self.y)}

    def evaluate(self, parameters, config):
        weight, bias, _ = parameters
        p = probabilities(self.x, weight, bias)
        return mean_loss(p, self.y), len(self.y), {"accuracy": float((p.argmax(axis=1) == self.y).mean())}


def client_fn(context: Context):
    return SoftmaxClient(context.node_config["partition-id"], context.node_config["num-partitions"]).to_client()


app = ClientApp(client_fn=client_fn)
