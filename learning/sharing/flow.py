"""Weighted max-min shares where not everyone can use everything (`baselines.md` §2; Ghodsi et al., NSDI 2011, for one resource).

Supplies (devices with the same abilities) and tenants who can use some of them; a division is a flow from one to the other. What
tenants can get is a polymatroid, so progressive filling needs no search for who is a bottleneck: the tenants that a failed flow
reaches cannot get more together than they have.
"""

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


class Flow:
    """Who gets how much of which supply: `given` (supplies, tenants), at most `left` more of each supply. `able` (supplies, tenants)."""

    def __init__(self, left: Float64, able: Bool):
        self.left, self.able = left.astype(np.float64).copy(), able
        self.given: Float64 = np.zeros(able.shape)
        self.tiny = 1e-9 * max(1.0, float(left.sum()))

    def give(self, tenant: int, amount: float) -> Bool | None:
        """As much more to a tenant, others keeping what they have in all. If there is not as much it gets all there is, and the
        answer is which tenants (it is one) together have all that any of them can use."""
        while amount > self.tiny:
            ways = self.able[:, tenant] & (self.left > self.tiny)
            if ways.any():
                s = int(ways.argmax())
                took = min(amount, float(self.left[s]))
                self.left[s] -= took
                self.given[s, tenant] += took
                amount -= took
                continue
            moved = self._exchange(tenant, amount)
            if isinstance(moved, np.ndarray):
                return moved
            amount -= moved
        return None

    def _exchange(self, tenant: int, amount: float) -> float | Bool:
        """Take from others who can use something else: along a shortest path, how much; or whom no path leaves."""
        reached = np.zeros(self.able.shape[1], np.bool_)
        came: dict[int, tuple[int, int]] = {}  # tenant -> whose supply it gives up, and which
        reached[tenant] = True
        line = [tenant]
        for t in line:
            for s in np.flatnonzero(self.able[:, t]).tolist():
                for other in np.flatnonzero((self.given[s] > self.tiny) & ~reached).tolist():
                    reached[other] = True
                    came[other] = (t, s)
                    free = self.able[:, other] & (self.left > self.tiny)
                    if free.any():
                        return self._along(came, other, int(free.argmax()), tenant, amount)
                    line.append(other)
        return reached

    def _along(self, came: dict[int, tuple[int, int]], end: int, free: int, tenant: int, amount: float) -> float:
        path, at = [], end
        while at != tenant:
            to, s = came[at]
            path.append((at, to, s))
            at = to
        took = min(amount, float(self.left[free]), *(float(self.given[s, giver]) for giver, _, s in path))
        self.left[free] -= took
        self.given[free, end] += took
        for giver, to, s in path:
            self.given[s, giver] -= took
            self.given[s, to] += took
        return took


def fill(
    supply: npt.ArrayLike,
    able: Bool,
    weight: npt.ArrayLike,
    demand: npt.ArrayLike,
    held: npt.ArrayLike | None = None,
) -> tuple[Int64, Float64]:
    """Progressive filling: `given` (supplies, tenants) in whole numbers, and each tenant's exact part (tenants,).

    The exact parts x maximise the sorted vector of (held + x) / weight, the least first, with x at most the demand. Whole numbers
    are these rounded down, then one more for those with the largest remainder, ties in order, as far as there is a flow.
    """
    n, w, d = (np.asarray(a, np.float64) for a in (supply, weight, demand))
    h = np.zeros(len(w)) if held is None else np.asarray(held, np.float64)
    part = np.zeros(len(w))
    open_ = np.ones(len(w), np.bool_)
    while open_.any():
        level, tight = float(((h + d) / w)[open_].max()), None
        while True:
            part = np.where(open_, np.clip(w * level - h, 0, d), part)
            stuck = _stuck(n, able, part)
            if stuck is None or not (stuck & open_).any():
                break
            tight = stuck
            theirs = float(n[able[:, tight].any(axis=1)].sum() - part[tight & ~open_].sum())
            lower = _level(tight & open_, theirs, w, d, h)
            if lower >= level:  # by rounding alone
                break
            level = lower
        if tight is None:  # all that are left have what they want
            part = np.where(open_, d, part)
            break
        open_ &= ~tight & (part < d)
    return _whole(n, able, part, d), part


def _stuck(supply: Float64, able: Bool, part: Float64) -> Bool | None:
    """Tenants that cannot all have their part; None: all can."""
    flow = Flow(supply, able)
    for t in range(len(part)):
        if (reached := flow.give(t, float(part[t]))) is not None:
            return reached
    return None


def _level(who: Bool, supply: float, weight: Float64, demand: Float64, held: Float64) -> float:
    """At which level these tenants have as much as that together."""
    w, d, h = weight[who], demand[who], held[who]
    edges = np.unique(np.concatenate([h / w, (h + d) / w]))
    totals = np.array([np.clip(w * edge - h, 0, d).sum() for edge in edges])
    k = int(np.searchsorted(totals, supply, side="right")) - 1
    if k < 0 or k + 1 >= len(edges):
        return float(edges[max(k, 0)])
    rate = float(w[(h / w <= edges[k]) & ((h + d) / w > edges[k])].sum())
    return float(edges[k] + (supply - totals[k]) / rate) if rate else float(edges[k])


def _whole(supply: Float64, able: Bool, part: Float64, demand: Float64) -> Int64:
    flow = Flow(supply, able)
    down = np.floor(part + 1e-6)
    for t, amount in enumerate(down):
        flow.give(t, float(amount))
    rest = part - down
    for t in sorted(range(len(part)), key=lambda t: (-round(float(rest[t]), 6), t)):
        if rest[t] > 1e-6 and down[t] < demand[t]:
            flow.give(t, 1.0)
    return np.rint(flow.given).astype(np.int64)
