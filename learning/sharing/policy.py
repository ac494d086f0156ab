"""What a sharing policy is: from the tasks that want devices, and the devices that came lately, to a plan.

    @policy("mine", settings={"bias": 0.5})
    def mine(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]: ...

A policy is pure: the same market gives the same rules, whoever asks. `Market.seed` is for those that draw. Rules name only tasks of
the market; whether a device meets a task's own needs is asked again when it registers, so a rule may list tasks that only some of its
devices can do. It raises `ValueError` for settings that cannot be, for a market without jobs too: that is how they are tried.

One's own comes by `--load`, or in an installed package as an entry point of the group `olearning.policies`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from types import MappingProxyType

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from learning.plugins import names, plugin
from schemas.sharing import ABILITIES, Bounds, Rule, SharingPlan
from schemas.wire import SLUG, Scalar

GROUP = "olearning.policies"
"""The entry points that are looked up when no policy of a name is known."""
MOST = 900_000
"""Bytes of a plan: a record holds 1 MB with every default of Kafka's."""


def able(devices: npt.NDArray[np.float64], needs: Bounds) -> npt.NDArray[np.bool_]:
    """Which of these devices meet the bounds, shape (n,): their abilities are of shape (n, 5), in the order of `ABILITIES`."""
    out = np.ones(len(devices), np.bool_)
    for name, least in needs.items():
        out &= devices[:, ABILITIES.index(name)] >= least
    return out


@dataclass(frozen=True)
class Job:
    """A task with a round open that wants devices.

    `wanted`: devices of the round, `got`: those it has. `since`: what orders registrations, the ledger
    offset that admitted it. `rounds` done of `of` (0: not known); `ran_s` since its first round opened; `service`: device-rounds it had.
    `fill_s`, `serve_s`: how long its last rounds took to get their devices, and from then to their results (0: none yet). `waits_s`:
    how long this round has been without all its devices. `fill_within_s`: the round's scheduling time-out; `deadline_s`: for all of
    the round (0: none).
    """

    task: str
    tenant: str
    needs: Bounds
    wanted: int
    got: int
    since: int
    rounds: int = 0
    of: int = 0
    ran_s: float = 0.0
    service: int = 0
    round: int = 0
    fill_s: float = 0.0
    serve_s: float = 0.0
    waits_s: float = 0.0
    fill_within_s: float = 0.0
    deadline_s: float = 0.0

    @property
    def open(self) -> int:
        return max(0, self.wanted - self.got)


@dataclass(frozen=True)
class Market:
    """All that a policy may look at. `jobs` have room, those of tenants above their quota are left out. `devices`: abilities of the
    distinct devices that checked in lately, float64 of shape (n, 5): cpu, ram, memory, os, bandwidth, in the units of `[needs]`. `weights`
    and `granted` (devices at work now) by tenant."""

    jobs: Sequence[Job]
    devices: npt.NDArray[np.float64]
    weights: Mapping[str, float]
    granted: Mapping[str, int]
    seed: int = 0

    def able(self, needs: Bounds) -> npt.NDArray[np.bool_]:
        """Which of the devices meet these bounds, shape (n,)."""
        return able(self.devices, needs)

    def draw(self, *what: str | int) -> int:
        """From 0 to 2^64 - 1, the same each time for the same seed and names."""
        return xxhash.xxh3_64_intdigest(" ".join(map(str, what)).encode(), self.seed)


Function = Callable[[Mapping[str, Scalar], Market], Sequence[Rule]]
NOBODY = Market(jobs=(), devices=np.zeros((0, len(ABILITIES))), weights={}, granted={})


class PolicyFailed(ValueError):
    """A policy that is not known here, raised something, or gave what cannot be; the text says which."""


@dataclass(frozen=True)
class _Known:
    function: Function
    settings: Mapping[str, Scalar]
    chosen: bool = False


_known: dict[str, _Known] = {}


def policy(name: str, settings: Mapping[str, Scalar] = {}) -> Callable[[Function], Function]:
    """Make a function known as the sharing policy `name`, with these settings by default.

    Raises `ValueError` for a name that is taken or no slug, or settings that are not text, numbers or yes and no.
    """
    if not re.search(SLUG, name):
        raise ValueError(f"a policy's name has a-z, 0-9 and '-', 63 characters at most, and {name!r} has not")
    if name in _known:
        raise ValueError(f"there is a sharing policy {name!r} already")
    for key, value in settings.items():
        if not isinstance(value, str | int | float):
            raise ValueError(f"policy {name!r}: settings are text, numbers or yes and no, and {key} is {value!r}")

    def register(function: Function) -> Function:
        _known[name] = _Known(function, dict(settings))
        return function

    return register


def known() -> list[str]:
    """The policies that can be named here, those of installed packages among them."""
    return sorted({*_known, *names(GROUP)})


def _find(name: str) -> _Known:
    """Raises `ValueError` in words."""
    if name not in _known and (found := plugin(GROUP, name)) and name not in _known:  # its import may register it
        policy(name)(found)
    if name not in _known:
        raise ValueError(
            f"no sharing policy {name!r} is known here; known: {', '.join(known())}. If it is one of your own, start this role "
            "with --load and the file that has it"
        )
    return _known[name]


def _settings(name: str, of: _Known, args: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """All settings, those that were not given by their default. A whole number will do for a float. Raises `ValueError`."""
    full = dict(of.settings)
    for key, value in args.items():
        if key not in full:
            has = f"it has {', '.join(full)}" if full else "it has none"
            raise ValueError(f"sharing policy {name!r} has no setting {key!r}; {has}")
        kind = type(full[key])
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"sharing policy {name!r}: {key} is like {full[key]!r}, not {value!r}")
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"sharing policy {name!r}: {key} is a number, not {value}")
        full[key] = value
    return full


def rules(name: str, args: Mapping[str, Scalar], market: Market) -> tuple[Rule, ...]:
    """What a policy says for a market, unchecked. Raises `PolicyFailed` whatever its code does."""
    try:
        found = _find(name)
        settings = _settings(name, found, args)
    except ValueError as e:
        raise PolicyFailed(str(e)) from e
    try:
        return tuple(found.function(settings, market))
    except (Exception, SystemExit) as e:  # anybody's code: whatever it raises
        if isinstance(e, PolicyFailed):
            raise
        what = f": {e}" if type(e) is ValueError else f" failed: {type(e).__name__}: {e}"
        raise PolicyFailed(f"sharing policy {name!r}{what}") from e


def unknown(name: str, args: Mapping[str, Scalar]) -> str:
    """Why this process cannot share devices so, and what to do, or "". The policy is tried on a market without jobs."""
    try:
        plan(name, args, NOBODY, "zone", 0)
    except PolicyFailed as e:
        return str(e)
    return ""


def plan(name: str, args: Mapping[str, Scalar], market: Market, zone: str, at: int) -> SharingPlan:
    """The plan of a policy for a market, as a zone announces it; `at`: the ledger offset it follows from.

    Raises `PolicyFailed` for a policy that is not known, settings it has not, and for what a policy must not give.
    """
    shown = market.devices.view()
    shown.flags.writeable = False
    weights, granted = MappingProxyType(dict(market.weights)), MappingProxyType(dict(market.granted))
    sure = replace(market, jobs=tuple(market.jobs), devices=shown, weights=weights, granted=granted)
    said = rules(name, args, sure)
    made = SharingPlan(zone=zone, at=at, policy=name, rules=said, chosen=_known[name].chosen)
    try:
        data = msgspec.msgpack.encode(made)
        made = msgspec.msgpack.decode(data, type=SharingPlan)  # structs check what is in them when they are read
    except (Exception, SystemExit) as e:  # what it gave may be anything
        raise PolicyFailed(f"sharing policy {name!r} gave what is no list of rules: {e}") from e
    if len(data) > MOST:
        raise PolicyFailed(
            f"sharing policy {name!r} gave a plan of {len(data)} bytes, and no more than {MOST} can be sent"
        )
    tasks = {job.task for job in market.jobs}
    for n, rule in enumerate(made.rules):
        if why := _wrong(rule, tasks):
            raise PolicyFailed(f"sharing policy {name!r}, rule {n}: {why}")
    return made


def _wrong(rule: Rule, tasks: set[str]) -> str:
    """What a rule has that it must not have, or ""."""
    for bounds in (*rule.meets, *rule.lacks):
        if strangers := bounds.keys() - set(ABILITIES):
            return f"{min(strangers)} is nothing devices report; they do: {', '.join(ABILITIES)}"
    if abs(sum(turn.share for turn in rule.turns) - 1) > 1e-6:
        return f"the shares of its turns add up to {sum(turn.share for turn in rule.turns):g}, not to 1"
    for turn in rule.turns:
        if strangers := set(turn.tasks) - tasks:
            return f"{min(strangers)!r} is no task that wants devices"
        if len(set(turn.tasks)) < len(turn.tasks):
            return "a turn names a task twice"
    return ""


def _chosen(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    return ()


_known["reward"] = _Known(_chosen, {}, chosen=True)
"""OLearning's (§5.2): devices choose by reward."""
