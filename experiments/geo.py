"""One layer against two, with devices that are free only in the night of where they live (OLearning §1; §3, Limitation 1).

The paper has no figure of this: it says that in one layer "the cloud needs a relatively long time (possibly up to a day) to collect
enough weight updates", that some time zones are chosen more often than others, and that selected devices may not answer. Here the
same devices, with the same nights, speeds and data, in four time zones, work for one task in three ways:

    two layers           a zone each, 20 devices a round, 10 rounds a zone and epoch; the globe merges when all zones are done (§7.1)
    one layer, all       one coordinator for all; a round, which is the globe's, takes as many as a round of all zones does: 80
    one layer, paced     one coordinator for all; a round takes 20, whoever is free first. It waits, so that there are at most 60 a
                         day, about as many as the zones of two layers do together

Devices register when they are free, in all three: the platform has no server that picks devices which sleep. What that would mean
is computed from the same nights, in a larger crowd (`chosen`): 104 of 5,200 devices are picked at random, any of them 80 will do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from device_sim.availability import Availability
from experiments.asked import Asked
from experiments.data import HAR, converted
from experiments.drawing import COLOURS, band, markdown, panels, save, spread
from experiments.watched import Round, Rounds, accuracy_at, jain, names, scores
from experiments.zoned import PLACES, digits

DEVICES, DEMAND, ROUNDS = 26, 20, 10
"""Of a zone; as in the paper: 1.3 K (K = 20), 10 rounds an epoch."""
QUICK = 6
"""Devices of a zone, if it is to be quick."""
DAY = 240
"""Virtual seconds a day; a look at the clock is a minute and a half."""
DAYS = 4
PACE = DAY / 60
WAYS = ("two layers", "one layer, all", "one layer, paced")
AMONG, WITHIN = 0.5, 1.0
"""Dirichlet's alphas, of classes among zones and within them."""
CROWD, PICKED, WANTED = 5_200, 104, 80
HOUR = DAY * 1000 / 24


def run(asked: Asked) -> None:
    """Simulate all ways, for all seeds; then draw."""
    days, results = 1 if asked.quick else DAYS, {}
    small = {"devices": QUICK} if asked.quick else {}
    for seed in range(asked.seeds):
        for way in WAYS:
            data = "digits" if asked.data is None else "hapt"
            settings = {"way": way, "seed": seed, "days": days, "data": data, **small}
            asked.say(f"{way}, seed {seed}")
            results[way, seed] = asked.runs.of(settings, partial(simulated, asked, settings))
    picked = [chosen(seed, 2 if asked.quick else 20) for seed in range(asked.seeds)]
    _table(asked, results, picked)
    _draw(asked, results, days)


def simulated(asked: Asked, s: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came to."""
    devices = s.get("devices", DEVICES)
    with TemporaryDirectory(prefix="olearning-geo-") as folder:
        file = Path(folder) / f"{s['data']}-{s['seed']}.npz"
        if asked.data is None:
            digits(file, len(PLACES), devices, s["seed"], AMONG, WITHIN)
        else:
            with converted(asked, HAR) as files:
                file = files[HAR].rename(file)
        tree = scenario(s, file)
        rounds = Rounds(list(tree["zones"]))
        result = asked.simulate(tree, [rounds])
    homes = {p: [f"{p}-{n}" for n in range(i * devices, (i + 1) * devices)] for i, p in enumerate(PLACES)}
    place_of = {zone: names(homes, zone) for zone in tree["zones"]}
    return {
        **measured(rounds.done, place_of, s["days"]),
        "accuracy": scores(result.epochs, DAY),
        "updates": result.updates,
    }


def scenario(s: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The scenario of a run, as a file of it would say."""
    devices = s.get("devices", DEVICES)
    cohort = DEMAND * devices // DEVICES
    zones: dict[str, Any] = {"all": {"devices": len(PLACES) * devices, "utc_offset": PLACES}}
    if s["way"] == "two layers":
        zones = {place: {"devices": devices, "utc_offset": hours} for place, hours in PLACES.items()}
    demand = len(PLACES) * cohort if s["way"] == "one layer, all" else cohort
    hapt = s["data"] == "hapt"
    task = {
        "task": "geo",
        "model": "mlp",
        "model_args": {"inputs": 768, "hidden": 300, "classes": 6} if hapt else {},
        "data": "npz",
        "data_args": {"path": str(file), "partition": "user"} | ({"devices": len(PLACES) * devices} if hapt else {}),
        "training": {"epochs": 5, "batch": 10, "learning_rate": 0.05},
        "rounds": {
            "demand": demand,
            "over_commit": 1.0,
            "deadline_s": 3.0 * DAY,
            "lease_s": DAY / 24,
            "grace_s": PACE if s["way"] == "one layer, paced" else 0.0,
        },
        "epochs": {"count": 10**6, "rounds": ROUNDS if s["way"] == "two layers" else 1, "deadline_s": 0.0},
    }
    return {
        "seed": s["seed"],
        "days": s["days"],
        "zones": zones,
        "devices": {"day_seconds": DAY, "day": "nights", "capacity": "usual"},
        "clock": {"tick_ms": 250},
        "tasks": [task],
    }


def measured(rounds: Sequence[Round], place_of: Mapping[str, Mapping[str, str]], days: int) -> dict[str, Any]:
    """What came of the rounds. `place_of`: by zone and pseudonym where a device lives. Shares are by place, in the order of `PLACES`.

    `fair_day` and `fair_model`: Jain's index of the deltas by place that counted in a day, and in an epoch, in the mean over them.
    """
    at = {id(r): Counter(place_of[r.zone][d] for d in r.counted) for r in rounds}
    admitted = Counter(place_of[r.zone][d] for r in rounds for d in r.admitted)
    counted = sum(at.values(), Counter())
    by_day: dict[int, Counter] = {n: Counter() for n in range(days)}
    by_epoch: dict[int, Counter] = {}
    for r in rounds:
        by_day.setdefault(int(r.closed / DAY / 1000), Counter()).update(at[id(r)])
        by_epoch.setdefault(r.epoch, Counter()).update(at[id(r)])
    whole = [by_epoch[e] for e in sorted(by_epoch)[:-1]] or list(by_epoch.values())  # the last may not be over
    devices = Counter((r.zone, d) for r in rounds for d in r.counted)
    every = [
        devices[zone, d] for zone, known in place_of.items() for d in known if len(place_of) == 1 or known[d] == zone
    ]
    took = [r.took / HOUR for r in rounds] or [0.0]
    slots = sum(len(r.admitted) for r in rounds)
    return {
        "rounds": len(rounds),
        "models": len(whole),
        "took_h": [round(float(q), 3) for q in np.percentile(took, range(0, 101, 5))],
        "admitted": _shares(admitted),
        "counted": _shares(counted),
        "by_day": [_shares(c) for _, c in sorted(by_day.items())],
        "fair": jain(_shares(counted)),
        "fair_day": mean(jain(_shares(c)) for c in by_day.values()),
        "fair_model": mean(jain(_shares(c)) for c in whole) if whole else 1.0,
        "fair_device": jain(every),
        "wasted": sum(r.wasted for r in rounds) / slots if slots else 0.0,
    }


def _shares(counts: Mapping[str, int]) -> list[float]:
    whole = sum(counts.values()) or 1
    return [round(counts.get(place, 0) / whole, 4) for place in PLACES]


def chosen(seed: int, rounds: int) -> dict[str, float]:
    """If a server picked `PICKED` of `CROWD` devices at random, day or night, and waited until `WANTED` of them had come free: hours
    until then in the median and the 95th percentile of so many rounds, and the share of slots in which nobody came within an hour."""
    dice, took, asleep = np.random.default_rng(seed), [], 0
    places = list(PLACES)
    for _ in range(rounds):
        now = int(dice.integers(2 * 86_400_000, 3 * 86_400_000))
        waits = []
        for n in dice.choice(CROWD, PICKED, replace=False).tolist():
            place = places[n % len(places)]
            free = Availability(f"{place}-{n}", PLACES[place], 86_400_000, seed)
            waits.append(0.0 if free.window(now) else (free.next_start(now) - now) / 3_600_000)
        took.append(sorted(waits)[WANTED - 1])
        asleep += sum(w > 1 for w in waits)
    return {
        "p50": float(np.percentile(took, 50)),
        "p95": float(np.percentile(took, 95)),
        "wasted": asleep / rounds / PICKED,
    }


# ------------------------------------------------------------------ what is shown


def _table(
    asked: Asked, results: Mapping[tuple[str, int], dict[str, Any]], picked: Sequence[Mapping[str, float]]
) -> None:
    head = ["", *WAYS, "a server picks (computed)"]
    seeds = range(asked.seeds)

    def row(what: str, of: Any, digits: int = 2, server: str = "–") -> list[str]:
        return [what, *(spread([of(results[way, s]) for s in seeds], digits) for way in WAYS), server]

    rows = [
        row("hours to collect a round, median", lambda r: r["took_h"][10], 2, spread([p["p50"] for p in picked], 1)),
        row("the same, 95th percentile", lambda r: r["took_h"][19], 1, spread([p["p95"] for p in picked], 1)),
        row("rounds a day", lambda r: r["rounds"] / len(r["by_day"]), 1),
        row("global models a day", lambda r: r["models"] / len(r["by_day"]), 1),
        row("counted deltas a day", lambda r: r["updates"] / len(r["by_day"]), 0),
        row("slots wasted", lambda r: r["wasted"], 4, spread([p["wasted"] for p in picked], 3)),
        *(
            row(f"deltas from {p} ({h:+g} h)", lambda r, i=i: r["counted"][i])
            for i, (p, h) in enumerate(PLACES.items())
        ),
        row("fairness by time zone, all days", lambda r: r["fair"], 3),
        row("of a day", lambda r: r["fair_day"], 3),
        row("of a global model", lambda r: r["fair_model"], 3),
        row("fairness by device", lambda r: r["fair_device"], 3),
        *(row(f"accuracy after day {d}", lambda r, d=d: accuracy_at(r["accuracy"], d), 3) for d in _days(results)),
    ]
    (asked.out / "table.md").write_text(markdown(head, rows))


def _days(results: Mapping[tuple[str, int], dict[str, Any]]) -> list[int]:
    last = min(len(r["by_day"]) for r in results.values())
    return sorted({1, 2, last} & set(range(1, last + 1)))


def _draw(asked: Asked, results: Mapping[tuple[str, int], dict[str, Any]], days: int) -> None:
    figure, axes = panels(1, 3)
    collect, share, accuracy = axes[0]
    grid = np.arange(0, days + 1e-9, 1 / 24).tolist()
    for colour, way in zip(COLOURS, WAYS, strict=False):
        runs = [results[way, seed] for seed in range(asked.seeds)]
        took = np.mean([r["took_h"] for r in runs], axis=0)
        collect.plot(np.maximum(took, 0.01), np.arange(0, 1.001, 0.05), color=colour, label=way)
        band(accuracy, grid, [[accuracy_at(r["accuracy"], t) for t in grid] for r in runs], color=colour)
    collect.set(xscale="log", xlabel="hours to collect a round", ylabel="share of rounds")
    accuracy.set(xlabel="day", ylabel="accuracy", xlim=(0, days))
    collect.legend(fontsize=7)
    width = 0.8 / len(WAYS)
    for i, way in enumerate(WAYS):
        shares = np.mean([results[way, seed]["counted"] for seed in range(asked.seeds)], axis=0)
        share.bar(np.arange(len(PLACES)) + (i - 1) * width, shares, width, color=COLOURS[i])
    share.axhline(1 / len(PLACES), color="black", linewidth=0.8, linestyle=":")
    share.set_xticks(range(len(PLACES)), [f"{p}\n{h:+g} h" for p, h in PLACES.items()])
    share.set(ylabel="share of counted deltas")
    save(figure, asked.out / asked.name)
