"""Chaos on real Kafka with real processes, while sentinel deltas and real training go on.

    python -m tests.chaos.faults [--faults 60] [--seed N] [--brokers 3] [--without GUARD] [--json FILE] [-v]

First the undisturbed run; then the same work in a namespace of its own while roles are killed and stopped past their session
and brokers restart, are killed, or stand still. In the end every sentinel must have counted once, every model must have the
bits of the undisturbed run's, every round must pass `olearning verify`, and the ledgers' outcomes must have added up all along.
Exit code 1 if anything is lost, doubled or different. What to do is drawn by the seed; when it happens is up to the machine.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from olearning.planes import Processes
from olearning.roles import Role
from olearning.verify import verdict
from processors.auditor import Auditor
from schemas.facts import LEADERSHIP, Finalised, SharingSet
from schemas.topics import GLOBAL
from streams.processor import Stop
from tests.chaos.cluster import Brokers, health
from tests.chaos.controls import CONTROLS, without
from tests.chaos.matrix import HELP, Fault, group, matrix
from tests.chaos.watch import (
    ADMITTING,
    ARRIVING,
    BETWEEN,
    CLOSING,
    EXECUTING,
    FINALISING,
    IDLE,
    MERGING,
    STORED,
    Watch,
)
from tests.chaos.workload import ZONES, Account, Work, account, differing

T = TypeVar("T")
SESSION = 4_000
"""ms; a role that is stopped stands still for twice as long."""
BROKER_AWAY = 9.0
"""Seconds that a broker is lost or stands still: longer than its session."""
WIDTH, GAP = 4, 0.4
"""Faults that are under way at once, in different roles, and the least seconds from one to the next."""
PATIENCE = 10.0
"""Seconds that a fault waits for its stage; then it takes the one there is."""
PAUSE = 3.0
"""Seconds between two policies."""
STUCK = 90.0
"""Seconds without an accepted fact after which nothing is taken to come any more."""
KILL, STOP, RESTART, LOST, ALL = "SIGKILL", "SIGSTOP", "restart", "lost", "SIGKILL all"


@dataclass
class Plan:
    """A fault to come: at this stage of this task in this zone."""

    role: str
    how: str
    zone: str
    task: str
    stage: str
    armed: float = 0.0

    @property
    def group(self) -> str:
        return group(self.role, self.zone)


def draw(n: int, seed: int, brokers: int, tasks: Sequence[str], kinds: Sequence[str] = ()) -> list[Plan]:
    """`n` faults: each kind at each of its stages once before any comes again, in an order drawn."""
    rng = random.Random(seed)
    signals = (KILL, STOP)
    every = [("aggregator", how, stage) for how in signals for stage in (ADMITTING, ARRIVING, STORED, CLOSING)]
    every += [("zone", how, stage) for how in signals for stage in (ADMITTING, ARRIVING, CLOSING, FINALISING, BETWEEN)]
    every += [("global", how, stage) for how in signals for stage in (EXECUTING, MERGING)]
    every += [("scheduler", how, ARRIVING) for how in signals]
    every += [
        ("aggregator", ALL, ARRIVING),
        ("aggregator", ALL, CLOSING),
        ("zone", ALL, CLOSING),
        ("global", ALL, MERGING),
    ]
    several = ((LOST, ADMITTING), (LOST, ARRIVING), (STOP, ARRIVING)) if brokers > 1 else ()
    every += [
        ("broker", how, stage) for how, stage in ((RESTART, ARRIVING), (KILL, ARRIVING), (KILL, CLOSING), *several)
    ]
    every = [e for e in every if not kinds or e[0] in kinds]
    out: list[Plan] = []
    while len(out) < n:
        some = [Plan(*e[:2], rng.choice(ZONES), rng.choice(tasks), e[2]) for e in every]
        rng.shuffle(some)
        out += some
    return out[:n]


class Unguarded(Processes):
    """Its roles run without one guard."""

    guard = ""

    def command(self, role: Role) -> list[str]:
        words = super().command(role)
        at = words.index("olearning")
        return [*words[:at], "tests.chaos.unguarded", self.guard, *words[at + 1 :]] if self.guard else words


class Chaos:
    """Carries faults out on a plane that runs, and notes what comes of them."""

    def __init__(
        self, plane: Processes, watch: Watch, plan: list[Plan], brokers: Brokers | None, say: Callable[[str], None]
    ):
        self.plane, self.watch, self.left, self.brokers, self.say = plane, watch, plan, brokers, say
        self.armed: list[Plan] = []
        self.faults: list[Fault] = []
        self.under_way: dict[str, Fault] = {}
        self.began = self.last = time.monotonic()
        self.jobs: set[asyncio.Task[None]] = set()
        self.failed: list[str] = []
        """Faults that could not be carried out."""
        watch.look, watch.told = self.look, self.told

    def told(self, *what: Any) -> None:
        for f in self.faults:
            f.see(self.watch, *what)

    def look(self) -> None:
        """Strike where a stage has come that a fault waits for."""
        now = time.monotonic()
        for p in list(self.armed):
            if now - self.last < GAP or not self.watch.accepted:
                return
            victim = self._victim(p, now - p.armed > PATIENCE)
            if victim:
                self.armed.remove(p)
                self.last = now
                self._strike(p, victim)

    def arm(self) -> None:
        """Have as many faults wait for their stage as may be, each in a role that none is in."""
        busy = {p.group for p in self.armed} | self.under_way.keys()
        for p in list(self.left):
            if len(busy) >= WIDTH:
                break
            if p.group not in busy:
                self.left.remove(p)
                p.armed = time.monotonic()
                self.armed.append(p)
                busy.add(p.group)

    def _stage(self, p: Plan) -> str:
        return self.watch.epoch(p.task) if p.role == "global" else self.watch.stage(p.zone, p.task)

    def _victim(self, p: Plan, late: bool) -> str:
        """Who is to be hit now, if it is time."""
        stage = self._stage(p)
        if stage == IDLE or (stage != p.stage and (stage, p.stage) != (STORED, ARRIVING) and not late):
            return ""
        w = self.watch
        match p.role:
            case "broker":
                return "broker"
            case "global":
                name = w.holder((GLOBAL, LEADERSHIP)).holder
            case "zone":
                name = w.holder((p.zone, LEADERSHIP)).holder
            case "scheduler":
                name = w.speaker
            case _:
                name = self._aggregator(p, stage)
        child = self.plane.children.get(name)
        return name if child and child.returncode is None else ""

    def _aggregator(self, p: Plan, stage: str) -> str:
        """The one that has to do with the stage."""
        shards = self.watch.ledgers[p.zone].state.shards
        t = self.watch.task(p.zone, p.task)
        if stage == STORED and (lives := self.watch.keys(p.zone, p.task)):
            return next((h.holder for h in shards if h.life in lives), "")
        if stage == ARRIVING:
            concerned = [shards[s].holder for s in self.watch.waiting(p.zone, p.task)]
        elif stage == CLOSING and t:
            concerned = [shards[s].holder for s, n in enumerate(t.at) if n <= t.round]
        else:
            concerned = [h.holder for h in shards]
        return max(sorted(set(concerned)), key=concerned.count, default="")

    # ------------------------------------------------------------------ carrying one out

    def _strike(self, p: Plan, name: str) -> None:
        f = Fault(len(self.faults) + 1, p.role, p.how, name, p.zone, p.task, p.stage, self._stage(p),
                  time.monotonic() - self.began, self.plane.now())  # fmt: skip
        if p.role == "global":
            f.zone = GLOBAL
        self.faults.append(f)
        self.under_way[p.group] = f
        if p.role == "broker":
            work = self._broker(f)
        else:
            f.ends = self.watch.ends(p.zone)
            kind = name.rsplit("-", 1)[0] + "-"
            f.also = tuple(n for n in self.plane.children if n.startswith(kind) and n != name and p.how == ALL)
            for n in (name, *f.also):
                f.seats |= self.watch.seats(n)
            children = {n: self.plane.children[n] for n in (name, *f.also)}
            for n, child in children.items():
                if p.how == STOP:
                    child.send_signal(signal.SIGSTOP)
                else:
                    self.plane.kill(n)
            work = self._role(f, children)
        job = asyncio.create_task(self._see_through(p.group, f, work), name=f"fault {f.number}")
        self.jobs.add(job)
        job.add_done_callback(self._over)

    async def _see_through(self, group: str, f: Fault, work: Awaitable[None]) -> None:
        await work
        f.over = self._since(f)
        self.say(f.line())
        del self.under_way[group]

    def _over(self, job: "asyncio.Task[None]") -> None:
        self.jobs.discard(job)
        if not job.cancelled() and (e := job.exception()):
            self.failed.append(f"{job.get_name()}: {e!r}")

    async def _role(self, f: Fault, children: dict[str, asyncio.subprocess.Process]) -> None:
        """Until its processes are back and whatever they held has a holder."""
        if f.how == STOP:
            await asyncio.sleep(2 * SESSION / 1000)
            children[f.name].send_signal(signal.SIGCONT)
        else:
            await soon(lambda: all(self.plane.children[n] is not child for n, child in children.items()))
        f.back = self._since(f)
        end = f.back + 3 * SESSION / 1000
        await soon(lambda: len(f.claimed) == len(f.seats) or self._since(f) > end)

    async def _broker(self, f: Fault) -> None:
        """Hit the one that leads most. Until all replicas of all partitions are in sync again: never is a second broker
        hit before that."""
        assert self.brokers
        everyone = self.brokers.bootstrap
        leads = (await health(everyone)).leads
        number = max(range(1, len(self.brokers.nodes) + 1), key=lambda n: leads[n])
        node = self.brokers.nodes[number - 1]
        others = [b.bootstrap for b in self.brokers.nodes if b is not node]
        f.name, f.stage = f"broker-{number}", self.watch.stage(f.zone, f.task)

        async def led() -> None:
            ask, away = (others, number) if others else ([node.bootstrap], 0)
            await until(lambda: health(",".join(ask)), lambda h: h.led(away))
            f.led = self._since(f)

        def gone() -> asyncio.Task[None]:
            f.at, f.wall = time.monotonic() - self.began, self.plane.now()
            f.first.clear()
            return asyncio.create_task(led())

        if f.how == STOP:
            assert node.pid
            os.kill(node.pid, signal.SIGSTOP)
            leading = gone()
            await asyncio.sleep(BROKER_AWAY)
            os.kill(node.pid, signal.SIGCONT)
        else:
            await asyncio.to_thread(node.stop if f.how == RESTART else node.kill)
            leading = gone()
            await asyncio.sleep(BROKER_AWAY if f.how == LOST else 0)
            await asyncio.to_thread(node.start)
        f.back = self._since(f)
        if others:
            leading.cancel()
        await until(lambda: health(everyone), lambda h: h.whole)
        await asyncio.wait({leading})
        f.led = self._since(f) if f.led is None else f.led

    def _since(self, f: Fault) -> float:
        return time.monotonic() - self.began - f.at

    async def settle(self) -> None:
        """Let all that is under way end, so that nobody is left stopped."""
        self.armed.clear()
        while self.jobs:
            await asyncio.wait(set(self.jobs))


async def until(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> None:
    while not good(await ask()):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def soon(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


# ------------------------------------------------------------------ a run


@dataclass
class Ran:
    """One run: what was seen, and what of it is not as it must be."""

    watch: Watch
    faults: list[Fault]
    unused: int
    troubles: list[str]
    seconds: float
    verified: int = 0
    words: int = 1
    """How many policies were asked for, one after the other, and said to hold."""


async def run(
    bootstrap: str,
    folder: Path,
    work: Work,
    plan: Sequence[Plan] = (),
    brokers: Brokers | None = None,
    guard: str = "",
    say: Callable[[str], None] = lambda text: None,
    seconds: float = 1_800,
) -> Ran:
    """The work, in a namespace of its own, while what is planned happens."""
    namespace = f"chaos-{secrets.token_hex(4)}"
    submitters = work.submitters(namespace)  # loads torch, before anybody is in a hurry
    plane = Unguarded(bootstrap, folder, lambda text: None, SESSION, 0.5)
    plane.guard = guard
    watch = Watch(namespace, ZONES, work.tasks, 4)
    chaos = Chaos(plane, watch, list(plan), brokers, say)
    out = Ran(watch, chaos.faults, 0, [], 0.0)
    devices: list[asyncio.Task[Stop]] = []
    try:
        await plane.start(work.roles(namespace))
        watching = asyncio.create_task(plane.host(lambda life: watch))
        devices = [asyncio.create_task(plane.host(lambda life, f=f: f)) for f in work.fleets(namespace)]  # type: ignore[misc]
        for s in (*work.words(namespace), *submitters):
            submitted = await plane.host(lambda life, s=s: s)  # type: ignore[misc]
            if not submitted.ok:
                out.troubles.append(submitted.reason)
        speaking = asyncio.create_task(speak(plane, work, namespace, out))
        began = chaos.began = watch.moved = time.monotonic()
        while not watching.done() and not out.troubles:
            chaos.arm()
            chaos.look()
            now = time.monotonic()
            if now - watch.moved > STUCK or now - began > seconds:
                out.troubles.append(f"it stands still: {standing(watch)}")
            out.troubles += chaos.failed
            out.troubles += [f"a fleet ended: {d.result().reason}" for d in devices if d.done()]
            await asyncio.sleep(0.02)
        out.seconds = time.monotonic() - began
        out.unused = len(chaos.left) + len(chaos.armed)
        await chaos.settle()
        speaking.cancel()
        await asyncio.wait({speaking})
        out.troubles += unheard(watch, out.words)
        if watching.done() and not watching.result().ok:
            out.troubles.append(watching.result().reason)
        if plan and not out.troubles:
            out.verified = await verify(plane, watch, out.troubles)
        watching.cancel()
        await asyncio.wait({watching})
    finally:
        for d in devices:
            d.cancel()
        if devices:
            await asyncio.wait(devices)
        await plane.stop()
    return out


async def speak(plane: Processes, work: Work, namespace: str, ran: Ran) -> None:
    """Change the policy, again and again; a word that is not dealt with in time is a trouble."""
    while True:
        await asyncio.sleep(PAUSE)
        stop = await plane.host(lambda life: work.policy(namespace, ran.words))
        if not stop.ok:
            ran.troubles.append(stop.reason)
            return
        ran.words += 1


def unheard(watch: Watch, words: int) -> list[str]:
    """Policies that were said to hold, and are not facts in their order, each once. The last may have been cut off."""
    held = [f.sharing.by for z, f in watch.accepted if z == GLOBAL and isinstance(f, SharingSet)]
    wanted = [f"word {n}" for n in range(words)]
    return (
        []
        if held[: len(wanted)] == wanted and len(held) <= words + 1
        else [f"the policies set were {held}, not {wanted}"]
    )


def standing(watch: Watch) -> str:
    places = [f"{z} {t}: {watch.stage(z, t)}" for z in ZONES for t in watch.tasks]
    return "; ".join([*places, *(f"{t}: {watch.epoch(t)}, {watch.rounds(t)} rounds" for t in watch.tasks)])


async def verify(plane: Processes, watch: Watch, troubles: list[str]) -> int:
    """`olearning verify` of every round there was: how many were found right."""
    rounds = [(z, f.task, f.round) for z, f in watch.accepted if isinstance(f, Finalised)]
    turns, good = asyncio.Semaphore(4), 0

    async def one(zone: str, task: str, n: int) -> None:
        nonlocal good
        auditor = Auditor(watch.namespace, zone, task, n)
        async with turns:
            stop = await plane.host(lambda life: auditor)
        found = verdict(auditor.audit) if stop.ok else stop.reason
        good += found == "ok"
        if found != "ok":
            troubles.append(
                f"verify {task} {n} of {zone}: {found} {[*auditor.audit.differs, *auditor.audit.missing][:2]}"
            )

    await asyncio.gather(*(one(*r) for r in rounds))
    return good


@dataclass
class Verdict:
    account: Account
    different: list[str]
    troubles: list[str]

    @property
    def good(self) -> bool:
        return self.account.good and not self.different and not self.troubles


def judge(calm: Ran, ran: Ran, work: Work) -> Verdict:
    troubles = [f"undisturbed: {t}" for t in calm.troubles] + ran.troubles
    if ran.unused:
        troubles.append(f"{ran.unused} faults had no turn: the work was over too soon, ask for more --rounds")
    return Verdict(account(ran.watch, work), differing(calm.watch, ran.watch), troubles)


# ------------------------------------------------------------------ the command


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument(
        "--rounds", type=int, default=0, help="rounds of each task in each zone; 0: enough for the faults"
    )
    parser.add_argument(
        "--without", default="", choices=["", *CONTROLS], metavar="GUARD", help="take one guard out: it must go red"
    )
    parser.add_argument(
        "--only", default="", help="roles to hit, with commas between: aggregator,zone,global,scheduler,broker"
    )
    parser.add_argument("--no-training", action="store_true", help="sentinels alone")
    parser.add_argument("--slowest", type=int, default=1_500, help="ms that the slowest sentinel takes")
    parser.add_argument("--logs", type=Path, help="keep the logs of all processes here")
    parser.add_argument("--json", type=Path, help="write what was found")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each fault")
    o = parser.parse_args(args)
    logging.disable(logging.ERROR)  # what clients say of brokers that are away
    rounds = o.rounds or max(6, round(0.7 * o.faults))
    work = Work(
        epochs=max(2, round(rounds / 6)), rounds=min(6, rounds // 2), training=not o.no_training, slowest_ms=o.slowest
    )
    plan = draw(o.faults, o.seed, o.brokers, work.tasks, [x for x in o.only.split(",") if x])
    with ExitStack() as stack:
        fresh = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # brokers never find data of another run
        folder = o.logs or fresh
        print(
            f"seed {o.seed}: {o.faults} faults on {o.brokers} broker(s), {work.epochs} x {work.rounds} rounds in each of {len(ZONES)} zones"
        )
        began = time.monotonic()
        brokers = stack.enter_context(Brokers(fresh / "brokers", o.brokers))
        calm = asyncio.run(run(brokers.bootstrap, folder / "calm", work))
        print(f"undisturbed: {calm.seconds:.0f} s", flush=True)
        stack.enter_context(without(o.without))
        say = (lambda text: print(text, flush=True)) if o.verbose else (lambda text: None)
        ran = asyncio.run(run(brokers.bootstrap, folder / "roles", work, plan, brokers, o.without, say))
        found = judge(calm, ran, work)
        show(found, ran, time.monotonic() - began)
        if o.json:
            o.json.write_text(json.dumps(report(o, work, found, calm, ran), indent=1))
    return 0 if found.good else 1


def show(v: Verdict, ran: Ran, seconds: float) -> None:
    print(*matrix(ran.faults), "", HELP, "", sep="\n")
    for what in (v.troubles, v.account.lost, v.account.doubled, v.account.wrong, v.different):
        for text in what[:8]:
            print(f"  {text}")
    same = "every model has the bits of the undisturbed run" if not v.different else f"{len(v.different)} models DIFFER"
    print(
        f"{'GREEN' if v.good else 'RED'}: {len(ran.faults)} faults in {ran.seconds:.0f} s ({seconds:.0f} s in all); {v.account.sent} sentinels: "
        f"{len(v.account.lost)} lost, {len(v.account.doubled)} doubled; {same} ({len(ran.watch.models)} models); "
        f"{ran.verified} rounds verified; {ran.words} policies, one after the other; {ran.watch.voids} facts void"
    )


def report(o: argparse.Namespace, work: Work, v: Verdict, calm: Ran, ran: Ran) -> dict[str, Any]:
    return {
        "seed": o.seed, "brokers": o.brokers, "without": o.without, "good": v.good,
        "rounds": work.epochs * work.rounds, "seconds": ran.seconds, "undisturbed_seconds": calm.seconds,
        "sentinels": v.account.sent, "lost": v.account.lost, "doubled": v.account.doubled, "wrong": v.account.wrong,
        "different": v.different, "troubles": v.troubles, "models": len(ran.watch.models), "verified": ran.verified,
        "faults": [f.as_json() for f in ran.faults],
    }  # fmt: skip


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
