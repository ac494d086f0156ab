"""A run's delta as it travels: the blocks that its device owes, each weighted and rounded once (docs/codecs.md)."""

from collections.abc import Iterator

import numpy as np

from device_sim.device import Device
from device_sim.job import Job, Run
from device_sim.portion import blocks_of, owes
from device_sim.pseudonym import seed_of
from learning.codecs import read_values, write_values
from schemas import sets
from schemas.blocks import MOST_LOSS, DeltaBlock, codec, slices
from schemas.messages import Announcement


def unweighed(a: Announcement, run: Run) -> str:
    """Which of the blocks that it owes a run gives no weight, in words, or ""."""
    weights = getattr(run, "weights", None)
    bad = [b for b in blocks_of(a) if weights and sets.has(owes(a), b) and weights.get(b, 0) < 1]
    return f"blocks {', '.join(map(str, bad))} are to be sent, and the run gives them no weight" if bad else ""


def blocks(d: Device, name: str, job: Job, run: Run) -> Iterator[DeltaBlock]:
    """The blocks of a run's delta, by a device that is called so. What top-k leaves out stays with the device (`Device.left`).

    Raises `ValueError` where a value is not finite.
    """
    a = job.work
    how, left = codec(a.codec), d.left.get(a.task, {})
    seed = seed_of(a.seed, d.id, a.task, a.round, "rounding")
    dice = np.random.default_rng(seed) if how.bits < 32 else None
    if not how.sparse:
        d.left.pop(a.task, None)
    weights, gives = getattr(run, "weights", None), owes(a)
    loss = min(round(run.loss_sum * 1e6), run.samples * MOST_LOSS) if np.isfinite(run.loss_sum) else 0
    for i, piece in zip(blocks_of(a), slices(a.sizes), strict=True):
        if not sets.has(gives, i):
            continue
        weight = weights[i] if weights else run.samples
        weighted = run.delta[piece].astype(np.float64) * weight  # block by block: it stays in the cache
        if i in left:
            weighted += left[i]
        data, exponent = write_values(weighted, how, a.unit, a.largest, dice, a.keep)
        if how.sparse:
            over = d.left.setdefault(a.task, {})[i] = weighted.astype(np.float32)
            sent = read_values(how, data, weighted.size)
            over[sent.at] -= sent.q * 2.0 ** (a.unit + exponent)
        yield DeltaBlock(
            task=a.task,
            round=a.round,
            slot=job.slot,
            device=name,
            block=i,
            codec=a.codec,
            exponent=exponent,
            weight=weight,
            samples=run.samples,
            loss=loss,
            data=data,
        )
