"""Seeded simulation of the whole plane: one number draws its shape, its faults and their times, and is all it takes to see
the same run again, record by record.

    python -m tests.chaos.schedules --seed 4711 -v      what happened, fact by fact and fault by fault
    python -m tests.chaos.schedules --seeds 0:5000      look for more than CI does
    python -m tests.chaos.schedules --seeds 0:300 --without bitmaps
                                                        with a guard taken out (tests/chaos/controls.py)

Some of the shapes are patient: every round waits for all devices whatever crashes, so the model must have the very bits that
`oracle.trained` computes without a plane. In the others rounds close with k of n or are asynchronous, and fleets die for good:
what counted is then read off the logs, and all that follows from it is computed again (`audit`). In most, devices are shared by a policy, or by one after the other,
whose plan is held to whatever crashes. Ledgers are cut behind
checkpoints while all this goes on; the audit reads a copy of what was cut.
"""

import argparse
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any
from unittest.mock import patch

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from processors import zone_leader
from schemas.blocks import CODECS, DeltaBlock
from schemas.facts import Finalised
from schemas.messages import Registration
from schemas.sharing import SHARING, Sharing
from schemas.task import Epochs, Rounds, TaskSpec, Upload
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed, encode
from streams.memory import Host, Memory
from streams.processor import HEADERS, Record, Send, Stop, send
from tests.chaos import controls
from tests.chaos.audit import Audit
from tests.chaos.oracle import trained
from tests.chaos.whims import Whims, unruly
from tests.plane import LAYOUT, NS, Arithmetic, Plane, part_of, some_of_it

AIMS = ("ledger", "partials", "models", "admissions", "announcements", "receipts")
"""What an aimed fault waits for: that its host sends to such a topic."""
GARBAGE = (b"\xff\xfe garbage", b"", None, b"\x81\xa4type\xa7nothing", b"\x93\x01\x02\x03")


@dataclass(frozen=True)
class Shape:
    """A plane and what befalls it. Times in ms."""

    zones: tuple[str, ...]
    partitions: int
    aggregators: int
    standbys: bool
    fleets: int
    devices: int
    """Of a zone, shared by its fleets."""
    tasks: int
    epochs: int
    rounds: int
    patient: bool
    demand: int
    minimum: int
    over_commit: float
    refill: int
    staleness: int
    atomic: bool
    codec: str
    hold: int
    """Bytes that a shard holds of deltas that are not whole."""
    every: int
    """A checkpoint of a ledger after so many records."""
    lease_s: float
    deadline_s: float
    grace_s: float
    resend: float
    copies: float
    """The share of appends that land again, up to `COPY` later."""
    loss: float
    latency: int
    spread: int
    """The blocks of a delta land up to so much later, one after the other."""
    pace: int
    calm_at: int
    """No more faults from here on."""
    whims: bool
    """What is read first, and what waits meanwhile, is anybody's guess (`whims.py`)."""
    policies: tuple[str, ...]
    """By which devices are shared, one after the other; none: nobody says."""
    fill_s: float
    serve_s: float
    partial: bool
    """Devices train parts of the last task's model."""


COPY = 3_000


def draw(dice: Random, more: Random) -> Shape:
    """`more`: for what changes nothing of the rest."""
    kind = dice.choice(("patient", "patient", "k of n", "k of n", "asynchronous"))
    patient, refill = kind == "patient", int(kind == "asynchronous")
    devices = dice.randint(2, 4)
    demand = devices if patient else dice.randint(1, devices)
    return Shape(
        zones=("east", "west")[: dice.choice((1, 1, 2))],
        partitions=dice.choice((1, 2, 2, 4)),
        aggregators=dice.choice((1, 2, 2, 3)),
        standbys=dice.random() < 0.5,
        fleets=dice.randint(1, 2),
        devices=devices,
        tasks=dice.choice((1, 1, 1, 2)),
        epochs=2,
        rounds=dice.randint(1, 2),
        patient=patient,
        demand=demand,
        minimum=demand if patient else dice.randint(1, demand),
        over_commit=1.0 if patient else dice.choice((1.0, 1.3, 2.0)),
        refill=refill,
        staleness=dice.randint(0, 2) * refill,
        atomic=dice.random() < 0.4,
        hold=2**25 if patient else dice.choice((48, 80, 2**25)),
        every=dice.choice((0, 5, 20)),
        lease_s=60.0 if patient else dice.choice((0.3, 1.0, 3.0)),
        deadline_s=120.0 if patient else dice.choice((0.8, 2.0, 4.0)),
        grace_s=dice.choice((0.0, 0.0, 0.1)),
        resend=dice.choice((0.0, 0.3, 1.0)),
        copies=dice.choice((0.0, 0.03, 0.2)),
        loss=dice.choice((0.0, 0.5, 1.0)),
        latency=dice.choice((2, 10, 40)),
        spread=dice.choice((0, 0, 400, 1_500)),
        pace=dice.choice((60, 150, 400)),
        calm_at=dice.choice((0, 1_500, 3_000, 5_000)) if dice.random() < 0.9 else 8_000,
        whims=more.random() < 0.4,
        codec="int32" if patient else more.choice(tuple(CODECS)),  # the oracle knows no other
        policies=more.choice(((), (), ("fifo",), ("max-min",), ("irs", "reward", "fifo"), ("irs-tiers", "max-min"))),
        fill_s=0.0 if patient else more.choice((0.0, 0.0, 0.5, 1.5)),
        serve_s=0.0 if patient else more.choice((0.0, 0.0, 0.7)),
        partial=more.random() < 0.5,
    )


class Taped(Memory):
    """Remembers what is cut, and who gave up."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.tape: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.gave_up: list[Host] = []

    def _stop(self, host: Host, stop: Stop) -> None:
        super()._stop(host, stop)
        if not stop.ok:
            self.gave_up.append(host)

    def append(self, send: Send) -> tuple[int, int]:
        p, offset = super().append(send)
        self.tape[send.topic, p].append(Record(send.topic, p, offset, send.key, send.value, self.now, send.headers))
        return p, offset

    def records(self, topic: str, partition: int = 0, first: int = 0) -> list[Record]:
        return self.tape[topic, partition][first:]


class Schedule:
    """One run. `say` hears of every fault."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda text: None):
        self.seed, self.dice, self.more = seed, Random(seed), Random(f"more {seed}")
        self.shape = s = draw(self.dice, Random(f"shape {seed}"))
        self.tell = say
        self.memory = Taped(seed=seed, latency=(1, s.latency), loss=s.loss)
        self.memory.network = self.network
        self.aims: list[tuple[Host, str, str]] = []
        self.slow: dict[Host, tuple[int, int]] = {}
        """Until when, and how much later (ms at most) this host's appends land."""
        self.calm = False
        self.doomed: set[Host] = set()
        manner = Manner(training=(30, 250), reaction=50, report=10_000, resend=s.resend)
        self.plane = Plane(self.memory, s.zones, s.partitions, s.aggregators, devices=0, every=s.every, manner=manner)
        for zone in s.zones:
            for n in range(s.fleets):
                self.fleet(zone, n)
        if s.standbys:
            self.plane.standbys()
        if s.whims:
            self.plane.host("scheduler", lambda life: Whims(s.zones, seed))
        for k, policy in enumerate(s.policies):
            self.memory._at(700 * k, lambda policy=policy: self.share(policy))
        for k in range(s.tasks):
            self.plane.submit(self.task(k), seed=k + 1)
        self.names = {host: name for name, host in self.plane.hosts.items()}
        self.tell(f"0 {s}")

    def fleet(self, zone: str, n: int) -> None:
        """Its devices forget everything when it dies; where they are patient, they ask for their slots again."""
        numbers = range(n, self.shape.devices, self.shape.fleets)

        def make(life: str) -> Fleet:
            devices = [Device(f"{zone}-{k}", k, abilities={"cpu": 1.0 + k}, part=some_of_it) for k in numbers]
            return Fleet(NS, zone, f"fleet-{zone}-{n}", life, devices, Arithmetic(), self.plane.manner)

        self.plane.host(f"fleet-{zone}-{n}", make)

    def share(self, policy: str) -> None:
        self.memory.append(send(topic(NS, GLOBAL, "tenants"), Sharing(policy), SHARING))

    def task(self, k: int) -> TaskSpec:
        s = self.shape
        return TaskSpec(
            task=f"toy-{k}",
            model="arithmetic",
            data="none",
            rounds=Rounds(
                demand=s.demand,
                over_commit=s.over_commit,
                minimum=s.minimum,
                deadline_s=s.deadline_s,
                lease_s=s.lease_s,
                grace_s=s.grace_s,
                refill=s.refill,
                staleness=s.staleness,
                atomic=s.atomic,
                partial=self.partial(k),
                fill_s=s.fill_s,
                serve_s=s.serve_s,
            ),
            epochs=Epochs(s.epochs, s.rounds, 3600.0 if s.patient else 8.0),
            upload=Upload(s.codec),
        )

    def partial(self, k: int) -> bool:
        return self.shape.partial and k == self.shape.tasks - 1

    # ------------------------------------------------------------------ faults

    def say(self, text: str) -> None:
        self.tell(f"{self.memory.now} {text}")

    def network(self, host: Host, send: Send) -> list[int]:
        delay, dice = self.memory.delay(), self.dice
        if self.calm:
            return [delay]
        what = send.topic.split(".")[2]
        for aim in [a for a in self.aims if a[0] is host and a[1] == what]:
            self.aims.remove(aim)
            self.memory._at(dice.randint(0, self.shape.latency), lambda how=aim[2]: self.fell(host, how))
        if what == "deltas":
            delay += dice.randint(0, self.shape.spread)
        until, more = self.slow.get(host, (0, 0))
        if self.memory.now < until:
            delay += dice.randint(0, more)
        return [delay] + ([dice.randint(1, dice.choice((50, COPY)))] if dice.random() < self.shape.copies else [])

    def fell(self, host: Host, how: str) -> None:
        """Crash or freeze a host, and have it back some time later."""
        if not host.alive or host.frozen or self.calm:
            return
        life, back = host.lives, self.dice.choice((5, 200, 900, 1500, 2500))
        self.say(f"{how} {self.names[host]} for {back} ms")
        if how == "crash":
            host.crash()
            if host not in self.doomed:
                self.memory._at(back, lambda: None if self.calm or host.alive or host.stopped else host.restart())
        else:
            host.freeze()
            self.memory._at(back, lambda: host.thaw() if host.frozen and host.lives == life and host.alive else None)

    def strike(self) -> None:
        """The next fault."""
        dice, hosts = self.dice, self.plane.hosts
        roles = [h for n, h in hosts.items() if not n.startswith("fleet")]
        fleets = [h for n, h in hosts.items() if n.startswith("fleet")]
        match dice.choices(("now", "aimed", "fleet", "burst", "copy", "garbage", "ghost"), (30, 30, 6, 10, 10, 10, 4))[
            0
        ]:
            case "now":
                self.fell(dice.choice(roles), dice.choice(("crash", "crash", "freeze")))
            case "aimed":
                self.aims.append((dice.choice(roles), dice.choice(AIMS), dice.choice(("crash", "crash", "freeze"))))
            case "fleet":
                host = dice.choice(fleets)
                if not self.shape.patient and dice.random() < 0.3:
                    self.doomed.add(host)
                self.fell(host, "crash" if host in self.doomed else dice.choice(("crash", "freeze")))
            case "burst":
                host, more = dice.choice([*roles, *fleets]), dice.choice((100, 500, 3000))
                self.slow[host] = self.memory.now + dice.choice((100, 1000)), more
                self.say(f"appends of {self.names[host]} take up to {more} ms longer")
            case "copy":
                self.again(dice.choice(("deltas", "deltas", "registrations", "ledger", "partials", "models")))
            case "garbage":
                self.litter(dice.choice(("deltas", "registrations", "ledger")))
            case "ghost" if not self.shape.patient:  # takes a place and is never heard of again
                zone = dice.choice(self.shape.zones)
                wish = Registration(f"ghost-{dice.randrange(99)}", "toy-0", dice.randint(1, 4))
                self.put(f"{NS}.{zone}.registrations", encode(wish), wish.device)

    def some(self, what: str) -> tuple[str, int] | None:
        """A partition of some topic of that kind."""
        names = [n for n in self.memory.topics if n.split(".")[2] == what]
        return (name := self.dice.choice(names), self.dice.randrange(len(self.memory.topics[name]))) if names else None

    def put(self, name: str, value: Any, key: str | None, partition: int | None = None) -> None:
        self.say(f"to {name}: {value!r:.60}")
        self.memory.append(Send(name, value, key, partition))

    def again(self, what: str) -> None:
        """An append that was made before lands once more: the last few, or any at all."""
        if (at := self.some(what)) and (log := self.memory.records(*at)):
            s = self.dice.choice(log[-self.dice.choice((1, 5, 10_000)) :])
            self.say(f"again in {at[0]} [{at[1]}]: {s.key} {s.value!r:.40}")
            self.memory.append(Send(at[0], s.value, s.key, at[1], None, s.headers or HEADERS))

    def litter(self, what: str) -> None:
        """What cannot be read, or must not count."""
        at = self.some(what)
        if at is None:
            return
        log, dice = self.memory.records(*at), self.dice
        if what != "deltas" or not log or dice.random() < 0.5:
            self.put(at[0], dice.choice(GARBAGE), dice.choice((None, "x")), at[1])
            return
        s = dice.choice(log)
        try:
            b: Any = read(at[0], s.value, s.headers)
            assert isinstance(b, DeltaBlock)
        except Malformed:
            return
        wrong: dict[str, Any] = dice.choice(
            (
                {"slot": b.slot + 1},
                {"exponent": 40},
                {"data": b.data[4:]},
                {"task": "tox"},
                {"device": "x"},
                {"round": b.round + 9},
            )
        )
        if self.shape.partial and not self.shape.patient and self.more.random() < 0.5:
            i = (b.block + 1) % len(LAYOUT.sizes)  # perhaps one that the slot does not owe
            wrong = {"block": i, "codec": "int32", "exponent": 0, "data": memoryview(bytes(4 * LAYOUT.sizes[i]))}
        fields = {f: getattr(b, f) for f in b.__struct_fields__}
        self.put(at[0], encode(DeltaBlock(**{**fields, **wrong})), s.key, at[1])

    # ------------------------------------------------------------------ the run

    def ended(self) -> bool:
        for name in ("global", "global-b")[: 1 + self.shape.standbys]:
            if len(self.plane.hosts[name].processor.globe.over) == self.shape.tasks:  # type: ignore[attr-defined]
                return True
        return False

    def stopped(self) -> dict[str, str]:
        """Who gave up, and why. Nobody may."""
        return {self.names.get(h, f"submit {h.number}"): h.stopped.reason for h in self.memory.gave_up if h.stopped}

    def over(self) -> bool:
        return self.ended() or bool(self.memory.gave_up)

    def run(self) -> None:
        """To the end; raises `AssertionError` for whatever must not be."""
        whims = unruly(self.seed) if self.shape.whims else nullcontext()
        with patch.object(zone_leader, "HOLD", self.shape.hold), whims:
            self.play()
            self.check()

    def play(self) -> None:
        s, memory, dice = self.shape, self.memory, self.dice
        while memory.now < s.calm_at and not memory.run(self.over, dice.randint(1, s.pace)):
            self.strike()
        self.calm = True
        self.say("calm")
        for host in memory.hosts:
            if not host.alive and not host.stopped and host not in self.doomed:
                host.restart()
            elif host.frozen:
                host.thaw()
        finished = memory.run(self.over, 400_000)
        assert not self.stopped(), f"stopped: {self.stopped()}"
        assert finished, "it does not end"
        memory.run(limit=COPY + 500)  # whatever is under way lands, and zombies say their last
        assert not self.stopped(), f"stopped: {self.stopped()}"

    def check(self) -> None:
        Audit(self.plane).run()
        if not self.shape.patient:
            return
        s = self.shape
        for k in range(s.tasks):
            task = f"toy-{k}"
            right = by_the_book(task, k + 1, s.zones, s.epochs, s.rounds, s.devices, self.partial(k))
            assert self.plane.model(task).tobytes() == right, f"another model of {task}"
            for zone in s.zones:
                finals = [f for f in self.plane.facts(zone) if isinstance(f, Finalised) and f.task == task]
                assert [f.round for f in finals] == list(range(1, s.epochs * s.rounds + 1)), (
                    f"rounds of {task} in {zone}"
                )
                assert {f.devices for f in finals} == {s.devices}, f"devices of {task} in {zone}"

    def digest(self) -> str:
        """Of every record of every topic: when, where, what."""
        out = hashlib.sha256()
        for name in sorted(self.memory.topics):
            for p in range(len(self.memory.topics[name])):
                for r in self.memory.records(name, p):
                    out.update(repr((name, p, r.offset, r.timestamp, r.key, r.value, r.headers)).encode())
        return out.hexdigest()


@lru_cache
def by_the_book(
    task: str, seed: int, zones: tuple[str, ...], epochs: int, rounds: int, devices: int, partial: bool
) -> bytes:
    def who(zone: str, n: int, block: int) -> list[str]:
        all = [f"{zone}-{k}" for k in range(devices)]
        return [d for d in all if not partial or block in (part_of(d, task, n) or (block,))]

    return trained(task, seed, zones, epochs, rounds, who, partial).tobytes()


def fault(seed: int, without: str = "") -> str:
    """What is wrong after this seed's run, or ""; with a guard taken out if one is named."""
    with controls.without(without):
        try:
            Schedule(seed).run()
        except Exception as e:  # a processor that trips over what cannot be is found out as well
            return f"{type(e).__name__}: {e}"
    return ""


def faults(seeds: range, without: str = "", first: bool = False) -> dict[int, str]:
    """The seeds that go wrong, and how; only the first if that is enough."""
    out: dict[int, str] = {}
    for seed in seeds:
        if wrong := fault(seed, without):
            out[seed] = wrong
            if first:
                break
    return out


def replay(seed: int, without: str = "") -> str:
    """The command that runs a seed again."""
    return f"python -m tests.chaos.schedules --seed {seed} -v" + (f" --without {without}" if without else "")


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m tests.chaos.schedules", description=__doc__.split("\n")[0])
    p.add_argument("--seed", type=int)
    p.add_argument("--seeds", help="FROM:TO")
    p.add_argument(
        "--without", default="", choices=["", *controls.CONTROLS], metavar="GUARD", help=", ".join(controls.CONTROLS)
    )
    p.add_argument("--digest", action="store_true", help="print what was recorded as one number")
    p.add_argument("-v", action="store_true", dest="verbose")
    a = p.parse_args()
    if a.seed is None:
        first, last = map(int, a.seeds.split(":"))
        wrong = faults(range(first, last), a.without)
        for seed, how in wrong.items():
            print(f"seed {seed}: {how}\n    {replay(seed, a.without)}")
        print(f"{last - first} schedules, {len(wrong)} of them wrong")
        return bool(wrong)
    with controls.without(a.without):
        schedule = Schedule(a.seed, print if a.verbose else lambda text: None)
        try:
            schedule.run()
        finally:
            if a.verbose:
                ledgers(schedule.plane)
            if a.digest:
                print(schedule.digest())
    print(f"seed {a.seed}: nothing wrong, {schedule.memory.now / 1000:g} s of virtual time")
    return 0


def ledgers(plane: Plane) -> None:
    """Every fact, and why the void ones are."""
    from streams.ledger import Globe, Ledger, Zone

    for zone in (GLOBAL, *plane.zones):
        ledger: Ledger = Ledger(Globe() if zone == GLOBAL else Zone())
        print(f"\n{zone}")
        for r in plane.memory.records(f"{NS}.{zone}.ledger"):
            fact, void = ledger.feed(r)
            print(f"  {r.offset} at {r.timestamp}: {fact!r:.300}" + (f"\n      VOID: {void}" if void else ""))


if __name__ == "__main__":
    sys.exit(main())
