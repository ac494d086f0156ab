"""`olearning simulate`: a scenario in virtual time. The same processors and devices as on Kafka, on the log in memory.

Nothing waits: the clock jumps from event to event, what is due together is trained together, and what nobody will read again is
dropped. The same scenario and seed give the same run, record for record.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.runs import Learner
from learning.modular.derivation import Derivation
from olearning.effort import Counted, Effort
from olearning.outcome import Epoch, Result
from olearning.roles import RARELY, population
from olearning.scenario import Loaded
from olearning.sweeper import Sweeper
from olearning.without import appraisal, plain
from processors.aggregator import Aggregator
from processors.derivation import Deriver
from processors.evaluator import Evaluator, Scorer
from processors.globe import GlobalCoordinator
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from processors.zone_leader import worth
from schemas.blocks import Last, Layout
from schemas.facts import Merged
from schemas.messages import Evaluation
from schemas.modules import Structure
from schemas.sharing import SHARING
from schemas.task import TaskSpec
from schemas.topics import GLOBAL, read, topic, zone_topics
from schemas.wire import checksum
from streams.ledger import GlobalOver, Globe
from streams.memory import Host, Memory
from streams.models import Lost, assemble, look_up
from streams.processor import Answer, Effect, Follow, Input, Membership, Processor, Record, Send, send
from streams.reading import Reading

NAMESPACE = "sim"
TOGETHER = 1_000_000
"""All runs that begin together are trained together."""
BATCH = 1_000
SWEEP = 20
"""Ticks between two looks for what can be dropped."""
ROOM = 2**24
"""Bytes of models that each zone's edge keeps besides those at work: there are many in one process."""

Prepare = Callable[[TaskSpec, int], tuple[Layout, npt.NDArray[np.float32]]]
"""A task and a seed -> the layout and version 0 of its model."""
Parts = Callable[[TaskSpec], Structure | None]
"""A task -> what the parts of a modular model cost."""


def one_piece(spec: TaskSpec) -> None:
    """Of a model that is not modular."""
    assert not spec.modules, f"{spec.task} is modular: say what its parts cost"


class Observer:
    """Notes what each epoch came to, and what the task had cost by then: `efforts`."""

    name = "observer"
    membership: Membership | None = None
    tick = 1_000

    def __init__(self, efforts: Mapping[str, Effort]) -> None:
        self.efforts = efforts
        self.reading = Reading(NAMESPACE, GLOBAL, Globe())
        self.evaluations = topic(NAMESPACE, GLOBAL, "evaluations").name
        self.epochs: dict[tuple[str, int], Epoch] = {}

    def start(self, now: int) -> Iterator[Effect]:
        yield from self.reading.start()
        yield Follow(self.evaluations, 0, 0)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        match event:
            case Record(tombstone=True):
                pass
            case Record(topic=name) if name == self.evaluations:
                e = read(event.topic, event.value, event.headers)
                if isinstance(e, Evaluation):
                    epoch = self.epochs.setdefault((e.task, e.epoch), Epoch(e.task, e.epoch, e.at))
                    epoch.accuracy, epoch.loss = e.accuracy, e.loss
            case Record():
                got = yield from self.reading.record(event)
                if got and isinstance(got[0], Merged) and not got[1]:
                    key = got[0].task, got[0].epoch
                    epoch = self.epochs.setdefault(key, Epoch(*key, event.timestamp))
                    epoch.at, epoch.effort = event.timestamp, copy(self.efforts[key[0]])
            case Answer():
                yield from self.reading.answer(event) or ()


class Simulation:
    """A plane in memory for a scenario. `learner` trains for all fleets; `prepare` builds models; `scorer` None: nobody scores.
    `watchers`: processors of one's own that follow what topics they like."""

    def __init__(
        self,
        loaded: Loaded,
        learner: Learner,
        prepare: Prepare,
        scorer: Scorer | None,
        watchers: Sequence[Processor] = (),
        parts: Parts = one_piece,
    ):
        self.loaded, s = loaded, loaded.scenario
        self.appraise = appraisal(s.without) if s.without else worth
        self.memory = Memory(seed=s.seed, latency=(1, 1), batch=BATCH)
        self.counted = Counted(learner)
        self.memory.network = self._network
        self.tick = s.clock.tick_ms
        self.result = Result()
        self.layouts: dict[str, Layout] = {}
        self.models: dict[str, npt.NDArray[np.float32]] = {}
        """By task, what it came to, once it is run."""
        self.zones: dict[str, Host] = {}
        for zone in (GLOBAL, *s.zones):
            for t in zone_topics(NAMESPACE, zone):
                self.memory.create(t.name, t.partitions(s.partitions))
        self.names, self.partitions = list(s.zones), s.partitions
        self.globe = self._host(self._globe)
        first, modular = 0, any(spec.modules for spec in loaded.specs)
        for z, place in s.zones.items():
            self.zones[z] = self._host(partial(self._zone, z))
            if modular:
                self._host(partial(self._modules, z))
            for n in range(s.aggregators):
                self._host(partial(self._aggregator, z, n))
            devices = population(z, loaded.options(z, first)).devices()
            plain(devices, s.without)
            self._host(partial(self._fleet, z, devices))
            first += place.devices
        if scorer:
            self._host(partial(self._evaluator, scorer))
        tenants = topic(NAMESPACE, GLOBAL, "tenants")
        for owner in s.tenants:
            self.memory.append(send(tenants, owner.message(), owner.tenant))
        if s.sharing:
            self.memory.append(send(tenants, s.sharing.message(), SHARING))
        for spec in loaded.specs:
            layout, vector = prepare(spec, s.seed)
            self.layouts[spec.task] = layout
            self.memory.host(partial(self._submitter, spec, layout, vector, parts(spec)))
        self.sweeper = Sweeper(self.memory, NAMESPACE, self.zones, self.globe)
        self.observer = Observer(self.counted.efforts)
        for watcher in (self.observer, *watchers):
            self._watch(watcher)

    def _host(self, make: Callable[[str], Processor]) -> Host:
        def coarse(life: str) -> Processor:
            made = make(life)
            made.tick = self.tick
            return made

        return self.memory.host(coarse)

    def _watch(self, watcher: Processor) -> None:
        self._host(lambda life: watcher)

    def _network(self, host: Host, send: Send) -> list[int]:
        self.counted.sent(send)
        return [self.memory.delay()]

    def _globe(self, life: str) -> Processor:
        return GlobalCoordinator(NAMESPACE, self.names, self.partitions, "global", life)

    def _zone(self, zone: str, life: str) -> Processor:
        return ZoneCoordinator(NAMESPACE, zone, self.partitions, f"zone-{zone}", life, appraise=self.appraise)

    def _aggregator(self, zone: str, n: int, life: str) -> Processor:
        return Aggregator(NAMESPACE, zone, f"aggregator-{zone}-{n}", life, 2 * self.tick, 10**9)

    def _fleet(self, zone: str, devices: Sequence[Device], life: str) -> Processor:
        s = self.loaded.scenario
        manner = Manner(
            seed=s.seed,
            reaction=self.tick,
            training=(3 * self.tick, 15 * self.tick),
            resend=s.devices.resend,
            report=10**9,
            together=TOGETHER,
            ahead=True,
            tick=self.tick,
            room=ROOM,
        )
        others = [z for z in self.names if z != zone] if s.devices.travel else []
        return Fleet(NAMESPACE, zone, f"fleet-{zone}", life, devices, self.counted, manner, others)

    def _evaluator(self, scorer: Scorer, life: str) -> Processor:
        return Evaluator(NAMESPACE, "evaluator", life, scorer)

    def _modules(self, zone: str, life: str) -> Processor:
        return Deriver(NAMESPACE, zone, f"modules-{zone}", Derivation)

    def _submitter(
        self,
        spec: TaskSpec,
        layout: Layout,
        vector: npt.NDArray[np.float32],
        structure: Structure | None,
        life: str,
    ) -> Processor:
        return Submitter(NAMESPACE, life, spec, layout, vector, self.loaded.scenario.seed, 10**9, structure)

    # ------------------------------------------------------------------ running

    def run(self) -> Iterator[float]:
        """Let it run to its end; says now and then how far it is, from 0 to 1. Raises `ValueError` if a task, a tenant or
        the sharing policy is refused, or a role stops."""
        began, days = time.perf_counter(), self.loaded.scenario.days
        end = days * 1000 * self.loaded.scenario.devices.day_seconds
        before = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(*RARELY)  # what comes and goes here makes few circles
        try:
            while not self._over() and not (end and self.memory.now >= end):
                self.memory.run(limit=SWEEP * self.tick)
                for h in self.memory.hosts:
                    if h.stopped and not h.stopped.ok:  # without it the tasks might never end
                        raise ValueError(h.stopped.reason)
                for key, wish in self.globe.processor.globe.wishes.items():  # type: ignore[attr-defined]
                    what = "the sharing policy" if key == SHARING else f"tenant {key}"
                    raise ValueError(f"{what} is refused: {wish.reason}")
                self.sweeper.sweep()
                self.result.seconds = time.perf_counter() - began
                yield self._share(end)
            self._account()
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()
        self.result.seconds = time.perf_counter() - began
        yield 1.0

    @property
    def fold(self) -> Globe:
        return self.globe.processor.globe  # type: ignore[attr-defined]

    def _over(self) -> bool:
        return all(s.task in self.fold.over for s in self.loaded.specs)

    def _share(self, end: float) -> float:
        shares = []
        for s in self.loaded.specs:
            t = self.fold.tasks.get(s.task)
            done = [h.processor.zone.tasks.get(s.task) for h in self.zones.values()]  # type: ignore[attr-defined]
            within = max((d.merged_rounds / s.epochs.rounds for d in done if d and t and d.epoch == t.epoch), default=0)
            epochs = t.epoch - (t.state == "open") * (1 - min(1.0, within)) if t else 0.0
            shares.append(1.0 if s.task in self.fold.over else epochs / s.epochs.count)
        return min(1.0, max(sum(shares) / len(shares), self.memory.now / end if end else 0.0))

    def _account(self) -> None:
        r = self.result
        self.memory.run(limit=20 * self.tick)  # the last scores
        r.epochs = [e for _, e in sorted(self.observer.epochs.items())]
        for task, x in sorted((self.fold.tasks | self.fold.over).items()):
            r.why[task] = x.why
            try:
                model = self._kept(x.model) if isinstance(x, GlobalOver) else self._model(x.manifest)
                r.models[task], self.models[task] = f"{checksum(model.tobytes()):016x}", model
            except Lost as e:
                r.models[task] = str(e)
        for h in self.zones.values():
            zone = h.processor.zone  # type: ignore[attr-defined]
            r.bids += sum(zone.registrations)
            r.rounds += sum(t.round for of in (zone.tasks, zone.over) for t in of.values())
        r.updates = self.sweeper.updates()
        r.virtual_ms = self.memory.now

    def _kept(self, kept: Last) -> npt.NDArray[np.float32]:
        name = topic(NAMESPACE, GLOBAL, "models").name
        return look_up(kept, partial(self.memory.records, name))

    def _model(self, manifest: Any) -> npt.NDArray[np.float32]:
        found = {}
        for p in manifest.blocks:
            start, end = self.memory.span(manifest.topic, p.partition)
            if start <= p.offset < end:
                found[p.key] = self.memory.topics[manifest.topic][p.partition][p.offset].value
        return assemble(manifest, found)
