"""Alerts and dashboards ask for metrics that there are, by labels that these have; each alert says what to do and is tried."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from olearning.telemetry.metrics import HISTOGRAM, METRICS

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus/rules.yml"
BOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
SERIES = {
    name: {*m.labels, *({"le"} if m.kind == HISTOGRAM else set())}
    for m in METRICS
    for name in ([f"{m.name}_{x}" for x in ("bucket", "sum", "count")] if m.kind == HISTOGRAM else [m.full])
}
"""Every series by its name, with its labels."""
OTHERS = {"job", "instance", "alertname", "alertstate"}
"""Labels that Prometheus adds."""


def faults(expr: str) -> list[str]:
    """What an expression asks for that is not there: names, labels in braces, labels to group by."""
    out = []
    asked = set(re.findall(r"\bolearning_\w+", expr))
    known: set[str] = set(OTHERS)
    for name in asked:
        if name not in SERIES:
            out.append(f"no metric {name}")
        known |= SERIES.get(name, set())
    for name, inside in re.findall(r"(\w+)\{([^}]*)\}", expr):
        if name in SERIES:
            out += [
                f"{name} has no label {x}"
                for x in re.findall(r"(\w+)\s*[=!]", inside)
                if x not in SERIES[name] | OTHERS
            ]
    for inside in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expr):
        out += [f"no label {x}" for x in re.split(r",\s*", inside) if x not in known]
    return out


@pytest.mark.parametrize("rule", ALERTS, ids=lambda r: r["alert"])
def test_an_alert_asks_for_what_there_is_and_says_what_to_do(rule):
    assert "olearning_" in rule["expr"] or rule["alert"] == "RoleDown"
    assert faults(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "runbook"}
    said = " ".join(rule["annotations"].values())
    assert [x for x in re.findall(r"\bolearning_\w+", said) if x not in SERIES and f"{x}_bucket" not in SERIES] == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda p: p.stem)
def test_a_dashboard_asks_for_what_there_is(board):
    found = json.loads(board.read_text())
    assert found["uid"] == board.stem
    ids = [p["id"] for p in found["panels"]]
    assert len(set(ids)) == len(ids)
    queries = [t["expr"] for p in found["panels"] for t in p.get("targets", [])]
    assert len(queries) > 10
    assert [x for q in queries for x in faults(q)] == []
    variables = {v["name"]: v["query"]["query"] for v in found["templating"]["list"]}
    assert set(re.findall(r"\$(\w+)", " ".join(queries))) == set(variables)
    for name, query in variables.items():
        assert name in SERIES[re.match(r"label_values\((\w+),", query)[1]]


def test_what_is_not_there_is_seen():
    assert faults("sum(olearning_gone)") == ["no metric olearning_gone"]
    assert faults('olearning_leader{device="x"}') == ["olearning_leader has no label device"]
    assert faults("max by (task) (olearning_leader)") == ["no label task"]
    assert faults("olearning_round_seconds") == ["no metric olearning_round_seconds"], (
        "a histogram has no series of that name"
    )


def test_every_alert_has_a_case_where_it_fires_and_one_where_it_does_not():
    quiet, loud = yaml.safe_load((DEPLOY / "prometheus/tests.yml").read_text())["tests"]
    names = [rule["alert"] for rule in ALERTS]
    assert sorted(x["alertname"] for x in quiet["alert_rule_test"]) == sorted(names)
    fires = [x["labels"] for test in loud["promql_expr_test"] for x in test["exp_samples"]]
    assert sorted(fires) == sorted(f'{{alertname="{name}"}}' for name in names)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not here (Debian: package prometheus)")
def test_the_cases_hold():
    for words in (("check", "config", "prometheus.yml"), ("test", "rules", "tests.yml")):
        done = subprocess.run(
            ["promtool", *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
