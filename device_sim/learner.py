"""What the devices of a fleet train, and what an evaluator scores: the task's model on the task's data, by name."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from device_sim import client, modular
from device_sim.data import Dataset, load, share
from device_sim.device import Device
from device_sim.engine import Engine
from device_sim.job import Run as AnyRun
from device_sim.portion import Portion
from device_sim.pseudonym import seed_of
from device_sim.runs import Work, run_all
from device_sim.trainer import Job, Run, one_thread, train
from learning.models import build, layout_of, load_vector, score, to_vector
from learning.modular import model as modular_model
from learning.modular.model import Modular, modularise
from learning.words import said
from schemas.blocks import Layout
from schemas.messages import Announcement
from schemas.modules import Shares, Structure
from schemas.task import BadTask, TaskSpec

Vector = npt.NDArray[np.float32]


class TorchLearner:
    """Trains with torch, each device on its own share of the data."""

    def __init__(self, engine: Engine | None = None):
        self.engine = engine or Engine()

    def objection(self, a: Announcement) -> str:
        try:
            module = modular.made(a, load(a.data, a.data_args), 0) if a.modules else build(a.model, a.model_args, 0)
            sizes = modular.known(a).layout.sizes if a.modules else layout_of(module).sizes
        except Exception as e:  # a name or arguments: no data is at hand yet
            return str(e)
        try:
            x, y = share(load(a.data, a.data_args), 0, a.data_args)
            score(module, x[:1], y[:1])
        except Exception as e:  # files, shapes: whatever stands in the way
            return said(e)
        return (
            "" if sizes == a.sizes else f"model {a.model} has other blocks here: install the version it was made with"
        )

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        dataset = load(a.data, a.data_args)
        _, y = share(dataset, device.number, a.data_args)
        return len(y), max(2, int(dataset.y.max()) + 1)

    def known(self, a: Announcement) -> modular.Model:
        """The model of a modular task."""
        return modular.known(a)

    def profile(self, a: Announcement, device: Device, selector: Vector) -> Shares:
        """How important each of its modules is for the device's data."""
        return modular.profile(a, device.id, device.number, selector)

    def run(self, a: Announcement, device: Device, base: Vector) -> Run | modular.Run:
        if isinstance(a, Portion) and a.modules:
            return modular.train(a, device.id, device.number, base, device.own[a.task].shares)
        return train(*_job(a, device, base))

    def runs(self, jobs: Sequence[tuple[Announcement, Device, Vector]]) -> list[AnyRun | Exception]:
        """What `run` gives for each or raises, all trained together, which is faster. An MLP's run differs from that of `run` by the
        rounding of float32, and not with who else is trained. Devices with the same base should come with the same array."""
        out: dict[int, AnyRun | Exception] = {}
        made: dict[int, Job] = {}
        for i, job in enumerate(jobs):
            try:
                if isinstance(job[0], Portion):
                    out[i] = self.run(*job)
                else:
                    made[i] = _job(*job)
            except Exception as e:
                out[i] = e
        out |= zip(made, self.engine.runs(list(made.values())), strict=True)
        return [out[i] for i in range(len(jobs))]


def _job(a: Announcement, device: Device, base: Vector) -> Job:
    x, y = share(load(a.data, a.data_args), device.number, a.data_args)
    return Job(a.model, a.model_args, base, x, y, a.training, seed_of(a.seed, device.id, a.task, a.round))


class Learners:
    """Trains each task by what its model names: a client of someone's own, or a module by torch."""

    def __init__(self) -> None:
        one_thread()  # clients may train by torch as well
        self.torch, self.clients = TorchLearner(), client.ClientLearner()

    def of(self, a: Announcement) -> TorchLearner | client.ClientLearner:
        return self.clients if a.model in client.clients else self.torch

    def objection(self, a: Announcement) -> str:
        return self.of(a).objection(a)

    def size(self, a: Announcement, device: Device) -> tuple[int, int]:
        return self.of(a).size(a, device)

    def known(self, a: Announcement) -> modular.Model:
        return self.torch.known(a)

    def profile(self, a: Announcement, device: Device, selector: Vector) -> Shares:
        return self.torch.profile(a, device, selector)

    def run(self, a: Announcement, device: Device, base: Vector) -> client.ClientRun | Run | modular.Run:
        return self.of(a).run(a, device, base)

    def runs(self, work: Sequence[Work]) -> list[AnyRun | Exception]:
        """Each kind's runs together, if its learner can (`run_all`)."""
        out: dict[int, AnyRun | Exception] = {}
        for learner in (self.torch, self.clients):
            mine = [i for i, (a, _, _) in enumerate(work) if self.of(a) is learner]
            out |= zip(mine, run_all(learner, [work[i] for i in mine]), strict=True)
        return [out[i] for i in range(len(work))]


def prepare(spec: TaskSpec, seed: int) -> tuple[Layout, Vector, Dataset | None]:
    """Version 0 of a task's model, its layout, and its data, which clients have themselves. Raises `BadTask` for what nobody
    here can build."""
    if spec.model in client.clients:
        if spec.modules:
            raise BadTask(f"model {spec.model} is a client's own: a modular model is a torch network (docs/modular.md)")
        return (*client.prepare(spec, seed), None)
    try:
        dataset = load(spec.data, spec.data_args)
        module = modular.made(spec, dataset, seed) if spec.modules else build(spec.model, spec.model_args, seed)
        share(dataset, 0, spec.data_args)
    except (ValueError, TypeError, RuntimeError, MemoryError) as e:
        raise BadTask(str(e)) from None
    try:
        score(module, dataset.test_x, dataset.test_y)
    except (IndexError, RuntimeError) as e:  # torch says so where shapes or classes do not fit
        raise BadTask(f"model {spec.model} and data {spec.data} do not fit together: {e}") from None
    if isinstance(module, Modular):
        return modular_model.layout_of(module), modular_model.to_vector(module), dataset
    return layout_of(module), to_vector(module), dataset


def structure(spec: TaskSpec) -> Structure | None:
    """What the parts of a modular task's model cost; None: it is one piece. For a task that `prepare` could build."""
    return modular.known(spec).structure if spec.modules else None


def scorer() -> Callable[[TaskSpec, Vector], tuple[float, float, int]]:
    """Scores a flat model of a task on its held-out data: accuracy, mean loss, samples."""
    one_thread()

    @lru_cache(maxsize=8)
    def module_of(model: str, args: tuple):  # type: ignore[no-untyped-def]
        return build(model, dict(args), 0)

    @lru_cache(maxsize=2)
    def whole(known: modular.Model) -> Modular:
        return modularise(known.blueprint.network(), known.blueprint.shape, known.blueprint.form)

    def held_out(spec: TaskSpec, vector: Vector) -> tuple[float, float, int]:
        if spec.model in client.clients:
            return client.score(spec, vector)
        dataset = load(spec.data, spec.data_args)
        if spec.modules:
            module = whole(modular.known(spec))
            modular_model.load_vector(module, vector)
        else:
            module = module_of(spec.model, tuple(sorted(spec.model_args.items())))
            load_vector(module, vector)
        return (*score(module, dataset.test_x, dataset.test_y), len(dataset.test_y))

    return held_out
