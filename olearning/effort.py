"""What a simulation cost the devices of each task: runs trained, steps taken, bytes over the air."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from device_sim.device import Device
from device_sim.job import Run
from device_sim.runs import Learner, Vector, Work, run_all
from device_sim.submodels import Model
from schemas.messages import Announcement
from schemas.modules import Shares
from schemas.topics import parse
from streams.processor import Send


@dataclass
class Effort:
    """Of one task, so far. `steps` of the runs that say how many they took. Bytes: models fetched as float32, deltas sent as they
    travel, whether they counted or not."""

    runs: int = 0
    steps: int = 0
    down_bytes: int = 0
    up_bytes: int = 0


class Counted:
    """A learner that keeps the books of what it trains, by task; `sent` takes what devices upload."""

    def __init__(self, learner: Learner):
        self.learner = learner
        self.efforts: defaultdict[str, Effort] = defaultdict(Effort)

    def objection(self, a: Announcement) -> str:
        return self.learner.objection(a)

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        return self.learner.size(a, device)

    def known(self, a: Announcement) -> Model:
        return self.learner.known(a)  # type: ignore[attr-defined]

    def profile(self, a: Announcement, device: Device, selector: Vector) -> Shares:
        return self.learner.profile(a, device, selector)  # type: ignore[attr-defined]

    def run(self, a: Announcement, device: Device, base: Vector) -> Run:
        run = self.learner.run(a, device, base)
        self._note(a, run)
        return run

    def runs(self, work: Sequence[Work]) -> list[Run | Exception]:
        out = list(run_all(self.learner, work))
        for (a, _, _), run in zip(work, out, strict=True):
            self._note(a, run)
        return out

    def _note(self, a: Announcement, run: Run | Exception) -> None:
        effort = self.efforts[a.task]
        effort.runs += 1
        effort.steps += getattr(run, "steps", 0)
        effort.down_bytes += 4 * sum(a.sizes)

    def sent(self, send: Send) -> None:
        topic = parse(send.topic)
        if topic.kind.what == "deltas":
            self.efforts[topic.task].up_bytes += send.size
