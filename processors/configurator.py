"""The configurator (OLearning §4.1): tasks as submitted become tasks that may run, are changed, paused and stopped as later records
of them say, or are refused with a reason."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from learning.aggregation import largest_in_units
from learning.modular.structure import SHARED, blocks_of, owners
from learning.optimisers import state_sizes
from learning.strategies import unknown
from processors.desk import GlobalDesk
from processors.registry import Registry
from processors.standing import open_tasks
from processors.tenancy import Tenancy
from processors.zone_leader import FRACTION, HOLD
from schemas.facts import TaskAdmitted, TaskRefused, TaskUpdated
from schemas.task import Submission, fixed
from schemas.topics import DAY, GLOBAL, KEPT, read, task_topics, topic
from schemas.wire import Malformed
from streams.ledger import GlobalTask, most_slots
from streams.letters import dead_letter
from streams.models import Lost, assemble, fetch
from streams.processor import CreateTopics, Effect, Record

LARGEST = 2**19
"""Bytes of a submission: the facts that repeat it must fit a record as well."""
MOST_BLOCKS = 5_000
"""Of a model and its optimiser's state: one fact names them all, and must fit a record."""
MOST_DELTAS = 450_000
"""In an epoch of a zone: with these their losses and samples add up within 64 bits, even if half as many again are late."""

LONGEST = KEPT * 2 // 3
"""ms that a round may last: what was stored when it began must be there when it ends, though nobody was there for a third of that time."""


class Configurator:
    def __init__(self, desk: GlobalDesk, tenancy: Tenancy, registry: Registry):
        self.desk, self.tenancy, self.registry = desk, tenancy, registry
        self.submitted: dict[str, tuple[int, Submission]] = {}
        """Task -> the last record of it in `global.tasks`."""
        self.topics: set[str] = set()
        """Tasks whose topics are there."""
        self.looked: dict[tuple[str, int], str] = {}
        """By task and record, what is wrong with version 0 of its model or with its topics, or ""."""
        self.begun: dict[str, tuple[int, str]] = {}
        """By task that is about to be admitted, its record and its tenant: it counts against the tenant's quota already."""

    def forget(self) -> None:
        """The leadership changed: what was offered under the old token is decided by now, or void."""
        self.begun = {}

    def submission(self, record: Record) -> Iterator[Effect]:
        if record.tombstone:
            return  # what comes of a task the ledger says, whatever is kept of its record
        try:
            message = read(record.topic, record.value, record.headers)
            assert isinstance(message, Submission)
            if record.key != message.spec.task:
                raise Malformed(f"the key is not the task's name ({message.spec.task})")
            if len(record.value or b"") > LARGEST:
                raise Malformed(f"a submission has at most {LARGEST} bytes: give the model fewer tensors")
            self.submitted[message.spec.task] = (record.offset, message)
        except Malformed as e:
            yield dead_letter(self.desk.namespace, record, str(e), self.desk.name)

    def answer(self, asked: tuple, value: Any, error: str) -> None:
        match asked:
            case ("topics", str(task), int(offset)) if error:
                self.looked[task, offset] = f"its topics cannot be made: {error}"
            case ("topics", str(task), _):
                self.topics.add(task)
            case ("version 0", str(task), int(offset), _) if error:
                self.looked[task, offset] = error
            case ("version 0", str(task), int(offset), Submission() as s):
                self.looked[task, offset] = self._wrong(s, value)

    def _wrong(self, s: Submission, found: dict[str, bytes]) -> str:
        """What is wrong with the blocks of version 0, or "": one task's bad model must not stop a fleet."""
        try:
            size, wanted = len(assemble(s.manifest, found)), sum(s.layout.sizes)
        except Lost as e:
            return str(e)
        return "" if size == wanted else f"version 0 has {size} values, the layout {wanted}"

    def tidy(self) -> None:
        """Forget the records that are dealt with, and what was looked at for them, whoever leads."""
        globe = self.desk.globe
        for task, (offset, _) in list(self.submitted.items()):
            t = globe.tasks.get(task)
            if task in globe.over or max(t.submission if t else -1, _submission(globe.refused.get(task))) >= offset:
                del self.submitted[task]
        self.topics &= self.submitted.keys()
        self.looked = {k: why for k, why in self.looked.items() if k[0] in self.submitted}

    def react(self, now: int) -> Iterator[Effect]:
        globe, desk = self.desk.globe, self.desk
        self.tidy()
        for task, (offset, s) in list(self.submitted.items()):
            if t := globe.tasks.get(task):
                yield from self._update(t, offset, s, now)
                continue
            if not all(z in globe.zones for z in self._zones(s) if z in desk.zones):
                continue  # they are about to join; `submit` says what it waits for
            never = self._objection(s) or self._never(s)
            if never is None:
                continue  # the registry still reads which devices there are
            reason = never or self.looked.get((task, offset))
            if reason is None:
                if not desk.requests.asked(("version 0", task, offset, s)):
                    yield fetch(s.manifest, desk.requests, "version 0", task, offset, s)
            elif reason:
                fact = TaskRefused(desk.token, task, offset, reason)
                yield from desk.offers.make(("refused", task, offset), fact, now)
            elif self._waits(task, offset, s.spec.tenant):
                continue  # for the verdict on another, which may be the last that the quota allows
            elif task in self.topics:
                yield from desk.offers.make(("admitted", task), self._admitted(s), now)
            elif not desk.requests.asked(("topics", task, offset)):
                wanted = [
                    (t, globe.zones[z].partitions) for z in self._zones(s) for t in task_topics(desk.namespace, z, task)
                ]
                yield CreateTopics(desk.requests.new(("topics", task, offset)), tuple(wanted))

    def _never(self, s: Submission) -> str | None:
        """Why a new task can never be met as things are, or ""; None: that is not known yet."""
        spec = s.spec
        mine = least(s)
        cost = 4 * sum(mine) + spec.upload.bytes(mine)
        if why := self.tenancy.full(spec.tenant) or self.tenancy.costly(spec.tenant, cost, self._zones(s)):
            return why
        never = self.registry.never(self._zones(s), spec.needs.public)
        return f"needs.public: {never}" if never else never

    def _waits(self, task: str, offset: int, tenant: str) -> bool:
        """Whether tasks that are about to be admitted use up the tenant's quota; else this is one of them from here on."""
        globe = self.desk.globe
        self.begun = {n: b for n, b in self.begun.items() if self._undecided(n, b[0])}
        others = sum(of == tenant for name, (_, of) in self.begun.items() if name != task)
        may = globe.tenant(tenant).quota.tasks
        if may and len(open_tasks(globe, tenant)) + others >= may:
            return True
        self.begun[task] = offset, tenant
        return False

    def _undecided(self, task: str, offset: int) -> bool:
        """Whether this is still the record by which the task is to be admitted."""
        globe = self.desk.globe
        there = not globe.knows(task) and _submission(globe.refused.get(task)) < offset
        return there and self.submitted.get(task, (-1, None))[0] == offset

    def pending(self) -> set[str]:
        """Tasks that run, and of which there is a record to deal with."""
        globe = self.desk.globe
        return {
            task
            for task, (offset, _) in self.submitted.items()
            if (t := globe.tasks.get(task)) and max(t.submission, _submission(globe.refused.get(task))) < offset
        }

    def _update(self, t: GlobalTask, offset: int, s: Submission, now: int) -> Iterator[Effect]:
        """A later record of a task that runs."""
        desk, task = self.desk, s.spec.task
        reason = f"it is stopped by {t.by or 'someone'}" if t.wanted == "stop" else ""
        if not reason and (what := fixed(t.spec, s.spec)):
            reason = f"{what} cannot change while the task runs: submit a task of another name"
        if not reason and (s.layout, s.manifest, s.seed, s.structure) != (t.layout, t.first, t.seed, t.structure):
            reason = "its model cannot change while it runs: submit a task of another name"
        if not reason and s.spec != t.spec:  # what is only paused or stopped was good when it came
            reason = self._objection(s)
        if not reason and s.enough:
            if not all(desk.zone_readings[z].caught_up for z in s.enough if z in t.zones):
                return  # which round they have by now is not read yet
            reason = self._enough(t, s.enough)
        fact: TaskRefused | TaskUpdated = TaskUpdated(desk.token, task, offset, s.spec, s.wanted, s.by, s.enough)
        if reason:
            fact = TaskRefused(desk.token, task, offset, reason)
        yield from desk.offers.make(("updated", task, offset), fact, now)

    def _enough(self, t: GlobalTask, enough: Mapping[str, int]) -> str:
        """Why these rounds cannot be ended early, or "". The next one may be open though this has not read so far; later ones cannot."""
        for zone, n in enough.items():
            if zone not in t.zones:
                return f"it does not run in zone {zone}; it does in {', '.join(t.zones)}"
            here = self.desk.zones[zone].state.tasks.get(t.spec.task)
            if n > (last := here.round if here else 0) + 1:
                return f"round {n} in {zone} is not open: the last one is {last}"
        return ""

    def _zones(self, s: Submission) -> tuple[str, ...]:
        return s.spec.zones or tuple(sorted(self.desk.zones))

    def _objection(self, s: Submission) -> str:
        """Why the task can never run as it is, or ""."""
        spec = s.spec
        if strangers := [z for z in self._zones(s) if z not in self.desk.zones]:
            return f"zones {', '.join(strangers)} are not known; known: {', '.join(self.desk.zones)}"
        if why := unknown(spec.server):
            return f"the global coordinator cannot do its merge: {why}"
        models = topic(self.desk.namespace, GLOBAL, "models").name
        if s.manifest.topic != models:
            return f"version 0 lies in {s.manifest.topic}; it must lie in {models}"
        if s.manifest.version:
            return f"its model is called version {s.manifest.version}; the first one is version 0"
        if len(s.manifest.blocks) != len(s.layout.sizes):
            return f"the manifest names {len(s.manifest.blocks)} blocks, the layout {len(s.layout.sizes)}"
        if why := _modules(s):
            return f"modules: {why}"
        try:
            largest = largest_in_units(spec.limits.largest, spec.limits.unit)
            fraction = FRACTION if spec.rounds.staleness else 0
            most = most_slots(largest, len(s.layout.sizes), spec.rounds.staleness, fraction)
        except ValueError as e:
            return f"limits: {e}"
        if spec.rounds.places > most:
            return (
                f"limits: a round of this model can have {most} slots (64-bit sums, 512 KiB bitmaps), and it wants "
                f"{spec.rounds.places} places: lower limits.largest or rounds.demand"
            )
        if spec.rounds.atomic and (most := delta_bytes(s)) > HOLD:
            return f"rounds.atomic: a delta of this model may have {most} bytes, and a shard holds {HOLD} at most"
        if spec.rounds.partial:
            try:
                owners(s.layout)
            except ValueError as e:
                return f"rounds.partial: devices could not train parts of this model: {e}"
        if spec.rounds.refill > spec.rounds.places:
            return f"rounds.refill ({spec.rounds.refill}) is more than there are places ({spec.rounds.places})"
        named = len(s.layout.sizes) + len(state_sizes(spec.server.working(spec.server.at), sum(s.layout.sizes)))
        if named > MOST_BLOCKS:
            return (
                f"a fact would name {named} blocks of model and optimiser state, and {MOST_BLOCKS} fit: make the model "
                "smaller, or choose a server.optimiser with less state"
            )
        n = len(self._zones(s))
        for name in ("zones", "enough"):
            if (wanted := getattr(spec.epochs, name)) > n:
                return f"epochs.{name} ({wanted}) is more than the {n} zones of the task"
        if 0 < spec.epochs.window_s < spec.rounds.lease_s:
            return (
                f"epochs.window_s ({spec.epochs.window_s:g}) is shorter than rounds.lease_s ({spec.rounds.lease_s:g}), so no round "
                "would ever open in it: make it longer, or the lease shorter"
            )
        if 1000 * spec.rounds.deadline_s > LONGEST:
            return (
                f"rounds.deadline_s ({spec.rounds.deadline_s:g}) is more than {LONGEST // 1000}: partial sums are kept for "
                f"{KEPT // DAY} days, and a round must be over before its first ones are gone"
            )
        if spec.rounds.places * spec.epochs.rounds > MOST_DELTAS:
            return f"a zone's epoch can have {MOST_DELTAS} deltas: lower rounds.demand or epochs.rounds"
        return ""

    def _admitted(self, s: Submission) -> TaskAdmitted:
        offset = self.submitted[s.spec.task][0]
        return TaskAdmitted(self.desk.token, s.spec, s.layout, s.manifest, self._zones(s), s.seed, offset, s.structure)


def _submission(refused: TaskRefused | None) -> int:
    return refused.submission if refused else -1


def _modules(s: Submission) -> str:
    """What is wrong with what a submission says of its modules, or ""."""
    if (s.spec.modules is None) != (s.structure is None):
        return "a task that has them says what its model's parts cost, and no other does: submit it by the command"
    if s.structure is None:
        return ""
    try:
        values = sum(s.layout.sizes[b] for b in blocks_of(s.layout, s.structure.whole))
    except ValueError as e:
        return f"its blocks are not those of its structure: {e}"
    if values != (said := s.structure.cost(s.structure.whole).values):
        return f"the model's blocks have {values} values, and its parts are said to have {said}"
    return ""


def least(s: Submission | GlobalTask) -> Sequence[int]:
    """The sizes of the blocks that a device of the task has at least: all; or, where it may train a part, those that all parts have."""
    sizes = s.layout.sizes
    if not s.spec.rounds.partial:
        return sizes
    names = owners(s.layout)
    shared = [n for n, name in zip(sizes, names, strict=True) if name == SHARED]
    return shared if shared and len(shared) < len(sizes) else [min(sizes)]


def delta_bytes(s: Submission) -> int:
    """How many bytes a delta of the task has at most, as its codec writes it."""
    return s.spec.upload.bytes(s.layout.sizes)
