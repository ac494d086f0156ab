"""A client that trains nothing: it answers with the model it got and something added, so that no two replies are alike."""

import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from nothing.times import note

app = ClientApp()


def process_start() -> float:
    """When this process was started (seconds since the epoch)."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / 100


@app.train()
def train(message: Message, context: Context) -> Message:
    path, n = str(context.run_config["times"]), int(message.content["config"]["server-round"])
    note(path, "process", n, process_start())
    note(path, "model", n)
    me = float(context.node_config["partition-id"])
    arrays = ArrayRecord({k: Array(x.numpy() + 0.001 * me) for k, x in message.content["arrays"].items()})
    metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
    reply = Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
    note(path, "reply", n)
    return reply
