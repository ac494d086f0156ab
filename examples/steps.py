"""Does its owner stand, walk or run? Data, a model and device code of one's own (docs/tutorial.md)."""

import numpy as np

from olearning import Client, Context, Dataset, client, data, held_out, model


@data("steps")
def steps(people: int = 30, windows: int = 40) -> Dataset:
    """Windows of a phone's accelerometer, as two numbers: how far it swings, and how often. Everybody walks in their own way."""
    dice = np.random.default_rng(0)
    user = np.repeat(np.arange(people), windows)
    y = dice.integers(3, size=len(user))  # 0 stands, 1 walks, 2 runs
    way = np.exp(dice.normal(0, 0.25, size=(people, 2)))[user]
    usual = np.array([[0.1, 0.2], [1.0, 1.0], [2.2, 1.5]])[y]
    x = usual * way + dice.normal(0, 0.25, size=usual.shape)
    return held_out("steps", x, y, user=user)


@model("walker")
def walker(hidden: int = 16):
    from torch import nn  # here, so that the roles that only merge need no torch

    return nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 3))


class Centres(Client):
    """The nearest of three centres says what its owner does. A device sends where its own centres lie; no gradient, no torch."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def get_parameters(self, config):
        return [np.zeros((3, 2))]

    def fit(self, parameters, config):
        (centres,) = parameters
        mine = [self.x[self.y == k].mean(axis=0) if (self.y == k).any() else centres[k] for k in range(3)]
        return [np.stack(mine)], len(self.x), {"losses": self.distances(mine)[np.arange(len(self.y)), self.y]}

    def evaluate(self, parameters, config):
        far = self.distances(parameters[0])
        right = far.argmin(axis=1) == self.y
        return far[np.arange(len(self.y)), self.y].mean(), len(self.x), {"accuracy": right.mean()}

    def distances(self, centres):
        return ((self.x[:, None, :] - np.asarray(centres)) ** 2).sum(axis=2)


@client("centres")
def centres(context: Context) -> Client:
    return Centres(*context.samples())
