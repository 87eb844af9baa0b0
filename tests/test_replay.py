"""A replay says what the record knows of other picks, and never more than that."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from connectors.cli import app
from connectors.progress import RichProgress
from connectors.replay import replay, replay_text
from connectors.wiring import Project
from loop.errors import BadConfig
from loop.records import DecisionKind, Score, VerdictKind
from loop.store import items, rounds
from loop.store.database import Store
from tests.builders import (
    a_reply,
    a_round,
    a_verdict,
    an_item,
    checked,
    decided,
    id_of,
    queried,
    sent_to_review,
    trained,
)

SCORED = 8


def a_campaign(store: Store, *, sampled: bool = True) -> None:
    """A first round by chance, and one that asked q2 to q5 of the scored q2 to q9, whose divergence falls."""
    items.add(store, [an_item(f"q{number}") for number in range(12)])
    first = queried(store, a_round(store), ["q0", "q1"], audits=["q0"], arm="cold start")
    for key in ("q0", "q1"):
        decided(store, first, key, DecisionKind.SILVER, a_reply(store, first, key, steps=["one"], answer=1))
    trained(store, first, examples=2, right=0)
    opened = a_round(store)
    answers = [[str(place) for place in range(5)], *[["a"] * most + ["b"] * (5 - most) for most in (3, 4, 5)]]
    rows = [
        Score(
            round_id=id_of(opened), item_key=f"q{2 + place}", chunk=0, score=0.5,
            parts={"intra": 1 - place / SCORED, "inter": 1 - place / SCORED}
            | ({"sampled_answers": answers[3 - place // 2]} if sampled else {}),
        )
        for place in range(SCORED)
    ]  # fmt: skip
    keys = [f"q{2 + place}" for place in range(4)]
    opened = queried(store, opened, keys, audits=keys[:2], arm="divergence")
    rounds.keep_scores(store, rows)
    ids = [a_reply(store, opened, key, steps=["one"], answer=1) for key in keys]
    sent_to_review(store, opened, keys[:2])
    for place, (number, key) in enumerate(zip(ids, keys, strict=True)):
        checked(store, number, 0.1 + 0.2 * place)
        decided(store, opened, key, DecisionKind.SILVER, number)
    a_verdict(store, ids[0], VerdictKind.ACCEPT, minute=1)
    a_verdict(store, ids[1], VerdictKind.REJECT, minute=2)
    trained(store, opened, examples=6, right=0)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    file = tmp_path / "config.toml"
    file.write_text('[run]\nname = "main"\n[review]\nboard = "fake"\n', encoding="utf-8")
    opened = Project(file, RichProgress(Console(quiet=True)))
    yield opened
    opened.store.close()


def test_what_was_planted_in_a_round_was_no_candidate_of_it(project: Project) -> None:
    a_campaign(project.store)
    wanted = {"acquisition": "explanation_divergence", "budget": None, "threshold": None}
    before = replay(project, **wanted)
    likest = {"intra": 1.0, "inter": 1.0, "sampled_answers": list("12345")}
    rounds.keep_scores(project.store, [Score(round_id=2, item_key="q10", chunk=-1, score=1.0, parts=likest)])
    assert replay(project, **wanted) == before


def test_the_function_that_picked_is_replayed_to_its_own_picks(project: Project) -> None:
    a_campaign(project.store)
    found = replay(project, acquisition="explanation_divergence", budget=None, threshold=None)
    assert found["replayed"] == found["real"]
    assert (found["shared"], found["budget"], found["rounds_as_they_were"]) == (6, 6, [])
    assert found["real"]["usd"] == pytest.approx(0.006)


def test_picks_that_were_never_asked_are_counted_and_bear_no_figure(project: Project) -> None:
    """Entropy goes by the sampled answers, which differ most where the divergence is smallest."""
    a_campaign(project.store)
    found = replay(project, acquisition="entropy", budget=None, threshold=None)
    assert (found["replayed"]["picked"], found["replayed"]["known"], found["shared"]) == (6, 2, 2)
    assert found["replayed"]["usd"] == pytest.approx(0.002)
    assert found["replayed"]["passing_wrong"] is None
    text = " ".join(replay_text(found))
    assert "would have picked 6 items, 2 of them as it was; the record knows replies to 2, to 4 it does not" in text
    assert "nothing is said of the items that were never asked" in text
    assert "audits find an unknown share (no audit) of the replies wrong" in text


def test_a_smaller_budget_ends_earlier_and_a_larger_one_is_not_made_up(project: Project) -> None:
    a_campaign(project.store)
    small = replay(project, acquisition="explanation_divergence", budget=3, threshold=None)
    assert (small["replayed"]["picked"], small["real"]["picked"], small["replayed"]["known"]) == (3, 3, 3)
    large = replay(project, acquisition="explanation_divergence", budget=50, threshold=None)
    assert large["replayed"]["picked"] == 6
    assert "the record has no candidates for 44 more items of the budget" in " ".join(replay_text(large))


def test_a_round_after_the_end_of_the_budget_is_not_said_to_be_taken(project: Project) -> None:
    a_campaign(project.store, sampled=False)
    found = replay(project, acquisition="entropy", budget=2, threshold=None)
    assert (found["replayed"]["picked"], found["rounds_as_they_were"]) == (2, [1])


def test_a_threshold_parts_what_passes_and_audits_say_how_much_of_it_is_wrong(project: Project) -> None:
    a_campaign(project.store)
    tight, loose = (
        replay(project, acquisition="explanation_divergence", budget=None, threshold=at)["replayed"]
        for at in (0.2, 0.45)
    )
    assert [(each["checked"], each["passing"]) for each in (tight, loose)] == [(4, 1), (4, 2)]
    assert [(each["passing_wrong"]["found"], each["passing_wrong"]["n"]) for each in (tight, loose)] == [(0, 1), (1, 2)]
    assert tight["review_minutes"] > loose["review_minutes"]


def test_random_picks_come_from_the_whole_pool(project: Project) -> None:
    a_campaign(project.store)
    found = replay(project, acquisition="random", budget=None, threshold=None)
    assert found["replayed"]["picked"] == 6
    assert found["replayed"]["known"] < 6


def test_scores_without_what_is_looked_at_leave_the_round_as_it_was(project: Project) -> None:
    a_campaign(project.store, sampled=False)
    found = replay(project, acquisition="margin", budget=None, threshold=None)
    assert found["rounds_as_they_were"] == [1, 2]
    assert "without the scores that this needs, taken as they were: round 1, 2" in " ".join(replay_text(found))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"acquisition": "coreset"}, "coreset looks at embeddings, which no round stores"),
        ({"acquisition": "best"}, "best: no such acquisition function; can be replayed: explanation_divergence"),
        ({"budget": 0}, "a budget of 0 items asks nothing"),
        ({"threshold": 1.5}, "threshold 1.5: risks lie between 0 and 1"),
    ],
)
def test_what_cannot_be_replayed_is_told(project: Project, options: dict[str, object], told: str) -> None:
    a_campaign(project.store)
    asked = {"acquisition": "entropy", "budget": None, "threshold": None} | options
    with pytest.raises(BadConfig, match=told):
        replay(project, **asked)


def test_nothing_can_be_replayed_before_a_round_has_closed(project: Project) -> None:
    a_round(project.store)
    said = CliRunner().invoke(app, ["replay", "--config", str(project.path)])
    assert said.exit_code == 1
    assert "no round has closed yet" in str(said.exception)


def test_the_command_says_what_the_record_supports(project: Project) -> None:
    a_campaign(project.store)
    said = CliRunner().invoke(
        app, ["replay", "--config", str(project.path), "--acquisition", "entropy", "--budget", "5"]
    )
    assert said.exit_code == 0, said.output
    assert "entropy would have picked 5 items" in said.output
