"""What a sharing policy is: from the tasks that want devices, and the devices that came lately, to a plan.

    @policy("mine", settings={"bias": 0.5})
    def mine(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]: ...

A policy is pure: the same market gives the same rules, whoever asks. `Market.seed` is for those that draw. Rules name only tasks of
the market; whether a device meets a task's own needs is asked again when it registers, so a rule may list tasks that only some of its
devices can do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.sharing import ABILITIES, Bounds, Rule
from schemas.wire import Scalar


@dataclass(frozen=True)
class Job:
    """A task with a round open that wants devices.

    `wanted`: devices of the round (d of `platforms.md` §3.5), `got`: those it has (a). `since`: what orders registrations, the ledger
    offset that admitted it. `rounds` done of `of` (0: not known); `ran_s` since it was admitted; `service`: device-rounds it had.
    `fill_s`, `serve_s`: how long its last rounds took to get their devices, and from then to their results (0: none yet).
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

    @property
    def open(self) -> int:
        return max(0, self.wanted - self.got)


@dataclass(frozen=True)
class Market:
    """All that a policy may look at. `jobs` have room, those of tenants above their quota are left out. `devices`: abilities of the
    distinct devices that checked in lately, float64 of shape (n, 5) in the order of `ABILITIES`. `weights` and `granted` (devices at
    work now) by tenant."""

    jobs: Sequence[Job]
    devices: npt.NDArray[np.float64]
    weights: Mapping[str, float]
    granted: Mapping[str, int]
    seed: int = 0

    def able(self, needs: Bounds) -> npt.NDArray[np.bool_]:
        """Which of the devices meet these bounds, shape (n,)."""
        least = np.array([needs.get(name, 0.0) for name in ABILITIES])
        return np.asarray((self.devices >= least).all(axis=1))


Function = Callable[[Mapping[str, Scalar], Market], Sequence[Rule]]
