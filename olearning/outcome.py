"""What a simulation came to."""

from dataclasses import asdict, dataclass, field
from typing import Any

from olearning.effort import Effort


@dataclass
class Epoch:
    """What an epoch came to: its model's held-out accuracy and loss (None: not scored), when it was merged (virtual ms), and what
    the task had cost its devices by then."""

    task: str
    epoch: int
    at: int
    accuracy: float | None = None
    loss: float | None = None
    effort: Effort = field(default_factory=Effort)


@dataclass
class Result:
    """A simulation, over: what each epoch came to, the checksum of each task's model, updates counted, and how long it took (s)."""

    epochs: list[Epoch] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    updates: int = 0
    bids: int = 0
    rounds: int = 0
    virtual_ms: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The same by task, as `olearning simulate --out` writes it."""
        return {
            "updates": self.updates,
            "bids": self.bids,
            "rounds": self.rounds,
            "virtual_s": round(self.virtual_ms / 1000),
            "seconds": round(self.seconds, 2),
            "updates_per_s": round(self.updates / self.seconds, 1) if self.seconds else 0.0,
            "tasks": {
                task: {
                    "model": model,
                    "ended": self.why.get(task, ""),
                    "epochs": [
                        {"epoch": e.epoch, "virtual_s": round(e.at / 1000), "accuracy": e.accuracy, "loss": e.loss}
                        | asdict(e.effort)
                        for e in self.epochs
                        if e.task == task
                    ],
                }
                for task, model in self.models.items()
            },
        }


def lines(result: Result) -> list[str]:
    """A result for a person."""
    r, out = result, []
    for task in r.models:
        scored = [e for e in r.epochs if e.task == task and e.accuracy is not None]
        best = max(scored, key=lambda e: e.accuracy or 0.0, default=None)
        said = f"; accuracy {scored[-1].accuracy:.4f}" if scored else ""
        if best and scored and best is not scored[-1]:
            said += f", {best.accuracy:.4f} after epoch {best.epoch}"
        epochs = sum(e.task == task and e.epoch > 0 for e in r.epochs)
        out.append(f"{task}: {epochs} epochs{said}; {r.why[task] or 'not ended'}; model {r.models[task]}")
    rate = r.updates / r.seconds if r.seconds else 0.0
    out.append(
        f"{r.rounds:,} rounds, {r.bids:,} bids, {r.updates:,} updates in {r.seconds:.1f} s ({rate:,.0f} a second); "
        f"{r.virtual_ms / 1000:,.0f} s of virtual time"
    )
    return out
