"""How many trainings a second each way of doing them gives: what `device_sim/engine.py` chooses by.

An update is one device's: 5 batches of 16 samples, one pass. Three ways: a loop over devices with torch's autograd (the peer of the
other two), stacked weights (`device_sim/batched.py`), and worker processes (`device_sim/workers.py`). The limit is the
arithmetic: the floating-point operations of an update at the rate at which torch multiplies two large matrices on all cores.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.line import Line, number
from device_sim.batched import train_stacked, widths
from device_sim.trainer import Job, fit, one_thread, train
from device_sim.workers import Workers
from learning.models import build, model, to_vector
from schemas.task import Scalar, Training

BATCHES, BATCH = 5, 16


@model("bench-cnn")
def cnn(side: int = 28, classes: int = 10) -> nn.Module:
    """Two convolutions of 3 × 3, each with ReLU and pooling, and a linear layer: 9,000 parameters for 28 × 28 pixels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * (side // 4) ** 2, classes),
    )  # fmt: skip
