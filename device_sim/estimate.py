"""How long a run of a task takes on this device: time_t of eq. 7 (OLearning §5.2), training and transfer. No clock, no I/O.

"Depends on the amount of data on the device and the training speed for the device model": ms per sample and epoch, for each task
its own, as their models differ; ms per byte down and up, the same for all. Each is the exponential moving average of what the
device measured in its own runs; before the first of them, what is known of its kind (`device_sim.capacity`), or a default.
"""

import math
from dataclasses import dataclass, field

SAFETY = 1.25
"""An estimate is the average times this. A run that overruns its window is lost with all its work, one that ends early only leaves
a gap: so rather too long. A quarter covers what phones vary by from run to run, not one that is suddenly twice as slow."""
NEWEST = 0.3
"""The weight of the newest run in an average: what is more than ten runs ago counts for less than 3 %."""
MS_PER_SAMPLE = 150.0
BYTES_S = 1_000_000.0


@dataclass(slots=True)
class Estimate:
    """The speeds of one device.

    `ms_per_sample` drawn, and bytes a second, are those before the first own run; this replaces them, as they were of another
    model and another network, and later runs are averaged in. What is averaged is ms per sample and per byte, not their inverse:
    the mean of these foretells a time. Raises `ValueError` for what is no number above 0, a safety below 1, a weight over 1.
    """

    ms_per_sample: float = MS_PER_SAMPLE
    down_bytes_s: float = BYTES_S
    up_bytes_s: float = BYTES_S
    safety: float = SAFETY
    newest: float = NEWEST
    _training: dict[str, float] = field(default_factory=dict, init=False)
    _down: float | None = field(default=None, init=False)
    _up: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for what in ("ms_per_sample", "down_bytes_s", "up_bytes_s"):
            value = getattr(self, what)
            if not 0 < value < math.inf:  # nor is NaN
                raise ValueError(f"{what} is a number above 0, not {value}")
        if not 1 <= self.safety < math.inf:
            raise ValueError(f"safety is a factor of 1 or more, not {self.safety}")
        if not 0 < self.newest <= 1:
            raise ValueError(f"the newest run's weight is above 0, up to 1, not {self.newest}")

    def time(self, drawn: int, down_bytes: int, up_bytes: int, task: str) -> int:
        """Of a whole run: download, training and upload, with the safety factor, in ms, rounded up; 1 at least.

        `drawn`: how many samples training draws, each as often as it is drawn. No bytes down where the model is in the cache."""
        for what, count in (
            ("samples", drawn),
            ("bytes down", down_bytes),
            ("bytes up", up_bytes),
        ):
            if count < 0:
                raise ValueError(f"{what} are 0 or more, not {count}")
        training = drawn * self._training.get(task, self.ms_per_sample)
        down = down_bytes * (1000 / self.down_bytes_s if self._down is None else self._down)
        up = up_bytes * (1000 / self.up_bytes_s if self._up is None else self._up)
        return max(1, math.ceil(self.safety * (training + down + up)))

    def measured(self, task: str, drawn: int, ms: float) -> None:
        """A run of a task drew and trained on so many samples in so many ms."""
        self._training[task] = self._average(self._training.get(task), ms, drawn, "samples")

    def forget(self, task: str) -> None:
        """There will be no other run of it."""
        self._training.pop(task, None)

    def transferred(self, bytes: int, ms: float, up: bool) -> None:
        """So many bytes came down, or went up, in so many ms."""
        if up:
            self._up = self._average(self._up, ms, bytes, "bytes")
        else:
            self._down = self._average(self._down, ms, bytes, "bytes")

    def _average(self, before: float | None, ms: float, count: int, what: str) -> float:
        if count < 1 or not 0 <= ms < math.inf:
            raise ValueError(f"a speed is of 1 or more {what} in 0 or more ms, not of {count} in {ms}")
        now = ms / count
        return now if before is None else before + self.newest * (now - before)
