"""docs/operations.md says what to do at each alert, and at none that there is not."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_alert_is_explained() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    section = (ROOT / "docs/operations.md").read_text().split("## Alerts")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(alerts)
