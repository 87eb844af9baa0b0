"""A holdout made by people: what is sent, and what becomes of the answers."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from connectors import holdout
from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.config import Config
from loop.records import Split
from loop.store import items
from tests.builders import a_round, an_item, queried


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Thirty pool items, five of which a round asked about, and an item of the seed."""
    file = tmp_path / "config.toml"
    file.write_text('[task]\nanswer = "number"\n[review]\nboard = "fake"\n', encoding="utf-8")
    made = Project(file, RichProgress(Console(quiet=True)))
    with closing(made.store) as store:
        items.add(store, [an_item(f"i{n}") for n in range(30)])
        items.add(store, [an_item("seed", Split.SEED)])
        queried(store, a_round(store, Config()), [f"i{n}" for n in range(5)])
        made.folder.mkdir(parents=True)
        yield made


def sent(project: Project) -> list[str]:
    return [task.data["item_key"] for task in project.holdout_board.open_tasks()]


def test_items_that_are_sent_are_drawn_from_all_that_no_round_asked_about(project: Project) -> None:
    said = holdout.label(project, 8)
    assert "8 questions wait" in said
    free = sorted(f"i{n}" for n in range(5, 30))
    assert sent(project) == random.Random(f"holdout/{project.config.run.seed}/25").sample(free, 8)


def test_what_waits_is_not_sent_again(project: Project) -> None:
    holdout.label(project, 8)
    first = sent(project)
    holdout.label(project, 20)
    assert sent(project)[:8] == first
    assert len(set(sent(project))) == 20
    assert not {*sent(project)} & {f"i{n}" for n in range(5)}


def test_no_more_is_sent_than_there_is(project: Project) -> None:
    holdout.label(project, 100)
    assert sorted(sent(project)) == sorted(f"i{n}" for n in range(5, 30))
    assert "25 questions wait" in holdout.label(project, 100)


def test_of_a_pool_only_what_is_sent_is_in_memory(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[str] = []
    existing = items.existing

    def counted(store: object, keys: object) -> object:
        asked_for.extend(keys)  # type: ignore[call-overload]
        return existing(project.store, asked_for)

    monkeypatch.setattr(items, "existing", counted)
    monkeypatch.delattr(items, "of_split")
    holdout.label(project, 3)
    assert sorted(asked_for) == sorted(sent(project))
