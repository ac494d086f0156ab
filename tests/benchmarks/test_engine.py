"""The benchmark of the training engine measures each way and says what it found; no figure of speed is looked at."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import engine
from benchmarks.line import Line
from device_sim.engine import HERE, Engine
from device_sim.trainer import train
from learning.models import build
from learning.models_conv import is_channels_last


@pytest.mark.program
def test_prints_a_line_for_each_way():
    done = subprocess.run(
        [sys.executable, "-m", "olearning", "bench", "engine", "--quick", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines()]
    assert [x["case"] for x in lines] == [
        "way=here model=8-4-3 optimiser=sgd",
        "way=stacked model=8-4-3 optimiser=sgd devices=1",
        "way=stacked model=8-4-3 optimiser=sgd devices=3",
        "way=workers model=8-4-3 optimiser=sgd devices=3",
        "way=here model=cnn-channels-first optimiser=sgd",
        "way=workers model=cnn-channels-first optimiser=sgd devices=2",
    ]
    for x in lines:
        assert (x["bench"], x["unit"]) == ("engine", "updates/s")
        assert (x.get("peer"), x.get("peer_value")) == (
            (None, None) if "devices" not in x["case"] else ("here", lines[0 if "8-4-3" in x["case"] else 4]["value"])
        )


def test_a_table_has_a_row_for_each_model_and_number_of_devices():
    settings = {"a_cpu_second": 1234}
    found = [
        Line("engine", "way=here model=a optimiser=adamw", 1000, "updates/s", 8000, settings),
        Line("engine", "way=stacked model=a optimiser=adamw devices=1", 2000, "updates/s", 8000, settings, HERE, 1000),
        Line("engine", "way=stacked model=a optimiser=adamw devices=3", 4000, "updates/s", 8000, settings, HERE, 1000),
        Line("engine", "way=workers model=a optimiser=adamw devices=3", 1500, "updates/s", 8000, {}, HERE, 1000),
        Line("engine", "way=here model=b optimiser=sgd", 10, "updates/s", 20),
        Line("engine", "way=workers model=b optimiser=sgd devices=2", 15, "updates/s", 20, {}, HERE, 10),
    ]
    assert list(engine.table(found))[2:] == [
        "| a AdamW | 1 | 1,000 (1,234) | 2,000 (1,234) |  | 8,000 | 0.25 |",
        "| a AdamW | 3 | 1,000 (1,234) | 4,000 (1,234) | 1,500 | 8,000 | 0.50 |",
        "| b | 2 | 10 |  | 15 | 20 | 0.75 |",
    ]


def test_operations_are_those_of_the_products():
    inputs, hidden, classes, samples = 20, 10, 5, engine.BATCH * engine.BATCHES
    (job,) = engine.mlp(inputs, hidden, classes).jobs(1)
    forward = 2 * samples * (inputs * hidden + hidden * classes)
    back = forward + 2 * samples * hidden * classes  # weights of both layers, and what the first one gave
    assert engine.operations(job) == forward + back


@pytest.mark.parametrize("case", [*engine.CASES, *engine.QUICK], ids=lambda c: c.name)
def test_cases_can_be_trained_and_are_what_their_names_say(case):
    (job,) = case.jobs(1)
    run = train(*job)
    assert (run.samples, run.steps) == (80, 5)
    assert np.isfinite(run.delta).all()
    if case.model == "mlp":
        assert len(job.base) == sum(n * k + k for n, k in pairwise(map(int, case.name.split("-"))))
    elif case.model != "resnet8":
        assert len(job.base) == 137_236
        assert is_channels_last(build(case.model, case.args, 0)) == (case.model == "cnn")


def test_a_failure_is_not_measured():
    (job,) = engine.QUICK[0].jobs(1)
    with Engine(1) as e, pytest.raises(ValueError, match="as many as labels"):
        engine.measured(e, HERE, [job._replace(y=job.y[1:])], 0.0)
