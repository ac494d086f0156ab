"""Run by Flower's own Python: what its message-API FedAvg does with received replies, from wire bytes to the weighted mean.

    python adding.py DEVICES PARAMETERS

Prints the bytes a second, the peak of this process less what it holds before the first reply, and both stages in seconds.
As in Flower's grid, each reply is made into a message from its pieces, and all are held until the strategy adds them up.
"""

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

LAYER = 2**20
"""Values of an array: a model is a record of several."""


def memory(name: str) -> float:
    """MB (10^6 bytes)."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in rows if x.startswith(name)) * 1024 / 1e6


def reply(parameters: int) -> tuple[str, dict[str, bytes]]:
    """A client's reply as it travels: its id, and its pieces by theirs."""
    values = np.random.default_rng(0).standard_normal(parameters, dtype=np.float32)
    layers = np.split(values, range(LAYER, parameters, LAYER))
    arrays = ArrayRecord({f"layer-{i}": Array(x) for i, x in enumerate(layers)})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1, "loss": 0.5})})
    message = Message(content, dst_node_id=1, message_type="train")
    return message.object_id, {k: x.deflate() for k, x in get_all_nested_objects(message).items()}


def main(devices: int, parameters: int) -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # messages are made in a run only
    strategy = FedAvg(fraction_evaluate=0.0)
    name, pieces = reply(parameters)
    wire = sum(map(len, pieces.values()))
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    replies, making = [], 0.0
    for _ in range(devices):
        received = {k: bytes(bytearray(v)) for k, v in pieces.items()}  # as from a socket: nobody else's
        began = time.perf_counter()
        replies.append(inflate_object_from_contents(name, received))
        making += time.perf_counter() - began
    began = time.perf_counter()
    arrays, _ = strategy.aggregate_train(1, replies)
    adding = time.perf_counter() - began
    assert arrays is not None
    first = replies[0].content["arrays"]
    off = max(abs(arrays[k].numpy() - first[k].numpy()).max() for k in first)
    assert off < 1e-4, off
    print(
        json.dumps(
            {
                "rate": devices * wire / (making + adding),
                "peak_mb": memory("VmHWM") - before,
                "inflate_s": making,
                "aggregate_s": adding,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
