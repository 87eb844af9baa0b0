"""Inviting people, and what the doctor says about them."""

from pathlib import Path

import pytest
from rich.console import Console

from connectors.doctor import diagnose
from connectors.history import history
from connectors.progress import RichProgress
from connectors.reviewing import invite
from connectors.wiring import Project
from loop.errors import BadConfig
from loop.store import reviews
from tests.builders import RUN, a_campaign, a_store


def a_project(folder: Path, review: str) -> Project:
    file = folder / "config.toml"
    file.write_text(f"[review]\n{review}\n", encoding="utf-8")
    return Project(file, RichProgress(Console(quiet=True)))


def test_a_fake_board_has_no_accounts(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match='set it to "label_studio"'):
        invite(a_project(tmp_path, 'board = "fake"'), ["ann@example.org"], link_only=False)


def test_without_a_server_the_cure_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="preceptor review up"):
        invite(a_project(tmp_path, ""), ["ann@example.org"], link_only=True)


@pytest.mark.parametrize(
    ("review", "needed"),
    [
        ("", 3),
        ('disagreements = "strictest"', 2),
        ("certify_share = 0.0", 1),
        ("audit_share = 0.0\nsecond_share = 0.1", 3),
    ],
)
def test_the_doctor_says_how_many_people_second_reviews_need(tmp_path: Path, review: str, needed: int) -> None:
    names = [f"p{number}@example.org" for number in range(3)]
    for count in (1, 2, 3):
        people = ", ".join(f'{{name = "{name}"}}' for name in names[:count])
        project = a_project(tmp_path, f'board = "fake"\n{review}\nreviewers = [{people}]')
        found = {each.part: each for each in diagnose(project.path, lambda project=project: project)}
        assert found["reviewers"].fine == (count >= needed)
        assert found["reviewers"].fine or f"{needed} people are needed" in found["reviewers"].text


@pytest.mark.parametrize(
    ("reviewers", "told"),
    [
        ('[{name = "ann"}, {name = "Ann"}]', "ann stands there twice"),
        ('[{name = "ann", capacity = 0}]', r"review\.reviewers\.0\.capacity: .*greater than or equal to 1"),
        ('[{nam = "ann"}]', r"review\.reviewers\.0\.nam: unknown key; did you mean `name`"),
    ],
)
def test_wrong_reviewers_are_named_by_key(tmp_path: Path, reviewers: str, told: str) -> None:
    with pytest.raises(BadConfig, match=told):
        a_project(tmp_path, f"reviewers = {reviewers}")


def test_the_history_of_an_item_names_no_assignee(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    current = a_campaign(store)
    book = reviews.RunReviewBook(store, RUN)
    task, rationale = book.queue(current.id or 0)[0]
    task.assignee = "ann@example.net"
    book.keep_queued([task])
    found = history(store, RUN, rationale.item_key)
    assert "example.net" not in str(found)
    assert found["tasks"][0]["assignee"] == "somebody"
    store.close()
