"""A device fits a run to its memory, speed and link, within what the task allows (`schemas.task.Adapt`). Pure.

What it fits is the announcement itself: all that follows (its plan, training, upload) goes by that. In this order:

- **memory**: a batch as large as fits, at most the task's. Training takes `COPIES` of the model as float32 (weights, gradient, the model
  the round began with), those that the optimiser keeps, and `sample_kb` for each sample of a batch; it may take `SHARE` of the
  device's memory. This counts what is held at once at the worst moment, and no framework around it. A device that says nothing of its
  memory takes the task's batch.
- **link**: the task's codec, or else the first of `codecs` with which the run ends within `most_s`; if none does, the shortest.
- **speed**: if that is still too long, as many steps as it can take by then. It is FedProx' way with slow devices (Li et al., MLSys
  2020, §3.1: "γ-inexact solutions" instead of dropping them). A delta weighs by the samples that were seen, so a part of a pass weighs
  a part.

The plane needs to know none of it: a block says its own codec, and sums of blocks are exact whatever each was written by.
"""

from collections.abc import Callable
from math import ceil

from msgspec.structs import replace

from device_sim.pace import up_bytes
from schemas.messages import Announcement
from schemas.task import Adapt, Training

COPIES = 3
"""Of a model, that training holds besides what the optimiser remembers."""
SHARE = 0.5
"""Of its memory, that a device gives to training: the rest is the system's and other apps'."""
OFF = Adapt()


def adapt(
    a: Announcement, samples: int, memory_mb: float, expect: Callable[[Announcement], int]
) -> Announcement | None:
    """The round as this device can do it; None: it cannot. `memory_mb`: 0 if it is not known. `expect`: how long (ms) it thinks that a
    run of an announcement takes, transfer included."""
    how = a.adapt
    if how == OFF:
        return a
    if how.batch_least and memory_mb:
        batch = min(a.training.batch, most_samples(a, memory_mb))
        if batch < min(how.batch_least, a.training.batch):
            return None
        a = replace(a, training=replace(a.training, batch=batch))
    most = 1000 * how.most_s
    if not most or expect(a) <= most:
        return a
    written = [a, *(replace(a, codec=name) for name in how.codecs)]
    for b in written:
        if expect(b) <= most:
            return b
    return _fewer_steps(min(written, key=up_bytes), samples, most, expect)


def most_samples(a: Announcement, memory_mb: float) -> int:
    """How many samples a batch may have in so much memory; below 0 if not even the model fits."""
    model = 4 * sum(a.sizes) * (COPIES + _remembered(a.training))
    return int((SHARE * memory_mb * 1e6 - model) // (1e3 * a.adapt.sample_kb))


def _remembered(t: Training) -> int:
    """Copies of the model that the optimiser keeps: AdamW's two moments, or SGD's momentum."""
    return 2 if t.optimiser == "adamw" else int(t.momentum > 0)


def _fewer_steps(
    a: Announcement, samples: int, most: float, expect: Callable[[Announcement], int]
) -> Announcement | None:
    """As many steps as end in time; None if the least do not."""

    def taking(steps: int) -> Announcement:
        return replace(a, training=replace(a.training, steps=steps))

    full = a.training.taken(samples)
    low, high = max(1, ceil(round(a.adapt.steps_least * full, 6))), full
    if full < 1 or expect(taking(low)) > most:
        return None
    while low < high:  # the most that ends in time is in [low, high]
        middle = (low + high + 1) // 2
        if expect(taking(middle)) <= most:
            low = middle
        else:
            high = middle - 1
    return taking(low)
