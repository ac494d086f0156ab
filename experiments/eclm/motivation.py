"""Why devices and the cloud adapt together: ECLM's Figs. 1 and 2 (§2).

    olearning experiment eclm-motivation --data FOLDER --out DIR

1(a): accuracy by slot on human activities, 20 % of each device's samples replaced in each (`shifting.py`): the original network and a
sub-model that stay as they are, the sub-model updated on the device alone, and *ideal*, a new sub-model from a cloud that trains on
what all devices have. Mean over `WATCHED` devices. 1(b): time of one inference with 0 to 3 background processes on the same core. 2(a), (b):
RAM and CPU scores of the phone table. 2(c): memory and time of training against inference, by `eclm-memory-latency`'s way.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from torch import nn

from device_sim.phones import phones
from device_sim.trainer import one_thread
from experiments.asked import Asked
from experiments.data import PHONES, archive
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.eclm import worlds
from experiments.eclm.cloud import BATCH, RATE, Cloud, Offline
from experiments.eclm.measured import busy, measure
from experiments.eclm.memory_latency import MODELS
from experiments.eclm.shifting import Shifting
from experiments.eclm.ways import LOCAL, Alone, Eclm, accuracy, trained
from experiments.eclm.worlds import load, models_folder, subject, world
from learning.modular.training import Settings, optimiser_of, pretrain

SLOTS, QUICK = 20, 2
FIFTH = 0.2
WATCHED = 10
LINES = {
    "ideal": COLOURS[2], "sub-model updated on the device": COLOURS[0], "static sub-model": COLOURS[1],
    "static full model": COLOURS[6],
}  # fmt: skip
BACKGROUND = (0, 1, 2, 3)
MEASURED = ("ResNet-18, width 16", "ResNet-18", "VGG-16")


def run(asked: Asked) -> None:
    """All panels."""
    s = subject(asked, worlds.HAR)
    data, slots = load(asked, s), QUICK if asked.quick else SLOTS
    lines: list[Mapping[str, Sequence[float]]] = []
    for seed in range(asked.seeds):
        there = Cloud(world(data, s, s.partitions[0], seed), models_folder(asked))
        settings = {"figure": "1a", "subject": s.name, "seed": seed, "slots": slots, "passes": list(s.passes)}
        lines.append(asked.runs.of(settings, partial(slot_by_slot, there, slots)))
        asked.say(f"seed {seed}: " + ", ".join(f"{name} {fmean(line):.3f}" for name, line in lines[-1].items()))
    names = MEASURED[:1] if asked.quick else MEASURED
    forms = [{**MODELS[name], "train": train, "steps": 3} for name in names for train in (False, True)]
    taken = asked.runs.of({"figure": "2c", "forms": forms}, partial(measure, forms))
    some = BACKGROUND[:2] if asked.quick else BACKGROUND
    waits = asked.runs.of({"figure": "1b", "model": MEASURED[0], "background": list(some)}, partial(beside, some))
    table = phones(archive(asked, PHONES)).abilities if asked.data is not None else {}
    show(
        asked,
        lines,
        dict(zip(some, waits, strict=True)),
        dict(zip(names, zip(taken[::2], taken[1::2], strict=True), strict=True)),
        table,
    )


def slot_by_slot(there: Cloud, slots: int) -> dict[str, list[float]]:
    """Of each line the mean accuracy in each slot."""
    one_thread()
    shift, some = Shifting(there.world, FIFTH), there.world.devices[:WATCHED]
    plain, eclm = Alone(there).fetched(), Eclm(there, there.modular(Offline()))
    static: dict[int, nn.Module] = {d.number: eclm.fetched(d, shift.of(d)[0]) for d in some}
    local = copy.deepcopy(static)
    settings = Settings(BATCH, RATE)
    optimiser = optimiser_of(eclm.whole, settings)
    out: dict[str, list[float]] = {name: [] for name in LINES}
    for slot in range(slots):
        if slot:
            shift.step()
        everything = [shift.of(d)[0] for d in there.world.devices]
        x, y = np.concatenate([p.x for p in everything]), np.concatenate([p.y for p in everything])
        pretrain(eclm.whole, optimiser, x, y, settings, there.world.seed, 1000 + slot)
        eclm.whole.eval()
        scores: dict[str, list[float]] = {name: [] for name in LINES}
        for d in some:
            mine, test = shift.of(d)
            trained(local[d.number], mine, LOCAL, "local", slot, d.number)
            models = (eclm.fetched(d, mine), local[d.number], static[d.number], plain)
            for name, module in zip(LINES, models, strict=True):
                scores[name].append(accuracy(module, test))
        for name, values in scores.items():
            out[name].append(fmean(values))
    return out


def beside(many: Sequence[int]) -> list[float]:
    """By the clock the seconds of one inference beside so many background processes, all on one core."""
    core = {max(os.sched_getaffinity(0))}
    what = {**MODELS[MEASURED[0]], "train": False, "batch": 1, "steps": 200}
    out = []
    for n in many:
        with busy(n, core):
            out.append(measure([what], core)[0]["mean_s"])
    return out


def show(
    asked: Asked, lines: Sequence[Mapping[str, Sequence[float]]], waits: Mapping[int, float],
    taken: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]], table: Mapping[str, Any],
) -> None:  # fmt: skip
    """Five panels and the table."""
    figure, (axes,) = panels(1, 5, width=3.4)
    for name, colour in LINES.items():
        band(axes[0], range(len(lines[0][name])), [line[name] for line in lines], color=colour, label=name)
    axes[0].set(title="1(a)", xlabel="slot", ylabel="accuracy")
    axes[0].legend(fontsize=6)
    axes[1].bar([str(n) for n in waits], [1000 * t for t in waits.values()], color=COLOURS[0])
    axes[1].set(title=f"1(b) {MEASURED[0]}", xlabel="background processes", ylabel="inference [ms]")
    for ax, what, words in ((axes[2], "ram", "RAM [GB]"), (axes[3], "cpu", "CPU score")):
        if what in table:
            ax.hist(table[what], bins=16, color=COLOURS[5])
        ax.set(title="2(a)" if what == "ram" else "2(b)", xlabel=words, ylabel="phones of the table")
    for at, pair in enumerate(taken.values()):
        for n, (found, label) in enumerate(zip(pair, ("inference", "training"), strict=True)):
            axes[4].bar(at + 0.4 * n, found["peak"] / 1e6, 0.35, color=COLOURS[n], label=label if not at else None)
    axes[4].set(title="2(c)", ylabel="peak memory [MB], batches of 16", yscale="log")
    axes[4].set_xticks([at + 0.2 for at in range(len(taken))], list(taken), fontsize=6)
    axes[4].legend(fontsize=6)
    save(figure, asked.out / asked.name)
    rows: list[list[object]] = [
        [f"1(a) {name}, all slots, accuracy [%]", spread([100 * fmean(line[name]) for line in lines], 1), ""]
        for name in LINES
    ]
    last, first = max(waits), waits[0]
    rows.append(
        [
            f"1(b) inference, {last} background processes: times as long as alone",
            f"{waits[last] / first:.2f}",
            "5.06 (3 processes)",
        ]
    )
    for name, (idle, train) in taken.items():
        rows.append(
            [f"2(c) {name}, training over inference: peak memory", f"{train['peak'] / idle['peak']:.1f}", "over 10"]
        )
        rows.append([f"2(c) {name}, training over inference: time", f"{train['cpu_s'] / idle['cpu_s']:.1f}", "over 10"])
    (asked.out / "table.md").write_text(markdown(["", "here", "the paper"], rows))
