"""What one model form takes, measured in a process of its own: peak memory and the time of a step.

    echo '[{"model": "resnet18", "args": {}, "shape": [3, 32, 32], "modules": 4, "train": true}]' | python -m experiments.eclm.measured

That process loads all libraries and forks one for each form. In it a tiny network of the same kinds of layers is run first; then the
kernel forgets its peak, the model is made, and the peak after some steps, less what was there before, is the model's: weights, gradients,
the optimiser's memory and activations. One torch thread. A step's time is the median of some, in processor time and by the clock.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import nn

from device_sim.trainer import fit, one_thread
from experiments.eclm.heterofl import narrowed
from learning.models import build
from learning.modular.forms import FORMS
from learning.modular.model import Blueprint, modularise, received, to_vector
from schemas.modules import Choice
from schemas.task import Training

LOOP = "while True: sum(i * i for i in range(10_000))"
"""A background process: arithmetic and memory traffic of an interpreter."""


def measure(forms: Sequence[Mapping[str, Any]], cores: set[int] | None = None) -> list[dict[str, float]]:
    """Of each form `peak` [bytes], `cpu_s` and `wall_s` a step, and the model's `parameters`; on these cores. Raises `RuntimeError`
    with what it said if it fails."""
    pin = partial(os.sched_setaffinity, 0, cores) if cores else None
    done = subprocess.run(
        [sys.executable, "-m", "experiments.eclm.measured"],
        input=json.dumps([dict(f) for f in forms]), capture_output=True, text=True, preexec_fn=pin,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"measuring failed:\n{done.stderr}")
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


@contextmanager
def busy(many: int, cores: set[int]) -> Iterator[None]:
    """For as long as this lasts, so many background processes on these cores."""
    loops = [
        subprocess.Popen([sys.executable, "-c", LOOP], preexec_fn=partial(os.sched_setaffinity, 0, cores))
        for _ in range(many)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def one(what: Mapping[str, Any], to: Connection) -> None:
    """In the fork of a form."""
    one_thread()
    shape, batch, steps = tuple(what["shape"]), what.get("batch", 16), what.get("steps", 5)
    dice = np.random.default_rng(0)
    x = dice.normal(size=(batch, *shape)).astype(np.float32)
    y = np.zeros(batch, np.int64)
    training = Training(batch=batch, steps=1, learning_rate=0.001, optimiser="adamw")

    def make(model: str, args: Mapping[str, Any], modules: int) -> torch.nn.Module:
        if not modules:
            return build(model, args, 0)
        form = replace(FORMS[model], **what.get("form", {}))
        layers = form.last or (1 if model == "mlp" else 4)
        choice = ((*range(modules), form.modules - 1),) * layers
        blueprint = Blueprint(lambda: build(model, args, 0), shape, form)
        return _received(blueprint, choice)

    # Of the same kind: what only a sub-model's making loads (torch's meta device: 80 MB) is there before, too.
    few, like = min(1, what.get("modules", 0)), what["args"]
    if what["model"] == "mlp":
        small = make("mlp", {**like, "hidden": "4,4"}, few)
    else:
        small = make("resnet18", {"shape": like["shape"], "width": 4}, few)
    fit(small, x, y, training, 0)
    del small
    before = _reset()
    args = narrowed(what["args"], what["rate"]) if "rate" in what else what["args"]
    module = make(what["model"], args, what.get("modules", 0))
    wall, cpu = [], []
    for number in range(steps):
        began, spent = time.perf_counter(), time.process_time()
        if what.get("train", True):
            fit(module, x, y, training, number)
        else:
            module.eval()
            with torch.inference_mode():
                module(torch.tensor(x))
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
    many = sum(p.numel() for p in module.parameters())
    to.send(
        {
            "peak": _peak() - before,
            "cpu_s": median(cpu),
            "wall_s": median(wall),
            "mean_s": fmean(wall),
            "parameters": many,
        }
    )


def _received(blueprint: Blueprint, choice: Choice) -> nn.Module:
    """A sub-model as a device makes it, of a vector whose values do not matter."""
    with torch.device("meta"):
        network = blueprint.network()
    made = modularise(network, blueprint.shape, blueprint.form, choice, noise=False).to_empty(device="cpu")
    return received(blueprint, choice, np.full(len(to_vector(made)), 0.01, np.float32))


def _status(field: str) -> int:
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith(field))


def _reset() -> int:
    """Have the kernel forget this process's peak; what it has now of its own [bytes]. What was freed goes back to it first: a model that
    fits into that would seem to take nothing."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")
    return _status("RssAnon")


def _peak() -> int:
    """The peak since then, less the pages of libraries: these come as their code is first run, and are no memory of the model's."""
    return _status("VmHWM") - _status("RssFile") - _status("RssShmem")


def main() -> None:
    """Forms on standard input, what they take on standard output."""
    out, context = [], get_context("fork")
    for what in json.load(sys.stdin):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=one, args=(what, theirs))
        child.start()
        theirs.close()
        out.append(ours.recv())  # EOFError, and so an exit status, if the child failed
        child.join()
    print(json.dumps(out))


if __name__ == "__main__":
    main()
