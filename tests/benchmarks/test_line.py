"""The record that every benchmark prints."""

import io
import json

import pytest
from rich.console import Console

from benchmarks.line import Line, count, number, table

LINE = Line("add", "devices=50 parameters=11.2M", 3.3333333e9, "B/s", 1e10, {"codec": "int32"})
FULL = Line("round", "devices=10", 0.5, "s", 0.01, {}, "flower", 10.0, 42.0, 239.6)


def test_json_has_the_fields_that_were_asked_for() -> None:
    assert FULL.as_json() == {
        "bench": "round",
        "case": "devices=10",
        "value": 0.5,
        "unit": "s",
        "limit": 0.01,
        "ratio": 50.0,
        "peer": "flower",
        "peer_value": 10.0,
        "peer_ratio": 0.05,
        "peak_rss_mb": 42.0,
        "memory_limit_mb": 239.6,
        "settings": {},
    }


def test_json_leaves_out_what_was_not_measured_and_rounds_to_four_figures() -> None:
    out = json.loads(json.dumps(LINE.as_json()))
    assert out.keys() == {"bench", "case", "value", "unit", "limit", "ratio", "settings"}
    assert out["value"] == 3.333e9
    assert out["ratio"] == 0.3333
    assert out["settings"] == {"codec": "int32"}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_figure_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="was not measured"):
        Line("add", "c", value, "B/s", 1.0)
    with pytest.raises(ValueError, match="was not measured"):
        Line("add", "c", 1.0, "B/s", value)


def test_a_peer_comes_with_its_value() -> None:
    with pytest.raises(ValueError, match="come together"):
        Line("add", "c", 1.0, "B/s", 1.0, peer="flower")


def test_the_table_shows_each_line_in_one_row() -> None:
    text = io.StringIO()
    Console(file=text, width=200).print(table([LINE, FULL]))
    rows = text.getvalue().splitlines()
    assert len(rows) == 3
    assert rows[1].split()[:5] == ["add", "devices=50", "parameters=11.2M", "3.333e+09", "B/s"]
    assert rows[2].split() == ["round", "devices=10", "0.5", "s", "0.01", "50", "flower", "10", "0.05", "42", "239.6"]


@pytest.mark.parametrize(
    ("n", "text"),
    [(7, "7"), (500, "500"), (10_000, "10k"), (1_200_000, "1.2M"), (11_200_000, "11.2M"), (21_300, "21.3k")],
)
def test_counts_as_cases_name_them(n: int, text: str) -> None:
    assert number(n) == text
    assert count(text) == n


def test_what_is_no_round_number_is_named_exactly() -> None:
    assert number(1_234_567) == "1234567"


@pytest.mark.parametrize("text", ["", "k", "x", "0", "-3", "1.5", "1.23456k", "nan", "1e3", "1.2G"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a count"):
        count(text)
