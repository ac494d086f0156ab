"""ECLM's offline stage as a job (§4.3): a modular model trained end to end, its modules' abilities enhanced, and a file with what came out.

After each pass there is a checkpoint, which replaces the one before whole or not at all. Who is killed goes on from it, and comes
to the same bits as who was not.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from device_sim.data import Dataset, load
from device_sim.modular import made
from device_sim.trainer import one_thread
from learning.models import score
from learning.modular.assignment import MODULES
from learning.modular.model import Modular, layout_of, to_vector
from learning.modular.training import Losses, Settings, by_classes, enhance, optimiser_of, plan, pretrain
from learning.registry import UnknownModel
from olearning.errors import USAGE, Trouble
from olearning.model_files import write_model
from schemas.task import TaskSpec

CHECKPOINT, MODEL, PASSES = "checkpoint.pt", "model.npz", "passes.json"
TRAINING, ENHANCING = "training", "enhancing"


@dataclass(frozen=True)
class Stage:
    """How it is trained. `passes` end to end, then `enhance` of fine-tuning; on the share `proxy` of the task's samples, the same
    share of each class, which is the cloud's own data. `together`: sets of classes, each a sub-task; (): each class is one.
    `most_load`, `most_modules`: κ1 (None: 1.5 times a module's mean load) and κ2."""

    passes: int = 20
    enhance: int = 5
    proxy: float = 0.3
    settings: Settings = field(default_factory=Settings)
    together: tuple[tuple[int, ...], ...] = ()
    most_load: float | None = None
    most_modules: int = MODULES
    seed: int = 0


def proxy(dataset: Dataset, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cloud's samples (n, …) and classes (n,): this share of each class, one sample at least, drawn by the seed."""
    dice = np.random.default_rng(seed)
    rows = [np.flatnonzero(dataset.y == c) for c in np.unique(dataset.y)]
    mine = np.sort(np.concatenate([dice.permutation(r)[: max(1, round(share * len(r)))] for r in rows]))
    return dataset.x[mine], dataset.y[mine]


def train(spec: TaskSpec, stage: Stage, folder: Path, say: Callable[[str], None]) -> Path:
    """Train the task's modular model, from where `folder` has it, to the end; the file with the model. Raises `Trouble` for what cannot
    be, and for a folder of another training."""
    one_thread()
    dataset, model = _begin(spec, stage.seed)
    x, y = proxy(dataset, stage.proxy, stage.seed)
    try:
        subtasks = by_classes(y, stage.together or [(int(c),) for c in np.unique(y)])
    except ValueError as e:
        raise Trouble(f"sub-tasks: {e}", USAGE) from None
    what = json.dumps({"task": _of(spec), "stage": asdict(stage)}, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    done, log, targets, optimiser = _resume(folder / CHECKPOINT, what, model, stage.settings)
    if done:
        say(f"goes on after pass {done} of {stage.passes + stage.enhance}")
    if not done:
        _note(log, 0, "", None, model, dataset, say)
    for number in range(done, stage.passes + stage.enhance):
        if number < stage.passes:
            losses = pretrain(model, optimiser, x, y, stage.settings, stage.seed, number)
        else:
            if targets is None:
                found = plan(model, x, subtasks, stage.most_load, stage.most_modules)
                targets = found.targets
                say(f"modules of {len(found.h[0])} sub-tasks: {_owned(found.mask)}")
                optimiser = optimiser_of(model, stage.settings)
            losses = enhance(model, optimiser, x, y, subtasks, targets, stage.settings, stage.seed, number)
        _note(log, number + 1, TRAINING if number < stage.passes else ENHANCING, losses, model, dataset, say)
        _keep(folder / CHECKPOINT, what, number + 1, log, targets, model, optimiser)
    write_model(folder / MODEL, layout_of(model), to_vector(model))
    (folder / PASSES).write_text(json.dumps(log, indent=1) + "\n")
    return folder / MODEL


def _begin(spec: TaskSpec, seed: int) -> tuple[Dataset, Modular]:
    if spec.modules is None:
        raise Trouble(f"task {spec.task} has no [modules]: its model is one piece (docs/modular.md)", USAGE)
    try:
        dataset = load(spec.data, spec.data_args)
        model = made(spec, dataset, seed)
        score(model, dataset.test_x[:1], dataset.test_y[:1])
    except (UnknownModel, ValueError, TypeError, RuntimeError, IndexError) as e:
        raise Trouble(str(e), USAGE) from None
    return dataset, model


def _of(spec: TaskSpec) -> list:
    """What of a task the training depends on."""
    args = [dict(sorted(args.items())) for args in (spec.model_args, spec.data_args)]
    return [spec.model, spec.data, *args, repr(spec.modules)]


def _note(
    log: list[dict],
    number: int,
    stage: str,
    losses: Losses | None,
    model: Modular,
    dataset: Dataset,
    say: Callable[[str], None],
) -> None:
    accuracy, loss = score(model, dataset.test_x, dataset.test_y)
    entry = {"pass": number, "stage": stage, "accuracy": accuracy, "loss": loss}
    text = f"pass {number:3}  {stage or 'untrained'}: held-out accuracy {accuracy:.3f}, loss {loss:.3f}"
    if losses:
        entry |= {"entropy": losses.entropy, "routing": losses.routing}
        text += f"; cross-entropy {losses.entropy:.3f}, {'balance' if stage == TRAINING else 'divergence'} {losses.routing:.3f}"
    log.append(entry)
    say(text)


def _owned(masks: list) -> str:
    return "; ".join(
        f"layer {i}: {', '.join(str(int(m)) for m in mask.sum(axis=1))} each" for i, mask in enumerate(masks)
    )


# ------------------------------------------------------------------ checkpoints


def _keep(
    path: Path,
    what: str,
    done: int,
    log: list[dict],
    targets: list | None,
    model: Modular,
    optimiser: torch.optim.Optimizer,
) -> None:
    state = {
        "what": what,
        "done": done,
        "log": log,
        "targets": None if targets is None else [torch.tensor(t) for t in targets],
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    beside = path.with_name(path.name + ".new")
    torch.save(state, beside)
    beside.replace(path)


def _resume(
    path: Path, what: str, model: Modular, settings: Settings
) -> tuple[int, list[dict], list | None, torch.optim.Optimizer]:
    """What is done, the log so far, the targets if they are made, and the optimiser; `model` is set to how it was."""
    if not path.exists():
        return 0, [], None, optimiser_of(model, settings)
    try:
        state = torch.load(path, weights_only=True)
    except Exception as e:
        raise Trouble(
            f"{path} is no checkpoint that can be read ({type(e).__name__}): remove it to begin anew", USAGE
        ) from None
    if state["what"] != what:
        raise Trouble(
            f"{path.parent} has another training, of another task, seed or settings: choose another --out", USAGE
        )
    model.load_state_dict(state["model"])
    optimiser = optimiser_of(model, settings)
    optimiser.load_state_dict(state["optimiser"])
    targets = state["targets"] and [t.numpy() for t in state["targets"]]
    return state["done"], state["log"], targets, optimiser
