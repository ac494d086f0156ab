"""CP-SAT as all plans ask it: one worker and a fixed seed, so that a question has the same answer on every machine."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpSolver


def solver(work: float | None, seconds: float = 0.0, seed: int = 0) -> "CpSolver":
    """A solver with a limit: `work` in its own measure (about a second of a fast core each), by which it always stops at the same
    place; or, where that is None, `seconds` of the clock, by which it does not."""
    from ortools.sat.python import cp_model  # 1 to 2 s, and 60 MB: only who solves pays

    made = cp_model.CpSolver()
    made.parameters.num_workers = 1
    made.parameters.random_seed = seed
    if work is None:
        made.parameters.max_time_in_seconds = seconds
    else:
        made.parameters.max_deterministic_time = work
    return made
