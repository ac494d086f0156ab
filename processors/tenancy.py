"""The configurator's other half (Propius' job manager): what tenants may have, and the policy by which devices are shared, as records of
`global.tenants` say, become facts or are refused with a reason; whether a tenant may have one task more; tenants that are silent.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

from learning.sharing.policy import unknown
from processors.desk import GlobalDesk
from processors.offers import AGAIN
from processors.quotas import homes
from processors.registry import EVERY, REPEAT
from processors.standing import open_tasks, standings
from schemas.facts import SharingSet, TaskUpdated, TenantSet, WishRefused
from schemas.messages import TenantsReport
from schemas.sharing import SHARING, UNSAID, Sharing, Tenant
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed
from streams.ledger import Globe, silent
from streams.letters import dead_letter
from streams.processor import Effect, Ends, Record, send

MOST = 2**63 - 1
"""Of a quota: what every reader of a ledger can count to."""
LARGEST = 2**16
"""Bytes of a record, and `REASON` characters of why it is refused: the facts that repeat it must fit a record."""
REASON = 2_000
WISHES = 1_000
"""Records of one tenant that wait to be dealt with; of more, the last."""


class Tenancy:
    def __init__(self, desk: GlobalDesk):
        self.desk = desk
        self.tasks = topic(desk.namespace, GLOBAL, "tasks")
        self.metrics = topic(desk.namespace, GLOBAL, "metrics")
        self.waiting: dict[str, deque[tuple[int, Tenant | Sharing]]] = {}
        """By key, records that are not dealt with."""
        self.read = 0
        """The next record of `global.tasks`."""
        self.ends: dict[str, tuple[int, int]] = {}
        """By task whose tenant seems silent, where `global.tasks` ended when that was asked last, and when (ms)."""
        self.said: tuple[int, TenantsReport | None] = (0, None)

    def forget(self) -> None:
        """The leadership changed."""
        self.ends, self.said = {}, (0, None)

    # ------------------------------------------------------------------ what tenants may have

    def record(self, record: Record) -> Iterator[Effect]:
        """Of `global.tenants`."""
        if record.tombstone:
            return  # what holds the ledger says
        try:
            message = read(record.topic, record.value, record.headers)
            assert isinstance(message, Tenant | Sharing)
            if not record.key or len(record.key) > 200:
                raise Malformed("the key is no tenant's name")
            if len(record.value or b"") > LARGEST:
                raise Malformed(f"what a tenant says has at most {LARGEST} bytes")
        except Malformed as e:
            yield dead_letter(self.desk.namespace, record, str(e), self.desk.name)
            return
        queue = self.waiting.setdefault(record.key, deque(maxlen=WISHES))
        self._drop(record.key)
        queue.append((record.offset, message))

    def _drop(self, key: str) -> None:
        """What is dealt with."""
        queue = self.waiting[key]
        while queue and queue[0][0] <= self.desk.globe.dealt(key):
            queue.popleft()

    def react(self, now: int) -> Iterator[Effect]:
        """Each key's records in their order, one at a time."""
        for key in list(self.waiting):
            self._drop(key)
            if not self.waiting[key]:
                del self.waiting[key]
                continue
            offset, wish = self.waiting[key][0]
            yield from self.desk.offers.make(("wish", key, offset), self._fact(key, offset, wish), now)

    def _fact(self, key: str, offset: int, wish: Tenant | Sharing) -> TenantSet | SharingSet | WishRefused:
        token = self.desk.token
        if reason := objection(key, wish):
            return WishRefused(token, offset, key, reason[:REASON])
        return TenantSet(token, offset, wish) if isinstance(wish, Tenant) else SharingSet(token, offset, wish)

    # ------------------------------------------------------------------ what that means for tasks

    def full(self, tenant: str) -> str:
        """Why the tenant may not have one open task more, or ""."""
        may, has = self.desk.globe.tenant(tenant).quota.tasks, open_tasks(self.desk.globe, tenant)
        if not may or len(has) < may:
            return ""
        named = ", ".join(has[:5]) + (f" and {len(has) - 5} more" if len(has) > 5 else "")
        return (
            f"tenant {tenant} may have {may} open {'task' if may == 1 else 'tasks'} and has {len(has)} ({named}): wait until one has "
            f"ended, stop one, or raise the quota (olearning tenant set {tenant} --tasks {len(has) + 1})"
        )

    def costly(self, tenant: str, cost: int, zones: tuple[str, ...]) -> str:
        """Why no device could ever take part in a round in which it moves so many bytes, or ""."""
        may = self.desk.globe.tenant(tenant).quota.bytes
        n = len({*homes(self.desk.globe, tenant), *zones})
        if not may or cost <= may // n:
            return ""
        return (
            f"a device of the task may move {cost:,} bytes in a round (the model and its delta), and of the {may:,} a day that tenant "
            f"{tenant} may have each of {n} zones has its part, {may // n:,}: choose a smaller model or upload.codec, or raise the quota (olearning tenant set)"
        )

    def silence(self, now: int, pending: set[str]) -> Iterator[Effect]:
        """Stop the tasks whose tenants are silent. `pending`: tasks of which there is a record to deal with.

        A word may lie in `global.tasks` unread, however long nobody led: so that is read first to where it ends once the time is
        up. Whether it is up is the ledger's word (`streams.ledger.silent`); the clock here only says when to ask.
        """
        for task, t in self.desk.globe.tasks.items():
            end, asked = self.ends.get(task, (0, -AGAIN))
            if t.wanted == "stop" or task in pending or not silent(t, now):
                self.ends.pop(task, None)
            elif now - asked >= AGAIN:
                if not self.desk.requests.asked(("silence", task)):
                    yield Ends(self.desk.requests.new(("silence", task)), self.tasks.name)
            elif self.read >= end:
                by = f"the silence of its tenant {t.spec.tenant}, of which nothing was heard for {t.spec.silent_s:g} s"
                fact = TaskUpdated(self.desk.token, task, t.submission, t.spec, "stop", by)
                yield from self.desk.offers.make(("silence", task), fact, now)

    def answer(self, asked: tuple, value: Any, now: int) -> None:
        _, task = asked
        self.ends[task] = value[0], now

    # ------------------------------------------------------------------ how they stand

    def report(self, now: int) -> Iterator[Effect]:
        """How tenants stand, if that changed since it was said last."""
        at, last = self.said
        if now - at < EVERY:
            return
        globe = self.desk.globe
        tenants = standings(globe, {z: ledger.state for z, ledger in self.desk.zones.items()}, now)
        new = TenantsReport(self.desk.name, now, holds(globe).policy, tenants)
        if last is None or (new.policy, new.tenants) != (last.policy, last.tenants) or now - last.at >= REPEAT:
            last = new
            yield send(self.metrics, new, self.desk.name)
        self.said = now, last


def holds(globe: Globe) -> Sharing:
    """By which policy devices are shared."""
    return globe.sharing.sharing if globe.sharing else UNSAID


def objection(key: str, wish: Tenant | Sharing) -> str:
    """Why the record under this key cannot hold, or ""."""
    match wish:
        case Tenant(tenant=name) if name != key:
            return f"it is about tenant {name}, and its key is {key}: the key is the tenant's name"
        case Tenant(quota=quota):
            for name in quota.__struct_fields__:
                if (n := getattr(quota, name)) > MOST:
                    return f"a quota of {n} {name} is more than anyone can count ({MOST}); for no limit say 0"
        case Sharing() if key != SHARING:
            return f"a sharing policy has the key {SHARING}, not {key}"
        case Sharing(policy=policy, args=args):
            return unknown(policy, args)
    return ""
