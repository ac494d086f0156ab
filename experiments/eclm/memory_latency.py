"""Memory and time of training on a device: ECLM's Figs. 8 and 9, and training against inference, Fig. 2(c).

    olearning experiment eclm-memory-latency --out DIR

For each model the original network (FedAvg), HeteroFL's levels (VGG-16 here has no width), and sub-models of 1, 2 and 4 shrunk modules a layer; batches of 16. Each is
measured in a process of its own on this machine, one thread. Memory does not depend on the machine. A step on the paper's devices is an
estimate: this machine's time times the ratio of peak arithmetic, which `FACTORS` states.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from experiments.asked import Asked
from experiments.drawing import COLOURS, markdown, panels, save, spread
from experiments.eclm.heterofl import has_width
from experiments.eclm.measured import measure

MODELS: Mapping[str, Mapping[str, Any]] = {
    "MLP": {"model": "mlp", "args": {"inputs": 369, "hidden": "256,256", "classes": 6}, "shape": [369]},
    "ResNet-18, width 16": {
        "model": "resnet18", "args": {"shape": "3,32,32", "width": 16}, "shape": [3, 32, 32], "form": {"ratio": 4},
    },
    "ResNet-18": {"model": "resnet18", "args": {"shape": "3,32,32", "width": 64}, "shape": [3, 32, 32]},
    "VGG-16": {"model": "vgg16", "args": {"shape": "3,32,32", "classes": 100}, "shape": [3, 32, 32]},
    "ResNet-34": {
        "model": "resnet34", "args": {"shape": "1,32,32", "width": 64, "classes": 35}, "shape": [1, 32, 32],
    },
}  # fmt: skip
FORMS: Mapping[str, Mapping[str, Any]] = {
    "inference, original": {"train": False},
    "original (FedAvg)": {},
    "HeteroFL 1/2": {"rate": 0.5},
    "HeteroFL 1/4": {"rate": 0.25},
    "ECLM, 4 modules": {"modules": 4},
    "ECLM, 2 modules": {"modules": 2},
    "ECLM, 1 module": {"modules": 1},
}
FACTORS = {"Raspberry Pi 4": 6.9, "Jetson Nano": 0.35}
"""Single precision: a core of this machine does 2.6 GHz · 32 operations = 83 GFLOP/s; a Cortex-A72 1.5 GHz · 8 = 12; the Nano's GPU 236."""
WHOLE = "original (FedAvg)"


def run(asked: Asked) -> None:
    """Measure all, once for each seed: a seed is one repetition."""
    models = {k: v for k, v in MODELS.items() if k == "MLP"} if asked.quick else MODELS
    forms = {k: v for k, v in FORMS.items() if k in (WHOLE, "ECLM, 1 module")} if asked.quick else FORMS
    of: dict[str, dict[str, list[Mapping[str, float]]]] = {m: {f: [] for f in forms} for m in models}
    for seed in range(asked.seeds):
        for name, model in models.items():
            there = {f: how for f, how in forms.items() if "rate" not in how or has_width(model["args"])}
            what = [{**model, **how, "steps": 2 if asked.quick else 3} for how in there.values()]
            found = asked.runs.of({"seed": seed, "what": what}, partial(measure, what))
            for form, taken in zip(there, found, strict=True):
                asked.say(f"{name}, {form}: {taken['peak'] / 1e6:.1f} MB, {1000 * taken['cpu_s']:.1f} ms a step")
                of[name][form].append(taken)
            show({m: {k: v for k, v in f.items() if v} for m, f in of.items() if any(f.values())}, asked)


def show(of: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], asked: Asked) -> None:
    """The picture and the table of models that are done."""
    if not of:
        return
    figure, axes = panels(2, len(of), width=3.6)
    rows: list[list[object]] = []
    for (above, below), (name, forms) in zip(axes.T, of.items(), strict=True):
        for at, (form, found) in enumerate(forms.items()):
            colour = COLOURS[2] if form.startswith("ECLM") else COLOURS[5] if form.startswith("Het") else COLOURS[1]
            peak, step = (sorted(f[k] for f in found)[len(found) // 2] for k in ("peak", "cpu_s"))
            above.barh(at, peak / 1e6, color=colour)
            below.barh(at, 1000 * step, color=colour)
            whole = of[name][WHOLE]
            against = [w["peak"] / f["peak"] for w, f in zip(whole, found, strict=True)]
            slower = [w["cpu_s"] / f["cpu_s"] for w, f in zip(whole, found, strict=True)]
            phones = (f"{1000 * factor * step:,.1f}" for factor in FACTORS.values())
            rows.append([
                f"{name}: {form}", f"{found[0]['parameters'] / 1e6:.2f}", spread([f["peak"] / 1e6 for f in found], 1), spread(against, 2),
                spread([1000 * f["cpu_s"] for f in found], 1), spread(slower, 2), *phones,
            ])  # fmt: skip
        for ax, words in ((above, "peak memory [MB]"), (below, "a step of 16 [ms]")):
            ax.set(title=name, xlabel=words)
            ax.set_yticks(range(len(forms)), list(forms), fontsize=7)
            ax.invert_yaxis()
    save(figure, asked.out / asked.name)
    head = [
        "",
        "M parameters",
        "peak, MB",
        "× less than the original",
        "ms a step, here",
        "× less",
        *(f"ms, {p}, estimate" for p in FACTORS),
    ]
    (asked.out / "table.md").write_text(markdown(head, rows))
