"""A scenario: zones, devices and tasks to simulate, as a TOML file says them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from olearning.errors import USAGE, Trouble
from olearning.tasks import read_toml
from schemas.misfit import misfit
from schemas.sharing import Quota, Sharing, Tenant
from schemas.task import BadTask, TaskSpec, no_strangers, parse
from schemas.topics import BadName, check_zone
from schemas.wire import MOST_SEED, Count, Scalar, Slug

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Hours = Annotated[float, msgspec.Meta(ge=-12, le=14)]
Mechanism = Literal["contribution", "progress", "boost", "quality", "forecast"]
"""What OLearning's selector can do without: see `olearning/without.py`."""
BY = "the scenario"
Least1 = Annotated[int, msgspec.Meta(ge=1)]


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A zone: its devices, and its hours from UTC; or by name the places where they live, in equal parts, with their hours."""

    devices: Annotated[int, msgspec.Meta(ge=0)]
    utc_offset: Hours | Annotated[dict[Slug, Hours], msgspec.Meta(min_length=1)] = 0.0

    @property
    def homes(self) -> dict[str, float]:
        return self.utc_offset if isinstance(self.utc_offset, dict) else {}


class Phones(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The devices of all zones: what `olearning fleet` has as options. `day_seconds` 0: always free; times of the virtual clock."""

    day_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    day: str = "nights"
    capacity: str = "steady"
    bandwidth: str = ""
    phones: str = ""
    travel: Share = 0.0
    busy: Share = 0.0
    drop: Share = 0.0
    slow: Share = 0.0
    late: Share = 0.0
    interrupted: Share = 0.0
    resend: Share = 0.0


class Most(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant may have at most; 0: no limit."""

    tasks: Count = 0
    devices: Count = 0
    bytes: Count = 0


class Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant: its weight where tenants share by weight, and its quota."""

    tenant: Slug
    weight: Annotated[float, msgspec.Meta(gt=0, le=10**6)] = 1.0
    quota: Most = Most()

    def message(self) -> Tenant:
        most = self.quota
        return Tenant(self.tenant, self.weight, Quota(most.tasks, most.devices, most.bytes), BY)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which policy devices are shared, with its settings."""

    policy: Slug = "reward"
    args: dict[str, Scalar] = {}

    def message(self) -> Sharing:
        return Sharing(self.policy, self.args, BY)


class Clock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fine the virtual time is: every role looks at the clock every `tick_ms`; the rest follows from it."""

    tick_ms: Least1 = 100


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to simulate. `tasks`: as in task files. It ends when they all have, or after `days` (0: never). `without`: what
    OLearning's selector does without. `sharing`, `tenants`: as in `global.tenants`, from the start on."""

    zones: dict[str, Place]
    tasks: tuple[dict[str, Any], ...]
    devices: Phones = Phones()
    sharing: Policy | None = None
    tenants: tuple[Owner, ...] = ()
    clock: Clock = Clock()
    aggregators: Least1 = 1
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    evaluate: bool = True
    without: tuple[Mechanism, ...] = ()
    days: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=MOST_SEED)] = 0


@dataclass(frozen=True)
class Loaded:
    """A scenario with its tasks, checked."""

    scenario: Scenario
    specs: tuple[TaskSpec, ...]
    offsets: Mapping[str, float] = field(default_factory=dict)

    def options(self, zone: str, first: int) -> dict[str, str]:
        """The options of a zone's fleet."""
        s = self.scenario
        phones: Mapping[str, Scalar] = msgspec.to_builtins(s.devices)
        given = {k.replace("_", "-"): str(v) for k, v in phones.items() if v != ""}
        offsets, homes = _hours(self.offsets), _hours(s.zones[zone].homes)
        count = str(s.zones[zone].devices)
        return given | {"count": count, "first": str(first), "offsets": offsets, "homes": homes, "seed": str(s.seed)}


def _hours(places: Mapping[str, float]) -> str:
    return ",".join(f"{place}={h:g}" for place, h in places.items())


def load(path: Path) -> Loaded:
    """The scenario in a file. Raises `Trouble` that names what is wrong and where."""
    return check(read_toml(path), str(path))


def check(tree: dict[str, Any], where: str) -> Loaded:
    """The scenario that a file says. Raises `Trouble` that names what is wrong, and `where`."""
    try:
        no_strangers(tree, Scenario)
        s = msgspec.convert(tree, Scenario)
        specs = tuple(parse(tree) for tree in s.tasks)
        for zone in s.zones:
            check_zone(zone)
    except msgspec.ValidationError as e:
        raise Trouble(f"{where}: {misfit(e)}", USAGE) from None
    except (BadTask, BadName) as e:
        raise Trouble(f"{where}: {e}", USAGE) from None
    if s.days and not s.devices.day_seconds:
        raise Trouble(f"{where}: days ({s.days:g}) need a length: set devices.day_seconds", USAGE)
    names = [spec.task for spec in specs]
    if not s.zones or not specs or len(set(names)) < len(names):
        raise Trouble(f"{where}: a scenario has at least one zone and one task, and each task a name of its own", USAGE)
    if len({t.tenant for t in s.tenants}) < len(s.tenants):
        raise Trouble(f"{where}: a tenant is named twice", USAGE)
    if s.devices.travel and (many := [z for z, p in s.zones.items() if p.homes]):
        raise Trouble(
            f"{where}: devices of {', '.join(many)} live at several UTC offsets: set devices.travel to 0", USAGE
        )
    return Loaded(s, specs, {z: 0.0 if isinstance(h := p.utc_offset, dict) else h for z, p in s.zones.items()})
