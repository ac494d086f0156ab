"""Setting what a tenant may have, or the sharing policy: a record in `global.tenants`, then the coordinator's verdict in the ledger."""

from collections.abc import Callable, Iterator

from processors.speaker import Speaker
from processors.tenancy import holds
from schemas.sharing import Quota, Sharing, Tenant
from schemas.wire import Message
from streams.ledger import Globe
from streams.processor import Effect, Record, Stop

Wish = Callable[[Tenant], Tenant] | Sharing
"""What becomes of what holds for a tenant; or the policy."""


class Wisher(Speaker):
    """Reads what holds for the key, sends what is to hold, and stops with the verdict: ok if it does."""

    def __init__(self, namespace: str, key: str, wish: Wish, patience: int = 30_000):
        super().__init__(namespace, "tenants", f"set-{key.strip('.')}", patience)
        self.key, self.wish = key, wish
        self.last: tuple[int, Tenant] | None = None
        """The tenant's last record."""
        self.sent: Tenant | Sharing | None = None

    def _hear(self, record: Record, message: Message) -> None:
        if isinstance(message, Tenant) and record.key == message.tenant == self.key and not self.sent:
            self.last = record.offset, message

    def _next(self, now: int) -> Iterator[Effect]:
        globe = self.reading.state
        if self._ready and self.sent is None:
            self.sent = self.wish if isinstance(self.wish, Sharing) else self.wish(self._last(globe))
            yield self._say(self.sent, self.key)
        elif 0 <= self.submission <= globe.dealt(self.key):
            yield self._verdict(globe)
        elif now - self.began > self.patience:
            yield Stop(
                f"no verdict within {self.patience / 1000:g} s: does the global coordinator run (olearning run global)?"
            )

    def _last(self, globe: Globe) -> Tenant:
        """What holds for the tenant, or is to: its last record, unless that is dealt with; then what the ledger says."""
        if self.last and self.last[0] > globe.dealt(self.key):
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
