"""Many devices' trainings, each in the way that was measured to be the fastest for its model."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from device_sim.batched import check, stacks, train_stack, widths
from device_sim.trainer import Job, Run, one_thread, train
from device_sim.workers import Workers

HERE, STACKED, WORKERS = "here", "stacked", "workers"
"""Ways: a loop over devices in this process, weights stacked (`batched`), processes beside each other (`workers`)."""

TABLE = {("mlp", 1): STACKED, ("mlp", 2): STACKED, ("other", 1): HERE, ("other", 2): WORKERS}
"""The fastest way by kind of model and from so many devices on, as `olearning bench engine` found it (docs/simulation.md). "mlp" is what
has `widths`. The size of the model makes no difference to it: 4,810 to 1.2 million parameters were measured."""


class Engine:
    """Trains on `cores` cores, all there are if not said. Closed with `close`, or as a context.

    Whoever comes together, a job gives the same bits: those of `train`, or where its model can be stacked those of a stack of one.
    """

    def __init__(self, cores: int | None = None):
        self.cores = cores or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self.cores, "stack", one_thread)  # it starts none before it must
        self._workers = Workers(self.cores)

    def runs(self, jobs: Sequence[Job]) -> list[Run | Exception]:
        """What each job came to, in their order: a run, or what went wrong with it. Not for two threads at once.

        The jobs' arrays stay as they are while the engine lives: a worker keeps the base that it was sent last.
        """
        one_thread()
        out: dict[int, Run | Exception] = {}
        kinds: dict[str, list[int]] = {"mlp": [], "other": []}
        for i, job in enumerate(jobs):
            try:
                if wide := widths(job):
                    check(wide, job)
                kinds["mlp" if wide else "other"].append(i)
            except Exception as e:  # of a tenant's model or data: that job's alone
                out[i] = e
        for kind, some in kinds.items():
            way = TABLE[kind, min(2, len(some))] if some else HERE
            if way == WORKERS and self.cores == 1:
                way = HERE
            out |= zip(some, self.by(way, [jobs[i] for i in some]), strict=True)
        return [out[i] for i in range(len(jobs))]

    def by(self, way: str, jobs: list[Job]) -> list[Run | Exception]:
        """All of them that way, as a benchmark does to compare. `STACKED` is for jobs with `widths` that `check` lets pass."""
        if way == STACKED:
            return self._stacked(jobs)
        if way == WORKERS:
            return self._workers.runs(jobs)
        return [_alone(job) for job in jobs]

    def _stacked(self, jobs: list[Job]) -> list[Run | Exception]:
        alike: dict[tuple, list[int]] = {}
        for i, job in enumerate(jobs):
            alike.setdefault((widths(job), job.training), []).append(i)
        cut = [
            (wide, training, rows, [some[i] for i in stack])
            for (wide, training), some in alike.items()
            for rows, stack in stacks(wide, [jobs[i] for i in some], most=-(-len(some) // self.cores))
        ]
        out: dict[int, Run | Exception] = {}
        trained = (self._threads.map if len(cut) > 1 else map)(
            lambda c: train_stack(c[0], [jobs[i] for i in c[3]], c[1], c[2]), cut
        )
        for (_, _, _, some), runs in zip(cut, trained, strict=True):
            out |= zip(some, runs, strict=True)
        return [out[i] for i in range(len(jobs))]

    def close(self) -> None:
        self._threads.shutdown()
        self._workers.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alone(job: Job) -> Run | Exception:
    try:
        return train(*job)
    except Exception as e:
        return e
