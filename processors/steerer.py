"""Steering a task that runs: a later record of it in `global.tasks`, then the configurator's verdict. Each is a sign of life of its
tenant; one that changes nothing is that alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from msgspec.structs import replace

from processors.speaker import Speaker
from schemas.task import Submission, TaskSpec, Wanted
from schemas.wire import Message
from streams.ledger import GlobalTask, Zone
from streams.processor import Effect, Record, Stop
from streams.reading import Reading


@dataclass(frozen=True)
class Change:
    """What is to change: what is `wanted` of the task, or its settings; or the present rounds in these zones are to end with what came
    (none named: in all zones of the task). Without any of it all stays as it is."""

    wanted: Wanted | None = None
    spec: TaskSpec | None = None
    ends: tuple[str, ...] | None = None


class Steerer(Speaker):
    """Reads the task's last record, sends it again with the change, and stops with the verdict in the ledger."""

    def __init__(self, namespace: str, task: str, change: Change, by: str, patience: int = 30_000):
        super().__init__(namespace, "tasks", f"steer-{task}", patience)
        self.task, self.change, self.by = task, change, by
        self.zones: dict[str, Reading[Zone]] = {}
        """Those whose present rounds are to end."""
        self.enough: dict[str, int] = {}
        """By zone, the round that it is."""
        self.last: tuple[int, Submission] | None = None
        self.sent = False

    def _readings(self) -> Iterator[Reading]:
        yield from super()._readings()
        yield from self.zones.values()

    def _hear(self, record: Record, message: Message) -> None:
        if isinstance(message, Submission) and record.key == message.spec.task == self.task and not self.sent:
            self.last = record.offset, message

    @property
    def known(self) -> GlobalTask | None:
        return self.reading.state.tasks.get(self.task)

    def _next(self, now: int) -> Iterator[Effect]:
        refused = self.reading.state.refused.get(self.task)
        if self._ready and not self.sent:
            yield from self._act()
        elif self.known and 0 <= self.submission <= self.known.submission:
            yield Stop(_said(self.known, self.change, self.enough), ok=True)
        elif refused and 0 <= self.submission <= refused.submission:
            yield Stop(f"{self.task} stays as it was: {refused.reason}")
        elif self.submission >= 0 and (over := self.reading.state.over.get(self.task)):
            yield Stop(f"{self.task} has ended: {over.why}", ok=self.submission <= over.submission)
        elif now - self.began > self.patience:
            yield Stop(f"no verdict on {self.task} within {self.patience / 1000:g} s: does the global coordinator run?")

    def _act(self) -> Iterator[Effect]:
        t = self.known
        if over := self.reading.state.over.get(self.task):
            yield Stop(f"{self.task} has ended: {over.why}")
        elif t is None:
            there = ", ".join(sorted(self.reading.state.tasks)) or "none"
            yield Stop(f"there is no task {self.task}; there: {there}")
        elif self.change.ends is not None and not all(r.caught_up for r in self.zones.values() or (self.reading,)):
            pass
        elif self.change.ends is not None and not self.zones:
            yield from self._look(t, self.change.ends)
        elif self.change.ends is not None and not self._present():
            yield Stop(f"{self.task} has no round open in {', '.join(self.zones)}")
        else:
            last = self._last(t)
            new = replace(
                last,
                spec=self.change.spec or last.spec,
                wanted=self.change.wanted or last.wanted,
                by=self.by,
                enough={**self._undealt(t), **self.enough},
            )
            self.sent = True
            yield self._say(new, self.task)

    def _look(self, t: GlobalTask, zones: tuple[str, ...]) -> Iterator[Effect]:
        """Read which rounds are open in the zones."""
        if strangers := [z for z in zones if z not in t.zones]:
            yield Stop(f"{self.task} does not run in {', '.join(strangers)}; it does in {', '.join(t.zones)}")
            return
        for zone in zones or t.zones:
            self.zones[zone] = Reading(self.namespace, zone, Zone())
            yield from self.zones[zone].start()

    def _present(self) -> dict[str, int]:
        here = {zone: r.state.tasks.get(self.task) for zone, r in self.zones.items()}
        self.enough = {zone: t.round for zone, t in here.items() if t and t.state == "open"}
        return self.enough

    def _undealt(self, t: GlobalTask) -> dict[str, int]:
        """The rounds that its last record ends, if nobody dealt with that yet: only the last record of a task ever is."""
        refused = self.reading.state.refused.get(self.task)
        dealt = max(t.submission, refused.submission if refused else -1)
        return self.last[1].enough if self.last and self.last[0] > dealt else {}

    def _last(self, t: GlobalTask) -> Submission:
        """What holds for the task, or is to: its last record, unless that was refused; then what the ledger says."""
        refused = self.reading.state.refused.get(self.task)
        if self.last and (refused is None or self.last[0] > refused.submission or self.last[0] <= t.submission):
            return self.last[1]
        first = t.first or t.manifest
        return Submission(t.spec, t.layout, first, t.seed, cast(Wanted, t.wanted), t.by, structure=t.structure)


def _said(t: GlobalTask, change: Change, enough: dict[str, int]) -> str:
    task = t.spec.task
    if enough:
        which = ", ".join(f"round {n} in {zone}" for zone, n in enough.items())
        return f"{task}: {which} {'ends' if len(enough) == 1 else 'end'} now with what came"
    if change == Change():
        within = f"it is stopped unless something is said of it again within {t.spec.silent_s:g} s"
        return f"{task} is kept: {within if t.spec.silent_s else 'it is not stopped for silence (silent_s is 0)'}"
    match t.wanted:
        case "pause":
            return f"{task} is paused: it opens no round and no epoch until it goes on"
        case "stop":
            return f"{task} stops: its epoch ends now with what the zones have"
    return f"{task} runs; its settings hold from the next round and epoch on"
