"""Stretches of time: [start, end), in lists that are in order and disjoint."""

from collections.abc import Iterable, Iterator

Span = tuple[float, float]


def solid(spans: Iterable[Span]) -> list[Span]:
    """Those in order of their starts, without empty ones, and those that touch or overlap made one."""
    out: list[Span] = []
    for a, b in spans:
        if a >= b:
            continue
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        else:
            out.append((a, b))
    return out


def both(one: Iterable[Span], other: list[Span]) -> Iterator[Span]:
    """What lies in both."""
    for a, b in one:
        for c, d in other:
            if max(a, c) < min(b, d):
                yield max(a, c), min(b, d)


def without(spans: Iterable[Span], cuts: list[Span]) -> Iterator[Span]:
    """What is left of the spans. Cuts may overlap: they are in order of their starts and of their ends."""
    for a, b in spans:
        for c, d in cuts:
            if c >= b:
                break
            if d > a:
                if c > a:
                    yield a, c
                a = d
        if a < b:
            yield a, b
