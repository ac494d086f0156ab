"""FedAvg as it comes with Flower, with notes of when a round begins and ends."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from nothing.times import note

app = ServerApp()
LAYER = 2**20
"""Values of an array: a model is a record of several."""


class Noted(FedAvg):
    def __init__(self, path: str, devices: int):
        super().__init__(fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices)
        self.path = path

    def configure_train(self, server_round, arrays, config, grid):
        messages = super().configure_train(server_round, arrays, config, grid)
        note(self.path, "begin", server_round)
        return messages

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        note(self.path, "received", server_round)
        out = super().aggregate_train(server_round, replies)
        note(self.path, "end", server_round)
        return out


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    values = np.random.default_rng(0).standard_normal(int(config["parameters"]), dtype=np.float32)
    layers = np.split(values, range(LAYER, len(values), LAYER))
    arrays = ArrayRecord({f"layer-{i}": Array(x) for i, x in enumerate(layers)})
    strategy = Noted(str(config["times"]), int(config["devices"]))
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]))
    note(strategy.path, "over", int(config["rounds"]))
