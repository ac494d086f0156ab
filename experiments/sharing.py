"""How well phones are shared: completion times, utilisation and throughput by policy (Propius' evaluation; `platforms.md` §3.1, §3.6).

    olearning experiment sharing --data FOLDER --seeds 5 --out DIR

Propius' abstract claims up to 1.88× the utilisation, 2.76× the throughput and 1.26× better completion times than "existing resource management techniques and
frameworks", and does not say which. Its code has two baselines of its own, so these are here too: `static`, each phone is bound to a job for good,
and `random-binding`, each phone tries any job there is. All others are the functions of `learning/sharing`.

Its jobs, demands, needs, arrivals and time-outs ([sharing_world.py](sharing_world.py)), in virtual time ([sharing_run.py](sharing_run.py)), without training.
`rounds` of a job are a fifth of its 150, and so are the gaps between arrivals. Ample: as many phones as it has. Scarce: so few that with ten jobs
rounds wait about as long for phones as in its own stored results (FIFO, SRSF and IRS: 61 to 68 s there; seed 0 here: 48 to 77 s).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from experiments.asked import Asked
from experiments.data import CAPACITY, PHONES, archive
from experiments.drawing import COLOURS, markdown, panels, save, spread
from experiments.sharing_jobs import Way
from experiments.sharing_run import Sharing
from experiments.sharing_world import DAY, PROFILES, phones, wants

POLICIES = (
    "static", "random-binding", "fifo", "random", "srsf", "srtf", "las", "irs", "irs-tiers", "max-min", "reward",
)  # fmt: skip
"""The first is for ample phones alone: where they are scarce its quota for a demand of d is less than d phones."""
KEEPS, DISCARDS = "keeps", "discards"
SETTINGS = {
    ("10 jobs", "scarce", KEEPS): 1_500,
    ("10 jobs", "ample", KEEPS): 6_000,
    ("10 jobs", "scarce", DISCARDS): 1_500,
    ("10 jobs", "ample", DISCARDS): 6_000,
    ("20 jobs", "scarce", KEEPS): 1_500,
    ("20 jobs", "ample", KEEPS): 15_000,
    ("20 jobs", "scarce", DISCARDS): 1_500,
    ("20 jobs", "ample", DISCARDS): 15_000,
}
"""Phones by the jobs, how many there are for them, and what becomes of a round that times out."""
JOB_ROUNDS = 30
DAYS = 1
"""A job that is not done by then has not finished."""
QUICK = {"rounds": 2, "phones": 2_500}

Results = Mapping[tuple[str, str, str, str], Sequence[Mapping[str, Any]]]
"""By jobs, scarce or ample, what becomes of rounds that time out, and policy: what came out, a seed each."""


def run(asked: Asked) -> None:
    """All policies in all settings; first where phones are scarce, since there they differ. What there is so far is shown after each."""
    archive(asked, PHONES), archive(asked, CAPACITY)
    found: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for (jobs, supply, end), count in SETTINGS.items():
        for seed in range(asked.seeds):
            asked.say(f"{jobs}, phones {supply}, a round that times out {end}: seed {seed}")
            for policy in POLICIES[supply == "scarce" :]:
                s = {
                    "jobs": jobs,
                    "phones": QUICK["phones"] if asked.quick else count,
                    "end": end,
                    "policy": policy,
                    "rounds": QUICK["rounds"] if asked.quick else JOB_ROUNDS,
                    "seed": seed,
                }
                result = asked.runs.of(s, partial(simulated, asked, s))
                found.setdefault((jobs, supply, end, policy), []).append(result)
        show(found, asked.out)


def simulated(asked: Asked, s: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came to."""
    profile = PROFILES[s["jobs"]]
    crowd = phones(archive(asked, PHONES), archive(asked, CAPACITY), s["seed"], s["phones"], DAYS)
    jobs = wants(profile, s["seed"], s["rounds"])
    way = Way(s["policy"], keeps=s["end"] == KEEPS)
    return Sharing(crowd, jobs, way, s["seed"], profile.faster, DAYS * DAY).run().result()


# ------------------------------------------------------------------ what is shown

Measure = Callable[[Mapping[str, Any]], float]
MEASURES: dict[str, tuple[Measure, int]] = {
    "completion, h": (lambda r: mean(r["took"]) / 3600, 2),
    "p95, h": (lambda r: float(np.percentile(r["took"], 95)) / 3600, 2),
    "utilisation": (lambda r: r["utilisation"], 3),
    "useful": (lambda r: r["useful"], 3),
    "bindings/s": (lambda r: r["bindings"] / r["hours"] / 3600, 2),
    "results/s": (lambda r: r["counted"] / r["hours"] / 3600, 2),
    "handshakes a binding": (lambda r: r["handshakes"] / r["bindings"], 1),
    "rounds begun for one that counts": (lambda r: r["tries"] / max(1, r["rounds"]), 2),
    "jobs not finished": (lambda r: r["unfinished"], 1),
}
GAINS: dict[str, tuple[str, str, bool]] = {
    "utilisation over static": ("utilisation", "static", True),
    "useful time over static": ("useful", "static", True),
    "bindings/s over random binding": ("bindings/s", "random-binding", True),
    "results/s over random binding": ("results/s", "random-binding", True),
    "completion over FIFO": ("completion, h", "fifo", False),
    "completion over random": ("completion, h", "random", False),
    "completion over random binding": ("completion, h", "random-binding", False),
}
"""By name the measure, against whom, and whether more is better."""
PAPER = ["1.88", "", "2.76", "2.76", "1.26", "1.26", "1.26"]


def show(found: Results, out: Path) -> None:
    """The tables and the picture."""
    settings = list(dict.fromkeys(key[:3] for key in found))
    parts = [f"**{title(s)}**\n\n{table(found, s)}\n{gains(found, s)}" for s in settings]
    (out / "table.md").write_text("\n".join(parts))
    draw(found, out / "sharing")


def title(setting: tuple[str, str, str]) -> str:
    jobs, supply, end = setting
    return f"{jobs}, phones {supply}, a round that times out {end}" + (
        " what came" if end == KEEPS else " all, as Propius"
    )


def table(found: Results, setting: tuple[str, str, str]) -> str:
    """Each policy's measures."""
    rows = []
    for policy in POLICIES:
        if runs := found.get((*setting, policy)):
            rows.append([policy, *(spread([of(r) for r in runs], digits) for of, digits in MEASURES.values())])
    return markdown(["policy", *MEASURES], rows)


def gains(found: Results, setting: tuple[str, str, str]) -> str:
    """How many times as good, seed by seed, beside the paper's "up to"."""
    rows: list[list[object]] = []
    for policy in POLICIES[2:]:
        runs = found.get((*setting, policy), ())
        row: list[object] = [policy]
        for measure, other, more in GAINS.values():
            of = MEASURES[measure][0]
            pairs = zip(map(of, runs), map(of, found.get((*setting, other), ())), strict=False)
            row.append(spread([a / b if more else b / a for a, b in pairs if a and b], 2))
        rows.append(row)
    return markdown(["times as good", *GAINS], [*rows, ["the paper, up to", *PAPER]])


def draw(found: Results, to: Path) -> None:
    """A column for each setting: completion time, utilisation and throughput of results; the thin line is from the least to the most."""
    settings = list(dict.fromkeys(key[:3] for key in found))
    shown = ["completion, h", "utilisation", "results/s"]
    figure, axes = panels(len(shown), len(settings), 3.4, 2.6)
    for column, setting in enumerate(settings):
        for row, measure in enumerate(shown):
            ax = axes[row, column]
            for n, policy in enumerate(POLICIES):
                values = [MEASURES[measure][0](r) for r in found.get((*setting, policy), ())]
                if values:
                    colour = (
                        COLOURS[1] if n < 2 else COLOURS[2] if policy in ("irs", "irs-tiers", "max-min") else COLOURS[0]
                    )
                    ax.barh(n, mean(values), color=colour, height=0.7)
                    ax.plot([min(values), max(values)], [n, n], color=COLOURS[6], linewidth=1)
            ax.set(xlabel=measure, yticks=range(len(POLICIES)))
            ax.set_yticklabels(POLICIES if not column else [], fontsize=7)
            ax.set_ylim(len(POLICIES) - 0.5, -0.5)
        axes[0, column].set_title(f"{setting[0]}, {setting[1]}, {setting[2]}", fontsize=9)
    save(figure, to)
