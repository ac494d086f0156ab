"""What of a tenant's quota is a zone's, and how much of it is used. Pure functions of the two folds.

A quota holds for the whole globe, and zones admit devices without asking one another. So it is split: each zone in which the tenant
has tasks that take part in an epoch (or wait for one) has the same part of it, and the first ones, by name, one more where it does
not come out even. Within a zone nothing goes beyond its part, since admissions are one chain. When parts become smaller (a task
begins in another zone, the quota is lowered) devices that work already go on, so for as long as their slots last, or that day, all
zones together may have more than the quota. So they may where it is smaller than the number of zones: a part is 1 at least.

A task that is paused keeps no part from those that run. Rounds of it that were open are finished with the part that their zone had; only
the zone knows when, so until then all zones together may have more than the quota, too.
"""

from functools import cached_property

from schemas.sharing import Quota
from schemas.topics import DAY
from streams.ledger import Globe, Zone, at_work

SOON, LATER = 5_000, 60_000
"""ms after which a refused device may try again: until a device's run may be over; and where it takes long, but people may change it."""


def homes(globe: Globe, tenant: str, paused: bool = True) -> list[str]:
    """The zones in which a tenant has open tasks; `paused`: those that are paused, too."""
    return sorted(
        {
            zone
            for t in globe.tasks.values()
            if t.spec.tenant == tenant and (paused or t.wanted != "pause")
            for zone in (t.part if t.state in ("open", "closed") else t.zones)
        }
    )


def part(globe: Globe, tenant: str, zone: str) -> Quota:
    """The zone's part of a tenant's devices and bytes. 0 is no limit there too: a part of a quota is at least 1."""
    quota, zones = globe.tenant(tenant).quota, homes(globe, tenant, paused=False)
    if zone not in zones:
        zones = homes(globe, tenant)
    if zone not in zones:
        zones = sorted([*zones, zone])
    i, n = zones.index(zone), len(zones)
    return Quota(
        quota.tasks, *(max(1, whole // n + (i < whole % n)) if whole else 0 for whole in (quota.devices, quota.bytes))
    )


def working(zone: Zone) -> dict[str, int]:
    """By tenant, the devices at work in a zone."""
    out: dict[str, int] = {}
    for t in zone.tasks.values():
        r = t.rounds.get(t.round)
        if r and r.opened and (n := at_work(t)):
            out[r.opened.tenant] = out.get(r.opened.tenant, 0) + n
    return out


class Allowance:
    """What tenants may still have in a zone at `now` (ms): as of the folds, and of what was said of `ended` and `taken` since."""

    def __init__(self, globe: Globe, zone: Zone, name: str, now: int):
        self.globe, self.zone, self.name, self.now = globe, zone, name, now
        self._parts: dict[str, Quota] = {}
        self._more: dict[str, int] = {}
        """By tenant, devices at work since the folds."""
        self._moved: dict[str, int] = {}
        """By tenant, bytes since."""

    @cached_property
    def granted(self) -> dict[str, int]:
        """By tenant, the devices at work as of the fold."""
        return working(self.zone)

    def part(self, tenant: str) -> Quota:
        if tenant not in self._parts:
            self._parts[tenant] = part(self.globe, tenant, self.name)
        return self._parts[tenant]

    def ended(self, tenant: str, n: int) -> None:
        """So many devices of it are not at work any more."""
        self._more[tenant] = self._more.get(tenant, 0) - n

    def taken(self, tenant: str, cost: int) -> None:
        """A device of it was admitted."""
        self._more[tenant] = self._more.get(tenant, 0) + 1
        self._moved[tenant] = self._moved.get(tenant, 0) + cost

    def over(self, tenant: str, cost: int) -> tuple[str, int]:
        """Which of the tenant's quotas stands against one device more, whose model and delta have `cost` bytes, in words, and in how
        many ms it may not any more; or ("", 0)."""
        quota = self.part(tenant)
        if quota.devices and self.granted.get(tenant, 0) + self._more.get(tenant, 0) >= quota.devices:
            why = f"quota of tenant {tenant}: its {quota.devices} devices at once in this zone are at work"
            return why, SOON
        if quota.bytes:
            spent = self.zone.spent_on(tenant, self.now // DAY) + self._moved.get(tenant, 0)
            if spent + cost > quota.bytes:
                why = f"quota of tenant {tenant}: {spent} of {quota.bytes} bytes a day in this zone are used, a device takes {cost}"
                return why, min(LATER, DAY - self.now % DAY)
        return "", 0
