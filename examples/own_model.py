"""Data, a model and a merge of one's own, in one file (docs/your-own.md):

olearning up --memory --devices 10 --load examples/own_model.py --task examples/own_model.toml
"""

import numpy as np

from olearning import Dataset, data, held_out, model, strategy


@data("rings")
def rings(samples: int = 1500, rings: int = 3) -> Dataset:
    """Points on rings around the origin; a point's class is its ring."""
    dice = np.random.default_rng(0)
    y = dice.integers(rings, size=samples)
    angle, radius = dice.uniform(0, 2 * np.pi, samples), 1 + y + dice.normal(0, 0.15, samples)
    return held_out("rings", np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), y)


@model("two-layers")
def two_layers(hidden: int = 32, classes: int = 3):
    from torch import nn  # here, so that the roles that only merge need no torch

    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, classes))


@strategy("bounded", settings={"learning_rate": 1.0, "momentum": 0.5, "most": 0.5}, arrays=1)
def bounded(settings, model, delta, state):
    """Momentum over mean deltas of which no value counts more than `most`. Its one array of state goes on in the ledger."""
    step = settings["momentum"] * state[0] + np.clip(delta, -settings["most"], settings["most"])
    return model + settings["learning_rate"] * step, [step]
