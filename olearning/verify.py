"""What an audit found, in words and as JSON: `olearning verify`."""

from typing import Any

from olearning.figures import many
from processors.audit import Audit
from processors.oracle import OUTCOMES

MOST = 8
"""Differences shown; `--json` has more of them."""


def verdict(a: Audit) -> str:
    """`ok`; `differs`; or `incomplete`: nothing differs, and something could not be checked."""
    return "differs" if a.differs else "incomplete" if a.missing else "ok"


def lines(a: Audit) -> list[str]:
    """For a person: the verdict first, then what differs or is missing, then the figures."""
    said = {"ok": "OK", "differs": "DIFFERS", "incomplete": "NOT WHOLLY VERIFIED"}[verdict(a)]
    out = [f"round {a.round} of {a.task} in zone {a.zone}: {said}"]
    if a.differs:
        out += [f"  first: {a.differs[0]}", *(f"  then: {text}" for text in a.differs[1:MOST])]
        if (more := len(a.differs) + a.more - MOST) > 0:
            out.append(f"  … and {more} more")
    out += [f"  cannot be checked: {text}" for text in a.missing[:MOST]]
    if len(a.missing) > MOST:
        out.append(f"  … and {len(a.missing) - MOST} more that cannot be checked")
    out += [f"  note: {text}" for text in a.notes[:MOST]]
    return out + [f"  {text}" for text in figures(a)]


def figures(a: Audit) -> list[str]:
    """What was added up, and what of it was compared."""
    outcomes = " + ".join(f"{a.counts[n]:,} {n}" for n in OUTCOMES)
    rest = "".join(f" + {n:,} {word}" for n, word in ((a.held, "held"), (a.lost, "lost")) if n)
    offsets = a.offsets + sum(a.story.chapter.gone.values())
    holders = ", ".join(dict.fromkeys(e.holder for e in a.story.chapter.commits if e.holder))
    out = [
        f"{offsets:,} offsets = {outcomes}{rest}",
        f"{a.recomputed} of {a.commits} commits judged and added again, block by block{holders and f' (by {holders})'}",
        f"{a.devices:,} devices, {a.samples:,} samples, mean loss {mean_loss(a):.4f}",
    ]
    f, o = a.story.chapter.finalised, a.story.chapter.opened
    if a.model and f and f.manifest and o:
        same = "differs" if a.differs else "every bit the same"
        size = f"{sum(o.sizes):,} values in {many(len(o.sizes), 'block')}"
        out.append(
            f"model version {f.manifest.version}: {size}, recomputed from its base: {same}; norm of the mean delta {a.norm:.6g}"
        )
    elif f and f.manifest is None:
        out.append("the round failed and has no model")
    return out


def mean_loss(a: Audit) -> float:
    return a.loss / 1e6 / a.samples if a.samples else 0.0


def as_json(a: Audit) -> dict[str, Any]:
    """The same for programs."""
    f = a.story.chapter.finalised
    return {
        "task": a.task,
        "zone": a.zone,
        "round": a.round,
        "ledger": a.ledger,
        "verdict": verdict(a),
        "differs": a.differs,
        "more": a.more,
        "missing": a.missing,
        "notes": a.notes,
        "offsets": a.offsets + sum(a.story.chapter.gone.values()),
        "counts": a.counts,
        "held": a.held,
        "lost": a.lost,
        "devices": a.devices,
        "samples": a.samples,
        "mean_loss": mean_loss(a),
        "weights": list(a.weights),
        "commits": a.commits,
        "recomputed": a.recomputed,
        "model": {"version": f.manifest.version, "recomputed": a.model} if f and f.manifest else None,
        "norm": a.norm,
    }
