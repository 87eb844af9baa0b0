"""A part of the crash matrix, a kill of each kind; `make crash-matrix` runs all of it."""

from pathlib import Path
from signal import SIGKILL

import pytest

from loop.store.money import Purse
from tests.crash_matrix import cell, resumed, summary, table, wanted
from tests.dying import Moment
from tests.tiny import tiny_project
from tests.whole_campaign import Lived, in_a_process, unkilled

NO_TABLES = "before there are tables"
KILLS = {
    NO_TABLES: ("commit the whole schema at", "first", "before"),
    "scores are stored": ("commit score at rounds.keep_scores < select._race", "first", "after"),
    "a request is sent and not answered": ("request POST /v#/chat/completions", "middle", "amid"),
    "a reply came and is not stored": ("commit charge, prompt, rationale, reply at", "first", "before"),
    "verdicts came and are not stored": ("commit charge, verdict at", "last", "before"),
    "in mid-training": ("rename .round-#.training.partial at", "middle", "after"),
    "a checkpoint is whole and unknown": ("commit checkpoint at", "last", "before"),
    "a round was evaluated and is not closed": ("commit evaluation, round at", "first", "before"),
}
"""Where the campaign dies: how the site's name begins, which time, and on which side."""


@pytest.fixture(scope="module")
def lived() -> Lived:
    """The campaign that nobody kills."""
    return unkilled("fake")


def the_cell(lived: Lived, start: str, place: str, side: str) -> tuple[object, ...]:
    """The one cell of the matrix that is meant."""
    cells = [key for key in wanted("fake", lived.counts) if key[1].startswith(start)]
    [found] = [key for key in cells if (key[2], key[4]) == (place, side)]
    return found


ITS_FILE = pytest.mark.sqlite("on PostgreSQL a test's database is a copy of one with tables")


@pytest.mark.parametrize("kill", [pytest.param(each, marks=[ITS_FILE] if each is NO_TABLES else []) for each in KILLS])
def test_a_killed_campaign_ends_as_it_would_have_ended(kill: str, lived: Lived) -> None:
    row = cell(lived.facts, "", *the_cell(lived, *KILLS[kill]))
    assert row["differences"] == []


def forgetful() -> None:
    """Holds of dead processes stay open."""
    Purse.close_dead_holds = lambda _: 0


def test_what_comes_out_otherwise_is_found(lived: Lived, tmp_path: Path) -> None:
    config = tiny_project(tmp_path)
    _, site, _, occurrence, side = the_cell(lived, *KILLS["a request is sent and not answered"])
    assert in_a_process(config, Moment(site, occurrence, side)) == -SIGKILL
    row = resumed(config, lived.facts, first=forgetful)
    assert [line.partition(":")[0] for line in row["differences"]] == ["held money"]


def test_the_matrix_names_its_size_and_every_difference() -> None:
    cells = [
        {"board": "fake", "site": "commit x", "place": "first", "occurrence": 1, "side": side, "assumed": held}
        for side, held in (("before", []), ("after", [["ask/q1/0/0", 12]]))
    ]
    same, other = cells[0] | {"differences": []}, cells[1] | {"differences": ["replies: 1 and not 2"]}
    assert summary([same, other]).splitlines() == [
        "2 kills at 1 sites: 1 came out the same, 1 not",
        "in 1 of them requests in flight were charged at worst case, 1 in 1",
        "['fake', 'commit x', 'first', 1, 'after']: replies: 1 and not 2",
    ]
    assert [*table([same, other]).columns[2].cells] == ["1/2"]
