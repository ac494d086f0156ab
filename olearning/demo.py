"""`olearning demo`: the main job from end to end, with a SIGKILL in the middle, and an honest account of it."""

import asyncio
import contextlib
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from olearning.connect import Broker, Noted, attended, choose
from olearning.happenings import VOID
from olearning.planes import Plane
from olearning.report import Recorder
from olearning.roles import Role
from olearning.snapshot import Snapshot
from olearning.status import status_screen
from olearning.submitting import submitter
from olearning.tasks import parse_task
from olearning.up import Shape, make_plane
from olearning.view import View
from streams.processor import Stop

TASK = Path(__file__).with_name("digits.toml")
GOAL = 0.85
PROGRESS = 5.0
"""Seconds between lines of progress where no screen is redrawn."""
SETTLE = 1.5
SESSION = 3_000
"""ms without a heartbeat until a role's place is given to another."""
LOADING = 120.0
"""Seconds until all roles are up, at most: fleets load torch, which is slow on a slow machine."""
PATIENCE = 240.0
"""Seconds from then to the end, at most."""
EVENING = 6.0
"""Seconds from the start of the fleets to the first zone's evening: they load torch meanwhile. If it takes longer, nights
come back."""
AWAY = 10.0
"""Seconds that the killed aggregator stays away: longer than its session, so that it is seen that others do without it."""
CENTRAL_EPOCHS = 20
EVALUATOR = "evaluator"


class Demo:
    """One run of the demo: what it started, what it saw, and whom it killed."""

    def __init__(self, shape: Shape, folder: Path, console: Console, live: bool):
        self.shape, self.folder, self.console, self.live = shape, folder, console, live
        self.spec = parse_task(TASK)
        self.view = View(shape.namespace)
        self.recorder = Recorder(folder)
        self.killed = ""
        self.simulated = False
        self.began = time.monotonic()
        self.origin = 0
        self._progressed = 0.0

    def say(self, text: str) -> None:
        """Something that we did or found: shown, and kept in the record."""
        self.recorder.note(text, time.time_ns() // 1_000_000)
        self._print(text, "bold")

    def _print(self, text: str, style: str = "") -> None:
        stamp = f"{time.monotonic() - self.began:6.1f} s  "
        self.console.print(stamp + text, style=style, highlight=False, markup=False, soft_wrap=True)

    def choose(self, bootstrap: str) -> Broker:
        """The broker for this run, and what is about to happen."""
        self.say(f"demo: two zones of {self.shape.devices} devices, {self.spec.epochs.count} epochs x "
                 f"{self.spec.epochs.rounds} rounds; everything it writes is in {self.folder}")  # fmt: skip
        return choose(self.folder / "broker", self.say, bootstrap)

    async def run(self, broker: Broker) -> int:
        """The exit code: 0 if the global model reached the goal."""
        plane = make_plane(broker, self.folder, self.say, session_timeout=SESSION)
        self.simulated = not broker.bootstrap
        began = time.monotonic()
        try:
            with Noted(broker.bootstrap, self.shape.namespace):
                ended = await attended(self._play(plane), broker, self.say)
        finally:
            await plane.stop()
        return await self._account(ended, time.monotonic() - began)

    async def _play(self, plane: Plane) -> bool:
        """The run itself; False if it did not come to its end in time."""
        await self._start(plane, [r for r in self.shape.plane() if r.kind != EVALUATOR])
        if not self.simulated:
            self.say("their logs are beside the run; to look at it from another terminal: olearning monitor "
                     f"--namespace {self.shape.namespace} (the live page; or watch, status, with the same words)")  # fmt: skip
        watching = asyncio.create_task(plane.host(lambda life: self.view))
        try:
            return await self._watch(plane, watching)
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _start(self, plane: Plane, roles: list[Role]) -> None:
        await plane.start(roles)
        what = "roles in this process" if self.simulated else "processes"
        self.say(f"started {len(roles)} {what}: {', '.join(r.name for r in roles)}")

    async def _watch(self, plane: Plane, watching: "asyncio.Task[Stop]") -> bool:
        end = time.monotonic() + LOADING + PATIENCE
        making = asyncio.create_task(asyncio.to_thread(submitter, TASK, self.shape.namespace, self.shape.seed))
        while not making.done():  # it loads torch, once before four processes do; meanwhile the plane comes up
            self._look(plane, None)
            await asyncio.sleep(0.2)
        made = await making
        self.origin = plane.now() + round(1000 * EVENING) - round(self.shape.day_ms * 20.5 / 24)
        heavy = [r for r in self.shape.plane() if r.kind == EVALUATOR]
        await self._start(plane, [*heavy, *self.shape.fleets(self.origin)])
        submitted = await plane.host(made)
        self.say(submitted.reason)
        if not submitted.ok:
            return False
        up = False
        screen = Live(console=self.console, auto_refresh=False) if self.live else contextlib.nullcontext()
        with screen as live:
            while time.monotonic() < end:
                await asyncio.sleep(0.1)
                if watching.done():
                    self.say(f"the view stopped: {watching.result().reason}")
                    return False
                self._look(plane, live)
                if not up and self._up():
                    up, end = True, time.monotonic() + PATIENCE
                if self._over():
                    await asyncio.sleep(SETTLE)  # the last word on where the logs end is still to come
                    self._look(plane, live)
                    return True
        waited = f"in {PATIENCE:g} s" if up else "in time: not all roles came up, see their logs"
        self.say(f"not done {waited}; what waited for what is on this last screen")
        self.console.print(status_screen(self.view, plane.now()))
        return False

    def _look(self, plane: Plane, live: Live | None) -> None:
        for event in self.view.drain():
            self.recorder.event(event)
            if event.kind != VOID:  # a claim that came second: the protocol at work, kept in the record
                self._print(event.text)
        now = plane.now()
        snapshot = self.view.snapshot(now)
        self.recorder.sample(snapshot)
        if live:
            live.update(status_screen(self.view, now), refresh=True)
        elif time.monotonic() - self._progressed >= PROGRESS:
            self._progressed = time.monotonic()
            for line in progress(snapshot, self.spec.task):
                self._print("    " + line, "dim")
        if not self.killed and (found := self._victim()):
            self.killed, round = found
            how = "(only simulated: all roles are in this process)" if self.simulated else "with SIGKILL"
            self.say(f"KILLING {self.killed} {how}, in the middle of round {round}: what it had summed is gone with it; "
                     "another takes its shards over and reads the same deltas again from the log")  # fmt: skip
            self.recorder.killed(self.killed, now)
            plane.kill(self.killed, AWAY)

    def _victim(self) -> tuple[str, int] | None:
        """The aggregator that holds most of the first zone, and the round, once deltas of round 3 are coming in there."""
        zone = self.view.zones.get(self.shape.zones[0])
        t = zone.tasks.get(self.spec.task) if zone else None
        if zone is None or t is None or t.round < 3 or t.state != "open":
            return None
        r = t.rounds[t.round]
        if t.round == 3 and r.opened and len(r.devices) < r.opened.demand:
            return None
        holders = [h.holder for h in zone.shards if h.holder]
        return (max(sorted(set(holders)), key=holders.count), t.round) if holders else None

    def _up(self) -> bool:
        """Is somebody heard of every fleet?"""
        zones = {z.zone: z for z in self.view.snapshot(self.view.now).zones}
        return all(z in zones and any(not f.silent for f in zones[z].fleets) for z in self.shape.zones)

    def _over(self) -> bool:
        task = self.view.snapshot(self.view.now).task(self.spec.task)
        return bool(task and task.state == "ended" and len(task.accuracy) > self.spec.epochs.count)

    # ------------------------------------------------------------------ the account

    async def _account(self, ended: bool, seconds: float) -> int:
        task = self.view.snapshot(self.view.now).task(self.spec.task)
        accuracy = task.accuracy[max(task.accuracy)] if task and task.accuracy else None
        untrained = task.accuracy.get(0) if task else None
        central = await asyncio.to_thread(central_accuracy, self.spec, self.shape.seed)
        good = ended and accuracy is not None and accuracy >= GOAL
        shown = {"federated": accuracy, "central": central, "untrained": untrained}
        words = ", ".join(f"{k} {v:.3f}" if v is not None else f"{k} unknown" for k, v in shown.items())
        self.say(f"held-out accuracy: {words}; goal {GOAL}: {'reached' if good else 'MISSED'} in {seconds:.0f} s")
        report = self.recorder.finish(
            self.view.snapshot(self.view.now),
            task=self.spec.task,
            goal=GOAL,
            untrained=untrained,
            central=central,
            seconds=seconds,
            nights=self.shape.nights(self.origin, self.view.now),
            title="The demo's run",
            ran=f"Two zones of {self.shape.devices} simulated devices, whose nights are {self.shape.apart_h:g} hours apart "
            f"(a day lasts {self.shape.day_seconds:g} s), trained {self.spec.model} on {self.spec.data}."
            + (" The log was in memory, and the kill only simulated." if self.simulated else ""),
        )
        self._print(f"report: {report}", "bold")
        return 0 if good else 1


def progress(s: Snapshot, task: str) -> list[str]:
    """How things stand, a line a zone."""
    lines = []
    for z in s.zones:
        r = next((r for r in z.rounds if r.task == task), None)
        holders: dict[str, list[str]] = {}
        for x in z.shards:
            holders.setdefault(x.holder or "nobody", []).append(str(x.shard))
        words = [
            f"{z.zone}: round {r.round} {r.state}, {r.devices} of {r.demand} deltas"
            if r
            else f"{z.zone}: no round yet",
            "devices " + " ".join(f"{k} {n}" for k, n in z.devices.items() if n),
            f"{z.sent_bytes / 1e6:.1f} MB sent, {z.unread} blocks unread",
            "shards " + "; ".join(f"{k} {','.join(n)}" for k, n in holders.items()),
        ]
        if r and r.waits:
            words.append(f"{r.waits}, since {(s.at - r.since) / 1000:.0f} s")
        lines.append(" | ".join(words))
    return lines


def central_accuracy(spec, seed: int) -> float:  # type: ignore[no-untyped-def]
    """What the same model reaches with all the data in one place."""
    from device_sim.data import load
    from device_sim.trainer import central

    data = load(spec.data, spec.data_args)
    return central(spec.model, spec.model_args, data, CENTRAL_EPOCHS, spec.training, seed)
