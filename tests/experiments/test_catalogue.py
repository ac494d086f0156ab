"""Every experiment that is named is there, and says what it shows; the page has its results or says that it has none."""

from importlib import import_module
from pathlib import Path

import pytest

from experiments import CATALOGUE

PAGE = (Path(__file__).parents[2] / "experiments/README.md").read_text()


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_is_there(name):
    module, _, function = CATALOGUE[name].partition(":")
    found = getattr(import_module(f"experiments.{module}"), function or "run")
    assert found.__doc__
    assert f"experiment {name} " in PAGE or f"`{name}`" in PAGE
