"""The engine trains whatever comes, each job as it would be trained alone, beside each other where that is faster."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from device_sim.data import UnknownData
from device_sim.device import Device
from device_sim.engine import HERE, STACKED, WORKERS, Engine
from device_sim.learner import TorchLearner
from device_sim.trainer import Job, Run, train
from device_sim.workers import Died, Workers
from learning import registry
from learning.models import UnknownModel, build, model, to_vector
from schemas.blocks import Manifest
from schemas.messages import Announcement, Ref
from schemas.task import Training

ROOT = Path(__file__).parents[2]
SHORT = Training(epochs=2, batch=8)


@model("test-noisy")
def noisy() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))


class Fatal(nn.Linear):
    def forward(self, x):
        os._exit(7)


@model("test-fatal")
def fatal() -> nn.Module:
    return Fatal(6, 4)


class Strange(Exception):
    """Does not come back from a pickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Broken(nn.Linear):
    def forward(self, x):
        raise Strange("this", "that")


@model("test-broken")
def broken() -> nn.Module:
    return Broken(6, 4)


def job(name: str, seed: int, base: int = 0, samples: int = 20) -> Job:
    args = {"inputs": 6, "hidden": 5, "classes": 4} if name == "mlp" else {}
    dice = np.random.default_rng(seed)
    x, y = dice.standard_normal((samples, 6)).astype(np.float32), dice.integers(0, 4, samples)
    return Job(name, args, to_vector(build(name, args, base)), x, y, SHORT, seed)


def bits(run: Run | Exception) -> tuple:
    assert isinstance(run, Run), run
    return run.delta.tobytes(), run.losses.tobytes(), run.loss_sum, run.samples, run.steps


@pytest.fixture(scope="module")
def engine():
    with Engine(cores=2) as engine:
        yield engine


@pytest.mark.program
def test_workers_give_the_bits_of_this_process(engine):
    jobs = [job("test-noisy", n, base=n // 3) for n in range(7)]
    jobs[5] = jobs[5]._replace(base=jobs[4].base)  # which one of them may have already
    assert [bits(r) for r in engine.by(WORKERS, jobs)] == [bits(train(*j)) for j in jobs]
    assert len({w.process.pid for w in engine._workers._idle}) == 2


@pytest.mark.program
def test_a_job_that_fails_fails_alone_in_every_way(engine):
    good, noise = job("mlp", 1), job("test-noisy", 2)
    bad = [
        good._replace(base=good.base[1:]),
        good._replace(y=good.y[:3]),
        noise._replace(x=noise.x[:, :2]),
        noise._replace(model="nobody"),
        noise._replace(args={"width": 3}),
        job("test-broken", 3),
        noise._replace(args={"width": lambda: 0}),  # cannot be sent
    ]
    jobs = [good, *bad[:3], noise, *bad[3:], good, noise]
    runs = engine.runs(jobs)
    assert bits(runs[0]) == bits(runs[-2])
    assert bits(runs[4]) == bits(runs[-1]) == bits(train(*noise))
    failed = [r for r in runs if isinstance(r, Exception)]
    assert len(failed) == len(bad)
    kinds = [ValueError, ValueError, RuntimeError, UnknownModel, ValueError, RuntimeError, ValueError]
    assert [isinstance(e, kind) for e, kind in zip(failed, kinds, strict=True)] == [True] * 7
    assert str(failed[5]) == "Strange: this and that"


@pytest.mark.program
def test_a_worker_that_dies_takes_only_its_own_job_along(engine):
    jobs = [job("test-noisy", 1), job("test-fatal", 2), job("test-noisy", 3)]
    runs = engine.by(WORKERS, jobs)
    assert isinstance(runs[1], Died)
    assert str(runs[1]).startswith("the process that trained test-fatal ended with 7")
    assert [bits(runs[0]), bits(runs[2])] == [bits(train(*jobs[0])), bits(train(*jobs[2]))]


UNGUARDED = """
import sys
import numpy as np
from device_sim.engine import WORKERS, Engine
from device_sim.trainer import Job
from learning.models import build, to_vector
from schemas.task import Training
x, y = np.zeros((4, 2), np.float32), np.zeros(4, np.int64)
args = {"inputs": 2, "classes": 2}
job = Job("linear", args, to_vector(build("linear", args, 0)), x, y, Training(), 0)
with Engine(cores=2) as engine:
    print(*engine.by(WORKERS, [job, job]), sep="\\n")
"""


@pytest.mark.program
def test_a_script_that_starts_anew_in_each_worker_is_told_so(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    said = "the process that trained linear ended with 1; if the program is a script, what it does must stand under `if"
    assert [line[: len(said)] for line in done.stdout.splitlines()] == [said] * 2, done.stdout + done.stderr


@pytest.mark.program
def test_a_worker_that_died_idle_is_replaced(engine):
    jobs = [job("test-noisy", n) for n in range(2)]
    before = engine.by(WORKERS, jobs)
    gone = engine._workers._idle[-1].process
    gone.kill()
    gone.join()
    assert [bits(r) for r in engine.by(WORKERS, jobs)] == [bits(r) for r in before]


ORPHAN = """
import time
from device_sim.workers import Workers, _Worker
worker = _Worker()
print(worker.process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.program
def test_workers_end_with_the_process_they_work_for():
    with subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=ROOT, stdout=subprocess.PIPE, text=True) as p:
        worker = int(p.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        p.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.program
def test_who_comes_along_changes_no_bit(engine):
    jobs = [job("mlp", n, base=n % 2, samples=3 * n + 1) for n in range(9)]
    jobs += [j._replace(training=Training(momentum=0.5)) for j in jobs[:3]]
    jobs.insert(4, job("test-noisy", 1))
    together = [bits(r) for r in engine.runs(jobs)]
    assert [bits(engine.runs([j])[0]) for j in jobs] == together
    with Engine(cores=1) as one:
        assert [bits(r) for r in one.runs(jobs)] == together
        assert one._workers._idle == []
    assert engine.runs([]) == []


def test_each_job_goes_its_way(monkeypatch):
    gone = []
    monkeypatch.setattr(Engine, "by", lambda self, way, jobs: gone.append((way, len(jobs))) or [None] * len(jobs))
    mlp, other = job("mlp", 1), job("test-noisy", 1)
    for cores, jobs, wanted in (
        (2, [mlp, other, mlp, other], {STACKED: 2, WORKERS: 2}),
        (2, [other], {HERE: 1}),  # no use in sending it away
        (1, [other, other, mlp], {HERE: 2, STACKED: 1}),
    ):
        gone.clear()
        Engine(cores).runs(jobs)
        assert {way: n for way, n in gone if n} == wanted


def test_no_worker_is_started_before_its_job():
    with Workers(3) as workers:
        assert workers.runs([]) == []
        assert workers._idle == []


# ------------------------------------------------------------------ the learner


def announcement(**changes) -> Announcement:
    a = {
        "task": "t", "tenant": "default", "round": 3, "open": True, "cause": Ref("l", 1), "model": "mlp",
        "model_args": {"hidden": 8}, "data": "digits", "data_args": {"devices": 40}, "training": Training(),
        "sizes": (1,), "unit": -24, "largest": 1.0, "base": Manifest("m", 1, ()), "deadline": 1,
    }  # fmt: skip
    return Announcement(**a | changes)


@pytest.mark.program
def test_a_learner_runs_many_as_it_runs_each(engine):
    learner = TorchLearner(engine)
    base = to_vector(build("mlp", {"hidden": 8}, 0))
    jobs = [(announcement(), Device(f"d{n}", n), base) for n in range(5)]
    jobs[2] = (announcement(data="nobody"), *jobs[2][1:])
    jobs[3] = (announcement(), Device("d3", 99), base)
    runs = learner.runs(jobs)
    assert isinstance(runs[2], UnknownData)
    assert str(runs[3]) == "device 99 is not one of the 40 (0 to 39)"
    for i in (0, 1, 4):
        alone = learner.run(*jobs[i])
        np.testing.assert_allclose(runs[i].delta, alone.delta, rtol=1e-4, atol=1e-6)
        assert (runs[i].samples, runs[i].steps) == (alone.samples, alone.steps)


class Quotes(nn.Module):
    """Raises what it was given."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        raise ValueError(f"bad sample {x.tolist()}")


def test_what_a_device_objects_to_quotes_nothing_of_its_data(monkeypatch):
    monkeypatch.setitem(registry.models, "quotes", Quotes)
    learner = TorchLearner()
    a = announcement(model="quotes", model_args={}, sizes=(1,))
    assert learner.objection(a).startswith("ValueError at test_engine.py:")
    assert "bad sample" not in learner.objection(a)
    missing = {"path": "nowhere.npz", "devices": 2}
    assert (
        learner.objection(announcement(data="npz", data_args=missing)) == "there is no file nowhere.npz on this machine"
    )
    assert learner.objection(announcement(data="nobody")).startswith("no data 'nobody' is known here")
    assert learner.objection(announcement(model_args={"hiden": 8})).startswith(
        "model 'mlp' takes inputs, hidden, classes"
    )
