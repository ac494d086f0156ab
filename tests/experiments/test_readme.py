"""The figures in the tables of experiments/README.md are those that the experiments wrote.

The rule: a table of the page belongs to the results that were linked last above it in its chapter. Where the first cell of one of its rows is
that of a row of these results' table.md, its numbers stand in that row in this order, rounded as far as the page rounds them; and this holds
for all such rows of the table by the same one table there. Rows and columns may be left out.
"""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "experiments"
PAGE = (HERE / "README.md").read_text()
WRITTEN = {path.parent.name: path.read_text() for path in sorted(HERE.glob("results/*/table.md"))}

Table = list[list[str]]


def tables(text: str) -> Iterator[tuple[str, Table]]:
    """Each table's rows of cells, the head among them, and by `results/NAME/` in the text whose it is, "" for nobody's."""
    of, table = "", Table()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            if not re.fullmatch(r"[|:\- ]+", line):
                table.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if table:
            yield of, table
            table = []
        if line.startswith("## "):
            of = ""
        of = (re.findall(r"\(results/([\w-]+)/", line) or [of])[-1]


def numbers(cells: Sequence[str]) -> list[Decimal]:
    return [Decimal(n.replace(",", "")) for n in re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", " ".join(cells))]


def rounded(said: Decimal, written: Decimal) -> bool:
    """Whether one may say the one for the other: half a unit of its last digit apart at most."""
    return abs(said - written) * 2 <= Decimal(1).scaleb(int(said.as_tuple().exponent))


def follows(row: Sequence[str], table: Table) -> bool:
    """Whether it says what one of the rows of its name does."""
    for other in table:
        rest = iter(numbers(other[1:]))
        if other[0] == row[0] and all(any(rounded(said, n) for n in rest) for said in numbers(row[1:])):
            return True
    return False


def compared(page: str, written: str, name: str) -> Iterator[tuple[Table, Table]]:
    """The rows of each of the page's tables that have a name in these results, and of these those that are false; of the results' tables by
    the one that makes the fewest false."""
    theirs = [table for _, table in tables(written)]
    for of, table in tables(page):
        named = [row for row in table if of == name and any(row[0] == r[0] for other in theirs for r in other)]
        if named:
            yield named, min(([row for row in named if not follows(row, other)] for other in theirs), key=len)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_page_says_what_was_written(name):
    assert [row for _, wrong in compared(PAGE, WRITTEN[name], name) for row in wrong] == []


def test_most_of_the_page_s_rows_are_compared():
    rows = sum(len(table) for of, table in tables(PAGE) if of)
    assert sum(len(named) for name in WRITTEN for named, _ in compared(PAGE, WRITTEN[name], name)) > 0.8 * rows


WORKED = "| way | steps | lost |\n|---|--:|--:|\n| a | 1,234 ± 5 (3) | 0.346 |\n| b | 2 | -0.050 |\n\n| way | lost |\n|---|--:|\n| a | 0.9 |\n"


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("| a | 1,234 | 0.35 |", 0),
        ("| a | 1,234 ± 5 (3) | 0.346 |\n| b | 2.0 | -0.05 |", 0),
        ("| b | -0.1 |\n| c | 7 |", 0),  # a column left out, and a row of the page's own
        ("| a | 0.9 |", 0),
        ("| a | 1,234 | 0.36 |", 1),
        ("| a | 1,235 | 0.35 |", 1),
        ("| a | 0.35 | 1,234 |", 1),  # another order
        ("| b | 0.050 |", 1),
        ("| a | 0.9 |\n| b | 2 | -0.050 |", 1),  # of two tables
        ("| a | 1,234 | 0.346 | 0.9 |", 1),
    ],
)
def test_control_a_figure_that_was_not_written_is_found(said, wrong):
    page = f"## One\n![its picture](results/one/one.png)\n\n{said}\n\n## Two\n\n| a | 77 |\n"
    assert [len(rows) for _, rows in compared(page, WORKED, "one")] == [wrong]
