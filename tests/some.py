"""Of many cases alike, what `make unit` takes: a few. `make proofs` and `make test` take the rest too."""

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], n: int = 1) -> list[Any]:
    """The cases of a parametrised test, of which `n`, spread over all, belong to the unit tests, and the others to the proofs."""
    of = list(cases)
    kept = {i * len(of) // n for i in range(n)}
    return [case if i in kept else _proof(case) for i, case in enumerate(of)]


def _proof(case: Any) -> Any:
    if isinstance(case, tuple) and hasattr(case, "marks"):  # a `pytest.param`
        return pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.proof])
    return pytest.param(*case if isinstance(case, tuple) else (case,), marks=pytest.mark.proof)
