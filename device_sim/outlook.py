"""When a device expects to be free, as its plans need it."""

from typing import Protocol

from device_sim.planner import Window

UNEXPECTED = 48
"""Who is free and did not expect it counts on so large a part of the time that a plan looks ahead: of a day, half an hour."""


class Outlook(Protocol):
    """When a device expects to be free."""

    def windows(self, now_ms: int, horizon_ms: int, m: int, *, free: bool | None = None) -> list[Window]:
        """The m longest windows that it expects, in order; `free`: whether it is free now."""
        ...

    def observe(self, start_ms: int, end_ms: int) -> None:
        """It was free from start to end, and not since what was observed last."""
        ...


def windows(outlook: Outlook | None, now: int, horizon: int, most: int) -> list[Window]:
    """When a device that is free now will be: the present window first, and the `most` longest that its forecast expects. Without a
    forecast for as long as the plan looks ahead, `horizon` (ms)."""
    if outlook is None:
        return [(now, now + horizon)]
    expected = outlook.windows(now, horizon, most, free=True)
    if expected and expected[0][0] <= now:
        return expected
    end = now + max(1, horizon // UNEXPECTED)  # it is free though it did not expect to be: who knows for how long
    return [(now, min(end, expected[0][0]) if expected else end), *expected]
