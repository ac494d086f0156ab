"""How tenants stand: what each has of what it may have. Pure functions of the folds, for the plane's metrics and for who looks on."""

from collections.abc import Mapping

from processors.quotas import working
from schemas.messages import Standing
from schemas.topics import DAY
from streams.ledger import GlobalTask, Globe, Zone


def open_tasks(globe: Globe, tenant: str) -> list[str]:
    """A tenant's tasks that have not ended, as they were admitted."""
    mine = [t for t in globe.tasks.values() if t.spec.tenant == tenant]
    return [t.spec.task for t in sorted(mine, key=_admitted)]


def _admitted(t: GlobalTask) -> int:
    return t.admitted_at


def standings(globe: Globe, zones: Mapping[str, Zone], now: int) -> dict[str, Standing]:
    """By tenant, of those that have something open or were ever said something of, as of `now` (ms)."""
    at_work = [working(z) for z in zones.values()]
    open_ = {t.spec.tenant for t in globe.tasks.values()}
    out = {}
    for name in sorted(open_ | globe.tenants.keys()):
        said = globe.tenant(name)
        out[name] = Standing(
            weight=said.weight,
            quota=said.quota,
            tasks=len(open_tasks(globe, name)),
            devices=sum(by.get(name, 0) for by in at_work),
            bytes=sum(z.spent_on(name, now // DAY) for z in zones.values()),
        )
    return out
