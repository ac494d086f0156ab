"""Early exit: what is saved is counted against the same seed without a rule, and each rule's runs are real."""

import json

import pytest

from experiments.early_exit import RULES, saved, table
from olearning.experiment import experiment


def run(accuracy: list[float]) -> dict:
    days = range(1, len(accuracy) + 1)
    return {"accuracy": accuracy, "steps": [10 * d for d in days], "bytes": [100 * d * d for d in days]}


def test_what_is_saved_and_what_is_lost():
    full, short = run([0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8]), run([0.5, 0.6])
    gain = saved(full, short)
    assert gain == pytest.approx({"days": 0.75, "steps": 0.75, "bytes": 1 - 4 / 64, "lost": 0.2})
    assert saved(full, full) == pytest.approx({"days": 0, "steps": 0, "bytes": 0, "lost": 0})
    assert "| prox: x | 2.0 (1) | 75 % | 75 % | 94 % | 0.600 (1) | 0.200 (1) |" in table(
        {("prox", "none"): [full], ("prox", "x"): [short]}
    )


@pytest.mark.program
def test_quick_ends_by_its_rules(tmp_path):
    experiment("early-exit", tmp_path, None, 3, quick=True)
    rows = [json.loads(x) for x in (tmp_path / "raw.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * len(RULES)
    by_rule = {r["settings"]["rule"]: r["result"] for r in rows if r["settings"]["optimiser"] == "prox"}
    assert by_rule["none"]["why"] == "all 6 epochs are done"
    assert len(by_rule["none"]["accuracy"]) == 6
    reached = [i + 1 for i, a in enumerate(by_rule["none"]["accuracy"]) if a >= 0.85]
    assert len(by_rule["accuracy 0.85"]["accuracy"]) == (reached or [6])[0]
    assert (tmp_path / "early-exit.svg").exists()
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + len(rows)
