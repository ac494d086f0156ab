"""The benchmark of derivation, small: what it measures, and what it says. No figure of speed is looked at."""

from benchmarks import derive
from benchmarks.line import Line


def test_a_line_for_each_form_and_way_beside_limit_and_greedy():
    lines: list[Line] = []
    derive.run(lines.append, forms=((2, 5, 0.05), (1, 6, 0.2)), profiles=4)
    assert [x.case for x in lines] == ["2x5 solved", "2x5 kept", "1x6 solved", "1x6 kept"]
    assert [x.limit for x in lines] == [0.05, 0.05, 0.2, 0.2]
    for x in lines:
        assert (x.unit, x.peer) == ("s", "greedy")
        assert x.settings["gain"] >= 0
        assert x.settings["hits"] == 4  # each was asked before
        assert x.settings["most_s"] >= round(x.value, 5)
