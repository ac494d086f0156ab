"""A run on record: every event and a sample a second in `metrics.jsonl`; at the end two figures and `report.md`.

The figures and the report are made from the file alone (`read`), so they can be made again.
"""

import json
from pathlib import Path
from typing import Any, TextIO

from olearning import plots
from olearning.happenings import Event
from olearning.plots import Nights, Series
from olearning.snapshot import COUNTS, Snapshot

EVERY = 1_000
"""ms between samples; more is not kept."""
METRICS, ACCURACY, TRAFFIC, REPORT = "metrics.jsonl", "accuracy.png", "traffic.png", "report.md"


class Recorder:
    """Writes a run folder. Times in ms, of one clock."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._out: TextIO = (folder / METRICS).open("w", encoding="utf-8", buffering=1)  # whole lines, if we are killed
        self._sampled: int | None = None

    def event(self, e: Event) -> None:
        line = {"type": "event", "at": e.at, "zone": e.zone, "kind": e.kind, "text": e.text, "values": e.values}
        self._write(line)

    def note(self, text: str, at: int) -> None:
        """What was done to the run, or said of it."""
        self._write({"type": "note", "at": at, "text": text})

    def killed(self, who: str, at: int) -> None:
        """A process was killed: figures show when, the report says what followed."""
        self._write({"type": "note", "at": at, "text": f"killed {who}", "killed": who})

    def sample(self, s: Snapshot, force: bool = False) -> None:
        """How things stand; at most one a second is kept, so it may be called at any rate."""
        if not force and self._sampled is not None and s.at - self._sampled < EVERY:
            return
        self._sampled = s.at
        self._write({"type": "sample", "at": s.at} | sampled(s))

    def finish(
        self,
        s: Snapshot,
        *,
        task: str,
        goal: float = 0.85,
        untrained: float | None = None,
        central: float | None = None,
        seconds: float | None = None,
        nights: Nights | None = None,
        title: str = "A run of OLearning",
        ran: str = "",
    ) -> Path:
        """The last sample, the figures, the report; returns where the report is. `ran` says what was run, in a sentence."""
        self.sample(s, force=True)
        self._out.close()
        run = read(self.folder / METRICS)
        untrained = untrained if untrained is not None else next((a for n, _, a in run.scores(task) if n == 0), None)
        plots.accuracy(run, task, self.folder / ACCURACY, goal, central, untrained)
        plots.traffic(run, self.folder / TRAFFIC, nights or {})
        parts = [
            f"# {title}\n",
            *([ran + "\n"] if ran else []),
            _results(run, s, task, goal, untrained, central, seconds),
            f"![Accuracy of the global model by epoch and over time]({ACCURACY})\n",
            _killed(run),
            _nothing_lost(s),
            f"![Deltas delivered and backlog over time]({TRAFFIC})\n",
            f"Everything that happened, and a sample a second, is in [{METRICS}]({METRICS}).",
        ]
        report = self.folder / REPORT
        report.write_text("\n".join(parts) + "\n", encoding="utf-8")
        return report

    def _write(self, line: dict[str, Any]) -> None:
        self._out.write(json.dumps(line, ensure_ascii=False) + "\n")


def sampled(s: Snapshot) -> dict[str, Any]:
    """What a sample keeps of a snapshot."""
    return {
        "tasks": {t.task: {"state": t.state, "epoch": t.epoch, "accuracy": t.accuracy} for t in s.tasks},
        "zones": {
            z.zone: {
                "rounds": {r.task: r.round for r in z.rounds},
                "waits": {r.task: r.waits for r in z.rounds if r.waits},
                "blocks": z.blocks,
                "sent_bytes": z.sent_bytes,
                "read_bytes": z.read_bytes,
                "unread": z.unread,
                "holders": [x.holder for x in z.shards],
                "status": [x.word for x in z.shards],
                "devices": z.devices,
                "identity": {n: getattr(z.identity, n) for n in COUNTS} | {"ok": z.identity.ok},
            }
            for z in s.zones
        },
        "letters": s.letters,
    }


def read(metrics: Path) -> Series:
    """A run from its file. It begins with its first sample."""
    run = Series()
    kept = {"sample": run.samples, "event": run.events, "note": run.notes}
    for line in metrics.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        kept[entry["type"]].append(entry)
    times = [x["at"] for x in (*run.samples, *run.events, *run.notes)]
    run.start, run.end = min(times, default=0), max(times, default=0)
    return run


# ------------------------------------------------------------------ the report


def _results(
    run: Series,
    s: Snapshot,
    task: str,
    goal: float,
    untrained: float | None,
    central: float | None,
    seconds: float | None,
) -> str:
    t = s.task(task)
    scores = run.scores(task)
    last = scores[-1][2] if scores else None
    verdict = "unknown" if last is None else "reached" if last >= goal else "**missed**"
    rows: list[tuple[str, str]] = [
        ("global model, held-out accuracy", _number(last)),
        (f"goal {goal:g}", verdict),
        ("central training, all data in one place", _number(central)),
        ("untrained model", _number(untrained)),
        ("task", f"{task}: {t.state}, epoch {t.epoch} of {t.epochs}" if t else f"{task}: not seen"),
        *((f"rounds finalised in {z}", str(len(run.rounds(task, z)))) for z in run.zones),
        ("deltas delivered", f"{sum(z.sent_bytes for z in s.zones) / 1e6:,.1f} MB"),
        ("took", f"{seconds if seconds is not None else run.seconds(run.end):,.0f} s"),
    ]
    return "## Result\n\n| | |\n|---|---|\n" + "\n".join(f"| {a} | {b} |" for a, b in rows) + "\n"


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.4f}"


def _killed(run: Series) -> str:
    """Who was killed, and what the ledgers say happened to what it held."""
    if not run.kills:
        return "## What was killed\n\nNothing.\n"
    lines = ["## What was killed, and what happened then\n"]
    for kill in run.kills:
        who, at = kill["killed"], kill["at"]
        zone, held = _held(run, who, at)
        lines.append(f"- {run.seconds(at):.1f} s: **{who}** was killed{held}.")
        for e in run.events:
            v = e["values"]
            if e["at"] >= at and e["kind"] in ("shard", "leader") and v.get("from") == who and v["holder"] != who:
                lines.append(
                    f"- {run.seconds(e['at']):.1f} s ({run.seconds(e['at'] - at + run.start):.1f} s later): {e['text']}."
                )
        done = [e for e in run.events if e["at"] >= at and e["values"].get("step") == "finalised"]
        nexts = [e for e in done if zone in ("", e["zone"])]
        if nexts:
            lines.append(
                f"- {run.seconds(nexts[0]['at']):.1f} s: the next round there was finalised: {nexts[0]['text']}."
            )
    return "\n".join(lines) + "\n"


def _held(run: Series, who: str, at: int) -> tuple[str, str]:
    """The zone where a process held shards when it was last looked before `at`, and words for which."""
    before = [s for s in run.samples if s["at"] <= at]
    for zone, z in (before[-1]["zones"] if before else {}).items():
        if shards := [str(i) for i, holder in enumerate(z["holders"]) if holder == who]:
            return zone, f"; it held {'shard' if len(shards) == 1 else 'shards'} {', '.join(shards)} of {zone}"
    return "", ""


def _nothing_lost(s: Snapshot) -> str:
    """The identity by zone: each block in the log has exactly one outcome."""
    head = ("zone", "blocks in the log", "unread", *(n for n in COUNTS[1:]), "adds up")
    lines = [
        "## Nothing lost, nothing counted twice\n",
        "Every block in the log that commits cover has exactly one outcome, or is held until its delta is whole.\n",
        "| " + " | ".join(head) + " |",
        "|---" + "|--:" * (len(head) - 1) + "|",
    ]
    for z in s.zones:
        i = z.identity
        cells = [z.blocks, z.unread, *(getattr(i, n) for n in COUNTS[1:])]
        good = (
            "yes" if i.ok and z.blocks == i.offsets + z.unread else f"**no**: {i.problem or 'blocks without outcome'}"
        )
        lines.append(f"| {z.zone} | " + " | ".join(f"{n:,}" for n in cells) + f" | {good} |")
    if s.letters:
        lines.append(f"\nDead letters: {sum(s.letters.values())}.")
        lines += [f"- {n} × {reason}" for reason, n in s.letters.items()]
    return "\n".join(lines) + "\n"
