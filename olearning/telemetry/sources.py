"""What each processor's state says to operators, as samples of the list in `metrics.py`. Read between two inputs; changes nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator

from olearning.places import places
from olearning.telemetry import metrics as m
from olearning.telemetry.metrics import Sample
from olearning.view import View
from olearning.waiting import short
from processors import reports
from processors.aggregator import Aggregator
from processors.desk import Desk
from processors.evaluator import Evaluator
from processors.globe import GlobalCoordinator
from processors.scheduler import Scheduler
from processors.standing import standings
from processors.tenancy import holds
from processors.zone import ZoneCoordinator
from schemas.facts import Counts
from schemas.messages import DEVICE_STATES
from schemas.topics import DAY
from streams.ledger import Globe, Zone, identity, shards_of
from streams.processor import Processor
from streams.reading import Reading

STATES = ("open", "closed", "finalised")
OUTCOMES = Counts.__struct_fields__


def readings_of(p: Processor) -> list[Reading]:
    """The ledgers that a processor reads."""
    if isinstance(p, View):
        return [p.globe_book.reading, *(book.reading for book in p.books.values())]
    if isinstance(p, Desk):
        return p.readings
    reading = getattr(p, "reading", None)
    return [reading] if isinstance(reading, Reading) else []


def unready(p: Processor) -> str:
    """What it still reads before it can do its part, or ""."""
    behind = [r.topic for r in readings_of(p) if not r.caught_up]
    if behind:
        return f"{p.name} reads {', '.join(behind)}"
    if False in (getattr(p, "listening", True), getattr(p, "ready", True)):  # a fleet, a gateway
        return f"{p.name} reads what is announced"
    return ""


def samples_of(p: Processor, now: int) -> Iterator[Sample]:
    """All that a processor's state says at `now` (ms, its runtime's clock)."""
    match p:
        case ZoneCoordinator():
            yield from _ledger(p)
            yield from _zone(p.scope, p.zone)
            yield from _selector(p, now)
        case GlobalCoordinator():
            yield from _ledger(p)
            yield from _globe(p, now)
        case Aggregator():
            yield from _aggregator(p, now)
        case Scheduler():
            yield m.LEADER, ("scheduler",), float(p.speaks)
            yield from _scheduler(p)
        case Evaluator():
            yield from _evaluator(p)
        case View():
            yield from _view(p)
        case _:
            yield from _edge(p, now)


def _ledger(p: Desk) -> Iterator[Sample]:
    state, scope = p.ledger.state, (p.scope,)
    yield m.LEADER, scope, float(bool(p.token))
    yield m.RECORDS, scope, state.position
    last = state.checkpoints[-1].offset if state.checkpoints else 0
    yield m.UNCHECKED, scope, state.position - last


# ------------------------------------------------------------------ a zone


def _zone(zone: str, z: Zone) -> Iterator[Sample]:
    for task, t in z.tasks.items():
        here, r = (zone, task), t.rounds.get(t.round)
        for outcome in OUTCOMES:
            yield m.BLOCKS, (*here, outcome), getattr(t.tally.counts, outcome)
        yield m.BLOCKS, (*here, "lost"), t.tally.lost
        yield m.IDENTITY, here, float(identity(t))
        yield m.STILL, here, float(t.loss is not None)
        yield m.OPENED, here, t.round
        yield m.STARVED, here, t.starved
        yield m.ADMITTED, here, t.service
        for state in STATES:
            yield m.STATE, (*here, state), float(t.state == state)
        if t.measured:
            yield m.LOSS, here, t.measured[-1][1]
        if r and r.opened:
            yield m.DEMAND, here, r.opened.demand
            gone = r.lapsed - r.done - r.voided
            slots = len(r.devices), len(r.done), len(gone), len(r.voided)
            for state, n in zip(("admitted", "delivered", "lapsed", "given-up"), slots, strict=True):
                yield m.SLOTS, (*here, state), n
            if t.state != "finalised":
                yield m.DEADLINE, here, r.opened.deadline / 1000
    yield m.REGISTERED, (zone,), sum(z.registrations)
    yield m.NOBODY, (zone,), sum(not h.holder for h in z.shards)


def _selector(p: ZoneCoordinator, now: int) -> Iterator[Sample]:
    yield m.WAITING, (p.scope,), sum(map(len, p.selector.waiting.values()))
    for ground, n in p.selector.refused.items():
        yield m.REFUSED, (p.scope, ground), n
    tenant_of = {task: r.opened.tenant for task, t in p.zone.tasks.items() if (r := t.rounds.get(t.round)) and r.opened}
    hungry = Counter(tenant_of[task] for task in short(p.zone))
    for tenant in set(tenant_of.values()):
        yield m.HUNGRY, (p.scope, tenant), hungry[tenant]
    plan = p.selector.plans.plan
    if plan and p.token:
        for task, (first, _) in places(plan).found.items():
            yield m.PLACE, (p.scope, task, plan.policy), first
    for tenant in p.zone.spent:
        yield m.SPENT, (p.scope, tenant), p.zone.spent_on(tenant, now // DAY)


# ------------------------------------------------------------------ the globe


def _globe(p: GlobalCoordinator, now: int) -> Iterator[Sample]:
    g: Globe = p.globe
    for state, n in Counter(t.state for t in g.tasks.values()).items():
        yield m.TASKS, (state,), n
    for task, t in g.tasks.items():
        yield m.EPOCH, (task,), t.epoch
    _, present = p.registry.said
    for zone, here in present.zones.items() if present else ():
        yield m.PRESENT, (zone,), here.devices
    zones = {z: ledger.state for z, ledger in p.zones.items()}
    for tenant, s in standings(g, zones, now).items():
        yield m.TENANT_TASKS, (tenant,), s.tasks
        yield m.TENANT_DEVICES, (tenant,), s.devices
        yield m.TENANT_WEIGHT, (tenant,), s.weight
        for of in s.quota.__struct_fields__:
            if most := getattr(s.quota, of):
                yield m.TENANT_QUOTA, (tenant, of), most
    yield m.SHARING, (holds(g).policy,), 1.0


# ------------------------------------------------------------------ the others


def _aggregator(p: Aggregator, now: int) -> Iterator[Sample]:
    yield m.HELD, (p.zone_name,), len(shards_of(p.zone, p.name, p.life))
    for task in p.work:
        here, load = (p.zone_name, task), reports.load(task, p.work, p.zone, now)
        yield m.TAKEN, here, load.blocks
        yield m.TAKEN_BYTES, here, load.bytes
        yield m.UNREAD, here, load.unread
        yield m.BACKLOG, here, load.unread * load.size
        yield m.AGE, here, max((w.ms for w in load.waiting.values()), default=0) / 1000


def _scheduler(p: Scheduler) -> Iterator[Sample]:
    for zone, said in p.reports.items() if p.speaks else ():
        yield m.WORKERS, (zone,), said.workers
        yield m.WANTED, (zone,), said.wanted
        yield m.ARRIVING, (zone,), said.arriving
        yield m.ALL_BACKLOG, (zone,), said.backlog
        yield m.CAPACITY, (zone,), said.capacity


def _evaluator(p: Evaluator) -> Iterator[Sample]:
    yield m.TO_SCORE, (), p.left
    for task, e in p.scores.items():
        yield m.ACCURACY, (task,), e.accuracy
        yield m.SCORED_LOSS, (task,), e.loss
        yield m.SCORED, (task,), e.epoch


def _view(p: View) -> Iterator[Sample]:
    for zone, book in p.books.items():
        for task, t in book.zone.tasks.items():
            log = book.logs.get(task)
            yield m.IDENTITY, (zone, task), float(not book.total(task).problem)
            yield m.LOG_UNREAD, (zone, task), sum(log.unread(t)) if log else 0


def _edge(p: Processor, now: int) -> Iterable[Sample]:
    """Fleets and gateways. Imported here: where one is hosted, it is there already."""
    from device_sim.fleet import Fleet
    from device_sim.gateway import Gateway

    if isinstance(p, Fleet):
        states, boxes = Counter(d.state for d in p.devices), list(p.outboxes.values())
        yield m.BUSY, (p.zone,), sum(d.busy_now for d in p.devices)
    elif isinstance(p, Gateway):
        states, boxes = Counter(box.state(now) for box in p.boxes.values()), [p.outbox]
    else:
        return
    zone = (p.zone,)
    for state in DEVICE_STATES:
        yield m.DEVICES, (*zone, state), states[state]
    yield m.GIVEN, zone, sum(box.sent for box in boxes)
    yield m.GIVEN_BYTES, zone, sum(box.sent_bytes for box in boxes)
    yield m.FETCHED, zone, p.edge.fetched
    yield m.HANDED, zone, p.edge.handed
    yield m.UPLOADS, zone, sum(box.waiting for box in boxes)
    yield m.LEFT, zone, sum(box.left for box in boxes)
    for outcome, n in p.outcomes.items():
        yield m.RECEIPTS, (p.zone, outcome), n
