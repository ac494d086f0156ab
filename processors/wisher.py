"""Setting what a tenant may have, or the sharing policy: a record in `global.tenants`, then the coordinator's verdict in the ledger."""

from collections.abc import Callable, Iterator

from processors.tenancy import dealt, holds
from schemas.sharing import Quota, Sharing, Tenant
from schemas.topics import GLOBAL, read, topic
from schemas.wire import Malformed
from streams.ledger import Globe
from streams.processor import Answer, Effect, Ends, Follow, Input, Membership, Record, Requests, Stop, send
from streams.reading import WRONG, Reading

Wish = Callable[[Tenant], Tenant] | Sharing
"""What becomes of what holds for a tenant; or the policy."""


class Wisher:
    """Reads what holds for the key, sends what is to hold, and stops with the verdict: ok if it does."""

    membership: Membership | None = None
    tick = 100

    def __init__(self, namespace: str, key: str, wish: Wish, patience: int = 30_000):
        self.name, self.key, self.wish, self.patience = f"set-{key.strip('.')}", key, wish, patience
        self.tenants = topic(namespace, GLOBAL, "tenants")
        self.reading = Reading(namespace, GLOBAL, Globe())
        self.requests = Requests()
        self.end: int | None = None
        self.read = 0
        self.last: tuple[int, Tenant] | None = None
        """The tenant's last record."""
        self.sent: Tenant | Sharing | None = None
        self.submission = -1
        self.began = 0

    def start(self, now: int) -> Iterator[Effect]:
        self.began = now
        yield from self.reading.start()
        yield Ends(self.requests.new(("end",)), self.tenants.name)

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            yield from self._handle(event)
        except WRONG as e:
            yield Stop(str(e))
            return
        yield from self._next(now)

    def _handle(self, event: Input) -> Iterator[Effect]:
        match event:
            case Record(topic=name) if name == self.tenants.name:
                self._record(event)
            case Record():
                yield from self.reading.record(event)
            case Answer() if (effects := self.reading.answer(event)) is not None:
                yield from effects
            case Answer(error=error) if error:
                yield Stop(f"{self.name}: {error}")
            case Answer(tag, value):
                match self.requests.close(tag):
                    case ("end",):
                        self.end = value[0]
                        yield Follow(self.tenants.name, 0, 0)
                    case ("sent",):
                        self.submission = value[1]

    def _record(self, record: Record) -> None:
        self.read = record.offset + 1
        try:
            message = read(record.topic, record.value, record.headers)
        except Malformed:
            return  # the coordinator says so
        if isinstance(message, Tenant) and record.key == message.tenant == self.key and not self.sent:
            self.last = record.offset, message

    def _next(self, now: int) -> Iterator[Effect]:
        globe = self.reading.state
        ready = self.reading.caught_up and self.end is not None and self.read >= self.end
        if ready and self.sent is None:
            self.sent = self.wish if isinstance(self.wish, Sharing) else self.wish(self._last(globe))
            yield send(self.tenants, self.sent, self.key, tag=self.requests.new(("sent",)))
        elif 0 <= self.submission <= dealt(globe, self.key):
            yield self._verdict(globe)
        elif now - self.began > self.patience:
            yield Stop(
                f"no verdict within {self.patience / 1000:g} s: does the global coordinator run (olearning run global)?"
            )

    def _last(self, globe: Globe) -> Tenant:
        """What holds for the tenant, or is to: its last record, unless that is dealt with; then what the ledger says."""
        if self.last and self.last[0] > dealt(globe, self.key):
            return self.last[1]
        return globe.tenant(self.key)

    def _verdict(self, globe: Globe) -> Stop:
        assert self.sent
        now: Tenant | Sharing = holds(globe) if isinstance(self.sent, Sharing) else globe.tenant(self.key)
        if now == self.sent:  # whoever else said so, and however often it landed
            return Stop(said(now), ok=True)
        refused = globe.wishes.get(self.key)
        if refused and refused.submission >= self.submission:
            return Stop(f"it stays as it was: {refused.reason}")
        return Stop(f"{now.by or 'someone'} said otherwise right after: {said(now)}")


def said(holds: Tenant | Sharing) -> str:
    """What holds, in words."""
    if isinstance(holds, Sharing):
        args = ", ".join(f"{k}={v}" for k, v in sorted(holds.args.items()))
        return f"devices are shared by {holds.policy}" + (f" ({args})" if args else "")
    return f"tenant {holds.tenant}: weight {holds.weight:g}, {quota_words(holds.quota)}"


def quota_words(quota: Quota) -> str:
    """What a tenant may have at most, in words."""
    limits = ((quota.tasks, "open task", ""), (quota.devices, "device", " at work"), (quota.bytes, "byte", " a day"))
    return ", ".join(
        f"{n:,} {what}{'' if n == 1 else 's'}{more}" if n else f"{what}s{more} without limit"
        for n, what, more in limits
    )
