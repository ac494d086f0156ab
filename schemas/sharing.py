"""How tenants share devices (design §8, Propius): what a task needs of a device, what a tenant may have, and who gets which device.

`public` needs are compared by the plane with what devices report; `private` ones on the device alone, which never says what it has.
"""

from typing import Annotated

import msgspec

from schemas.wire import Count, Ident, Message, Part, Scalar, Slug

ABILITIES = ("cpu", "ram", "memory", "os", "bandwidth")
"""What devices report of themselves: a CPU score and the memory for float16 [MB] as the AI Benchmark measures them, RAM [GB], the
version of the system (Android's major number), free bandwidth [Mbit/s]. More is better in each."""
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Weight = Annotated[float, msgspec.Meta(gt=0, le=10**6)]
Abilities = dict[str, Amount]
"""By name of `ABILITIES`; what is left out is 0."""
Bounds = Abilities
"""At least so much of each; what is left out does not matter."""


def amounts(of: Abilities) -> tuple[float, ...]:
    """In the order of `ABILITIES`; 0 for what is left out."""
    return tuple(float(of.get(name, 0.0)) for name in ABILITIES)


def meets(abilities: Abilities, bounds: Bounds) -> bool:
    """Whether a device with these abilities has at least so much of each."""
    return all(abilities.get(name, 0.0) >= least for name, least in bounds.items())


class Needs(Part, frozen=True):
    """What a device must have to take part in a task. `private` is by any name that the fleet knows, as `samples`: how many samples of
    the task's data."""

    public: Bounds = {}
    private: dict[Ident, Amount] = {}

    def __post_init__(self) -> None:
        for name in self.public:
            if name not in ABILITIES:
                raise ValueError(f"needs.public.{name} is nothing devices report; they do: {', '.join(ABILITIES)}")


class Quota(Part, frozen=True):
    """What a tenant may have at most: tasks that have not ended, devices at work at once, and bytes a day (UTC) of models to its
    devices and of deltas from them. 0: no limit."""

    tasks: Count = 0
    devices: Count = 0
    bytes: Count = 0


class Tenant(Message, frozen=True):
    """`global.tenants`: what a tenant may have, and its `weight` where tenants share by weight. One that is not there has these
    defaults."""

    tenant: Slug
    weight: Weight = 1.0
    quota: Quota = Quota()
    by: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Sharing(Message, frozen=True):
    """`global.tenants`, under the key `SHARING`: the policy by which devices are shared from now on, with its settings."""

    policy: Slug
    args: dict[str, Scalar] = {}
    by: Annotated[str, msgspec.Meta(max_length=200)] = ""


SHARING = ".sharing"
"""No tenant can have this name."""
UNSAID = Sharing(policy="reward")
"""What holds until somebody says something."""


class Turn(Part, frozen=True):
    """Of the devices that a rule fits, this `share` takes the first of these tasks that has room, and whose needs it meets."""

    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    tasks: tuple[Slug, ...]


class Rule(Part, frozen=True):
    """Fits a device that `meets` all of these bounds and, of those in `lacks`, none. The shares of its turns add up to 1."""

    turns: tuple[Turn, ...]
    meets: tuple[Bounds, ...] = ()
    lacks: tuple[Bounds, ...] = ()

    def fits(self, abilities: Abilities) -> bool:
        return all(meets(abilities, b) for b in self.meets) and not any(meets(abilities, b) for b in self.lacks)


class SharingPlan(Message, frozen=True):
    """`<zone>.announcements`, under the key `PLAN`, one copy in every partition: which devices are to take which tasks. For a device
    the first rule that fits holds, and of that a turn that it draws by the shares; if none fits, it waits. `chosen`: there are no
    rules, devices choose by reward (OLearning §5.2)."""

    zone: Slug
    at: Count
    policy: Slug
    rules: tuple[Rule, ...] = ()
    chosen: bool = False


PLAN = ".plan"
"""No task can have this name."""


def allowed(plan: SharingPlan, abilities: Abilities, task: str) -> bool:
    """Whether the plan gives devices like this one to the task, in one of its turns."""
    if plan.chosen:
        return True
    rule = _rule(plan, abilities)
    return rule is not None and any(task in turn.tasks for turn in rule.turns)


def drawn(plan: SharingPlan, abilities: Abilities, chance: float) -> tuple[str, ...]:
    """The tasks that the plan has for a device like this one, the first first: those of a turn of its rule. Which turn, a throw in (0, 1)
    says."""
    rule = _rule(plan, abilities)
    tasks: tuple[str, ...] = ()
    for turn in rule.turns if rule else ():
        tasks, chance = turn.tasks, chance - turn.share
        if chance < 0:
            break
    return tasks


def _rule(plan: SharingPlan, abilities: Abilities) -> Rule | None:
    return next((r for r in plan.rules if r.fits(abilities)), None)
