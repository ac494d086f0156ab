"""Processes that train beside each other: for models whose steps are large enough that nothing is won by stacking them.

Each trains with `trainer.train`, on one thread: the bits are those of this process, whoever trains what. A worker lives at the
other end of a pipe and ends with it, also where this process was killed. They are forked from one fresh Python that has imported
torch, which takes seconds and memory once, and has done nothing with it. They start with the first job and stay.
"""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Sequence
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from device_sim.trainer import Float32, Job, Run, one_thread, train
from learning.models import origin


class Died(RuntimeError):
    """A worker process ended while it trained: killed, out of memory, or the model's code took it down."""


class _Worker:
    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", __name__])
        self.pipe, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(target=_serve, args=(theirs,), daemon=True, name="training")
        self.process.start()
        theirs.close()  # else the pipe would stay open when the process is gone
        self.base: Float32 | None = None
        """The base that it was last sent."""
        self.answered = False

    def give(self, job: Job) -> None:
        known = job.base is self.base
        self.pipe.send((origin(job.model), job._replace(base=None) if known else job))  # type: ignore[arg-type]
        self.base = job.base

    def close(self) -> None:
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def died(self, job: Job) -> Died:
        text = f"the process that trained {job.model} ended with {self.process.exitcode}"
        if not self.answered:
            text += '; if the program is a script, what it does must stand under `if __name__ == "__main__":`'
        return Died(text)


class Workers:
    """`count` processes, as many as cores if not said. Closed with `close`, or as a context."""

    def __init__(self, count: int | None = None):
        self.count = count or os.cpu_count() or 1
        self._idle: list[_Worker] = []

    def runs(self, jobs: Sequence[Job]) -> list[Run | Exception]:
        """What each job came to, in their order: a run, or what `train` raised, or `Died`. Not for two threads at once."""
        out: dict[int, Run | Exception] = {}
        busy: dict[Connection, tuple[int, _Worker]] = {}
        todo = list(enumerate(jobs))[::-1]
        while todo or busy:
            while todo and len(busy) < self.count:
                i, job = todo.pop()
                worker = self._idle.pop() if self._idle else _Worker()
                try:
                    worker.give(job)
                except (BrokenPipeError, ConnectionResetError):
                    worker.close()
                    if worker.answered:  # it died idle: the job is for another
                        todo.append((i, job))
                    else:
                        out[i] = worker.died(job)
                except Exception as e:  # a job that cannot be sent
                    self._idle.append(worker)
                    out[i] = e
                else:
                    busy[worker.pipe] = i, worker
            ready = wait(list(busy))
            for pipe in [p for p in busy if p in ready]:
                i, worker = busy.pop(pipe)
                try:
                    out[i] = worker.pipe.recv()
                    worker.answered = True
                    self._idle.append(worker)
                except (EOFError, ConnectionResetError):
                    worker.close()
                    out[i] = worker.died(jobs[i])
        return [out[i] for i in range(len(jobs))]

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one decides when it ends
    one_thread()
    base = None
    while True:
        try:
            made_by, job = pipe.recv()
        except EOFError:
            return
        base = job.base if job.base is not None else base
        try:
            import_module(made_by)  # where a model of the user's own is made known
            answer: Run | Exception = train(*job._replace(base=base))
        except Exception as e:
            answer = _sendable(e)
        try:
            pipe.send(answer)
        except OSError:
            return  # nobody is there any more


def _sendable(e: Exception) -> Exception:
    """The exception, or where it cannot be pickled and back, one that says the same."""
    try:
        if type(pickle.loads(pickle.dumps(e))) is type(e):
            return e
    except Exception:
        pass
    return RuntimeError(f"{type(e).__name__}: {e}")
