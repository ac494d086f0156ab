"""Accuracy by day: the arithmetic of its table, the runs that it makes, and that both sides get the same devices and data."""

import json

import numpy as np
import pytest

from device_sim.capacity import Usual
from experiments.asked import Cannot
from experiments.data import SPEECH, converted
from experiments.day_pictures import Line, at, final, main, reached, settled, smooth, table
from experiments.day_to_accuracy import lines, speeds
from experiments.two_layers import Size, scenario
from experiments.works import digits
from olearning import scenario as scenarios
from olearning.errors import Trouble
from olearning.experiment import experiment
from olearning.roles import population
from tests.experiments.test_record import asked


def test_when_a_run_has_settled():
    rising = [0.1, 0.3, 0.5, 0.7, 0.9] + [0.9] * 10
    assert smooth(rising)[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert final(rising) == pytest.approx(0.9)
    assert settled(rising) == 9  # the moving average has five of 0.9 from day 9 on
    assert settled([0.9] * 10) == 1
    assert settled([0.9] * 5 + [0.2] + [0.9] * 9) == 11, "one bad day is in the average for five"
    assert settled([i / 100 for i in range(100)]) > 95, "what still rises has not settled"


def test_when_a_target_was_reached_and_what_there_was_after_as_many_steps():
    rising = [i / 10 for i in range(11)]
    assert reached(rising, 0.5) == 8  # days 3 to 7 are 0.3 … 0.7
    assert reached(rising, 0.95) is None
    assert at([10, 20, 30], [0.1, 0.2, 0.3], 25) == 0.2  # no day ends between 22.5 and 25
    # Two lines that have learned the same by the same steps, ten days of the one for a day of the other.
    xs, few = [*range(1, 101)], [x / 100 for x in range(1, 101)]
    assert at(xs, few, 50) == pytest.approx(at(xs[9::10], few[9::10], 50), abs=0.03)
    assert at(xs, few, 50) == pytest.approx(0.48)
    assert at([10, 20, 30], [0.1, 0.2, 0.3], 5) == pytest.approx(0.1)


def run(accuracy: float, days: int, steps: int) -> dict:
    days_of = range(1, days + 1)
    return {
        "accuracy": [accuracy] * days,
        "loss": [1.0] * days,
        "steps": [steps * d for d in days_of],
        "bytes": [10**9 * d for d in days_of],
        "hours": [1.0 * d for d in days_of],
    }


def test_the_table_sets_both_beside_each_other_and_beside_the_paper():
    done = {}
    for seed in (1, 2):
        done[Line("olearning", "prox", 4), seed] = run(0.9, 6, 100)
        done[Line("pyramidfl", "prox", 4), seed] = run(0.6, 6, 10)
    text = table(done, "har")
    assert "| 4 zones, prox | 50.0 ± 0.0 (2) | 15.04 | 1, 1 | 0.900 / 0.600 |" in text
    assert "| 4 zones, prox: PyramidFL | 0.600 ± 0.000 (2) | 1 ± 0 (2) | 60 | 6.0 | 6.0 |" in text
    assert "15.04" not in table(done, "digits"), "the paper measured no digits"


def test_seeds_are_compared_with_themselves_in_whatever_order_they_came():
    done = {(Line("olearning", "prox", 4), seed): run(a, 6, 100) for seed, a in ((3, 0.9), (1, 0.6), (2, 0.5))}
    done |= {(Line("pyramidfl", "prox", 4), seed): run(a, 6, 10) for seed, a in ((1, 0.3), (3, 0.45))}
    assert "| 4 zones, prox | 100.0 ± 0.0 (2) |" in table(done, "har")


def test_both_sides_have_the_same_devices(tmp_path):
    with digits(asked(tmp_path)) as work:
        size = Size(devices=3, demand=2)
        loaded = scenarios.check(scenario(work, size, "prox", 2, 7), "here")
        platform = [
            d.pace.capacity
            for z, first in (("z1", 0), ("z2", 3))
            for d in population(z, loaded.options(z, first)).devices()
        ]
        assert speeds(work, size, 2, 7) == platform
        assert speeds(work, size, 2, 8) != platform
        assert speeds(work, size, 1, 7) == platform[:3]
        assert platform[0] == Usual().of(7, "z1-0")


def test_lines_are_the_papers_and_ours_where_most_zones_are():
    some = lines((1, 2))
    assert len(set(some)) == len(some) == 2 * 4 + 6 + 1
    assert {line.zones for line in some if line.method == "oort"} == {2}


@pytest.mark.program
def test_quick_makes_all_of_it_and_a_second_time_does_nothing_again(tmp_path):
    experiment("day-to-accuracy-har", tmp_path, None, 3, quick=True)
    raw = (tmp_path / "raw.jsonl").read_text()
    rows = [json.loads(x) for x in raw.splitlines()]
    assert len(rows) == 15
    assert all(len(r["result"]["accuracy"]) == 3 and r["settings"]["seed"] == 1 for r in rows)
    ours, peers = ([r for r in rows if (r["settings"]["method"] == "olearning") == who] for who in (True, False))
    # a day is two rounds of all four devices of a zone with 5 steps each; the peers have one round, and PyramidFL adds steps of its own
    assert all(r["result"]["steps"][-1] == 3 * 2 * 4 * 5 * r["settings"]["zones"] for r in ours)
    assert all(
        r["result"]["steps"][-1] == 3 * 4 * 5 * r["settings"]["zones"]
        for r in peers
        if "pyramidfl" not in r["settings"]["method"]
    )
    assert all(0 < a <= 1 for r in rows for a in r["result"]["accuracy"])
    for name in ("day-to-accuracy-har.png", "day-to-accuracy-har.svg", "table.md"):
        assert (tmp_path / name).stat().st_size > 100
    experiment("day-to-accuracy-har", tmp_path, None, 3, quick=True)
    assert (tmp_path / "raw.jsonl").read_text() == raw
    whole = (tmp_path / "table.md").read_text()
    main([str(tmp_path), "again"])
    assert (tmp_path / "table.md").read_text() == whole
    (tmp_path / "raw.jsonl").write_text("\n".join(raw.splitlines()[:3]))
    main([str(tmp_path), "again"])  # what there was before all were done
    assert (tmp_path / "table.md").read_text() != whole
    assert (tmp_path / "again.svg").exists()


def test_an_unknown_experiment_and_missing_data_are_said(tmp_path):
    with pytest.raises(Trouble, match="known: day-to-accuracy-har, "):
        experiment("nothing", tmp_path, None, 1, quick=True)
    with pytest.raises(Trouble, match=r"this needs hapt_raw_windows\.npz: give the folder"):
        experiment("day-to-accuracy-har", tmp_path, None, 1, quick=False)


def test_only_the_first_classes_are_taken(tmp_path):
    y = np.arange(12) % 4
    np.savez(
        tmp_path / SPEECH,
        X_u8=np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2), scale=0.5, offset=np.float32(1), y=y,
        user=np.arange(12) // 4, split=np.array([0] * 8 + [2] * 4, np.uint8),
    )  # fmt: skip
    with converted(asked(tmp_path, tmp_path), SPEECH, classes=2) as files, np.load(files[SPEECH]) as found:
        assert found["y"].tolist() == [0, 1] * 3
        assert found["X"].shape == (6, 2, 2)
        assert found["scale"] == 0.5
        assert found["X"][1].tolist() == [[4, 5], [6, 7]]
    with pytest.raises(Cannot, match="there is no"), converted(asked(tmp_path, tmp_path / "none"), SPEECH):
        pass
