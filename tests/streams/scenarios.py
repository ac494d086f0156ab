"""Exploring a model of the ledger's protocol state by state, with the project's own fold as its judge.

A model has `init`, a state; `moves(state)`, which yields (what, is it a fault, the next state); `goal(state)`; and
`broken(state)`, what is wrong with it or "". States are hashable, and equal ones are one.
"""

from collections import deque
from typing import Any

import pytest

from streams import ledger
from streams.ledger import chains


class Interned:
    """What a ledger told, each once: named tuples with a fold in front. A model's states name them by their numbers in `told`."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self._known: dict[tuple, int] = {}

    def intern(self, t: Any) -> int:
        key = (ledger.snapshot(t[0]), t[1:])
        if key not in self._known:
            self._known[key] = len(self.told)
            self.told.append(t)
        return self._known[key]


def put(t: tuple, i: int, x: Any) -> tuple:
    return (*t[:i], x, *t[i + 1 :])


def explore(model: Any, limit: int) -> tuple[int, str, list[str]]:
    """Breadth first: (states, what is wrong, the history that leads there). Progress is judged if all states were seen."""
    index, parents, back, todo, goals = {model.init: 0}, [(0, "")], [[]], deque([model.init]), []

    def history(i: int) -> list[str]:
        out = []
        while i:
            i, what = parents[i]
            out.append(what)
        return out[::-1]

    while todo:
        st = todo.popleft()
        i = index[st]
        if model.goal(st):
            goals.append(i)
        for what, is_fault, new in model.moves(st):
            j = index.setdefault(new, len(parents))
            if j == len(parents):
                parents.append((i, what))
                back.append([])
                if wrong := model.broken(new):
                    return j, wrong, history(j)
                if j >= limit:
                    return j, "", []
                todo.append(new)
            if not is_fault:
                back[j].append(i)
    good = set(goals)
    while goals:
        new = [i for i in back[goals.pop()] if i not in good]
        good.update(new)
        goals.extend(new)
    stuck = next((i for i in range(len(parents)) if i not in good), None)
    return len(parents), "" if stuck is None else "no way to the end", history(stuck or 0)


def breaks(model: Any, limit: int, finding: str) -> None:
    """Something is wrong with it, and that is what is found."""
    states, wrong, past = explore(model, limit)
    print(f"{type(model).__name__}: {states} states, {len(past)} steps: {wrong}")
    assert wrong
    assert finding in wrong


def without(monkeypatch: pytest.MonkeyPatch, *reasons: str) -> None:
    """The fold does not void for these reasons."""
    strict = chains.require

    def lax(holds: bool, reason: str) -> None:
        if not any(r in reason for r in reasons):
            strict(holds, reason)

    monkeypatch.setattr(chains, "require", lax)
