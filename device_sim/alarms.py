"""When the devices of an edge want to be woken."""

import heapq
from collections.abc import Iterator, Sequence

from device_sim.device import Device


class Alarms:
    """Of these devices, by their `place` among them."""

    def __init__(self, devices: Sequence[Device]):
        self.devices = devices
        self._times: list[tuple[int, int]] = []
        """When (ms) which device wants to be woken; what is not its `next` any more is void."""
        self._set: set[tuple[int, int]] = set()
        """The same, each once."""

    def __len__(self) -> int:
        return len(self._times)

    def set(self, d: Device) -> None:
        """Have a device woken at its `next`."""
        if (at := (d.next, d.place)) not in self._set:
            self._set.add(at)
            heapq.heappush(self._times, at)

    def due(self, now: int) -> Iterator[Device]:
        """Those that are to be woken by now, one after the other: who is set meanwhile is among them, if it is due."""
        while self._times and self._times[0][0] <= now:
            self._set.remove(self._times[0])
            at, i = heapq.heappop(self._times)
            d = self.devices[i]
            if at == d.next:
                yield d
