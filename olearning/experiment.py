"""`olearning experiment`: a figure or table of the papers, made anew: raw results, a picture, a table."""

import subprocess
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments import CATALOGUE
from experiments.asked import Asked, Cannot
from experiments.record import Runs
from olearning import scenario
from olearning.errors import USAGE, Trouble
from olearning.hosting import emit_or_end
from olearning.outcome import Result
from olearning.simulating import follow
from streams.processor import Processor

HERE = Path(__file__).parent


def experiment(name: str, out: Path, data: Path | None, seeds: int, quick: bool) -> None:
    """Run an experiment into `out`. Raises `Trouble` for one that is not known or cannot be."""
    if name not in CATALOGUE:
        raise Trouble(f"no experiment {name!r} is known; known: {', '.join(CATALOGUE)}", USAGE)
    try:
        runs = Runs(out, _commit())
        asked = Asked(name, out, runs, simulate, emit_or_end, data, 1 if quick else seeds, quick)
        module, _, function = CATALOGUE[name].partition(":")
        getattr(import_module(f"experiments.{module}"), function or "run")(asked)
    except Cannot as e:
        raise Trouble(str(e), USAGE) from None


def simulate(tree: Mapping[str, Any], watchers: Sequence[Processor] = ()) -> Result:
    """A scenario, as its file would have it, simulated."""
    return follow(scenario.check(dict(tree), "the scenario"), watchers=watchers)


def _commit() -> str:
    """Of the code that runs: git's, with a + if files differ from it, or the version that is installed."""
    git = ["git", "-C", str(HERE)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return version("olearning")
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
