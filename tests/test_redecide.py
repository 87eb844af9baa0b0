"""What people say after a round has decided changes its decisions, and the history of that is kept."""

from pathlib import Path

import pytest
from rich.console import Console

from connectors.exports import export
from connectors.history import history, history_text
from connectors.status import round_figures
from loop.config import Config
from loop.records import Decision, DecisionKind, Query, Round, Stage, Verdict, VerdictKind
from loop.stages.redecide import redecide
from loop.store import counting, decisions, items, reading, reviews, rounds
from loop.store.database import Store, now, values
from loop.store.reviews import RunReviewBook
from tests.builders import (
    RUN,
    a_number,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    decided,
    id_of,
    queried,
    sent_to_review,
)

KEYS = ["q0", "q1", "q2"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = a_store(tmp_path)
    items.add(store, [an_item(key) for key in KEYS])
    return store


def asked(store: Store, keys: list[str]) -> tuple[Round, list[int]]:
    """A round in review, and its rationales."""
    opened = queried(store, a_round(store), keys)
    ids = [a_reply(store, opened, key, steps=["1 + 1 = 2"], answer=2) for key in keys]
    sent_to_review(store, opened, keys)
    return opened, ids


def in_force(store: Store, key: str = "q0") -> Decision:
    return decisions.newest(store, RUN)[key]


def test_a_late_verdict_makes_gold_of_what_was_undecided(store: Store) -> None:
    opened, ids = asked(store, KEYS)
    for key, number in zip(KEYS, ids, strict=True):
        decided(store, opened, key, DecisionKind.UNDECIDED, number)
    a_verdict(store, ids[0], VerdictKind.ACCEPT)
    assert redecide(store, RUN, Config()) == 1
    assert redecide(store, RUN, Config()) == 0
    first, second = (row for row in reading.decisions_of(store, RUN) if row.item_key == "q0")
    assert (second.kind, second.supersedes, second.version) == (DecisionKind.GOLD, first.id, 2)
    assert second.reason == "accepted by review, after the round had decided"
    assert in_force(store, "q1").kind is DecisionKind.UNDECIDED


def test_a_changed_verdict_is_followed_and_back(store: Store) -> None:
    opened, ids = asked(store, ["q0"])
    a_verdict(store, ids[0], VerdictKind.ACCEPT)
    decided(store, opened, "q0", DecisionKind.GOLD, ids[0])
    assert redecide(store, RUN, Config()) == 0
    a_verdict(store, ids[0], VerdictKind.REJECT, minute=1)
    assert redecide(store, RUN, Config()) == 1
    assert in_force(store).kind is DecisionKind.REJECTED
    a_verdict(store, ids[0], VerdictKind.ACCEPT, minute=2)
    assert redecide(store, RUN, Config()) == 1
    assert [row.kind for row in reading.decisions_of(store, RUN)] == ["gold", "rejected", "gold"]


def test_another_correction_takes_the_place_of_the_first(store: Store) -> None:
    opened, ids = asked(store, ["q0"])
    decided(store, opened, "q0", DecisionKind.UNDECIDED, ids[0])
    for minute, steps in enumerate((["1 + 1 = 3"], ["1 + 2 = 3"])):
        corrected(store, ids[0], steps, minute)
        assert redecide(store, RUN, Config()) == 1
        ((_, rationale, _),) = decisions.decided(store, RUN)
        assert (rationale.steps, rationale.supersedes) == (steps, ids[0])
    assert redecide(store, RUN, Config()) == 0


def corrected(store: Store, number: int, steps: list[str], minute: int) -> None:
    a_verdict(store, number, VerdictKind.REJECT, minute=minute)
    with store.writing() as session:
        changed = values(Verdict, Verdict.updated_at == f"2026-01-01T12:{minute:02}:00.000001Z")
        session.execute(changed.values(kind=VerdictKind.EDIT, steps=steps, answer=a_number(3)))


def test_a_deleted_verdict_no_longer_decides(store: Store) -> None:
    opened, ids = asked(store, ["q0"])
    a_verdict(store, ids[0], VerdictKind.ACCEPT)
    decided(store, opened, "q0", DecisionKind.GOLD, ids[0])
    assert RunReviewBook(store, RUN).mark_deleted("fake", "1", {f"{RUN}/1/q0": []}, before=now()) == 1
    assert redecide(store, RUN, Config()) == 1
    assert (in_force(store).kind, in_force(store).reason) == (DecisionKind.UNDECIDED, "its verdict was deleted")
    console = Console(record=True, width=200)
    console.print(history_text(history(store, RUN, "q0")))
    assert "(deleted on the board)" in console.export_text()


def test_late_gold_stays_where_a_later_round_found_nothing_better(store: Store) -> None:
    first, ids = asked(store, ["q0"])
    decided(store, first, "q0", DecisionKind.UNDECIDED, ids[0])
    rounds.enter(store, first, Stage.CLOSED)
    second, again = asked(store, ["q0"])
    a_verdict(store, ids[0], VerdictKind.ACCEPT)
    assert redecide(store, RUN, Config()) == 1
    assert in_force(store).round_id == id_of(first)
    decided(store, second, "q0", DecisionKind.UNDECIDED, again[0])
    assert redecide(store, RUN, Config()) == 1
    assert (in_force(store).kind, in_force(store).rationale_id) == (DecisionKind.GOLD, ids[0])
    a_verdict(store, again[0], VerdictKind.ACCEPT)
    assert redecide(store, RUN, Config()) == 1
    assert in_force(store).rationale_id == again[0]
    assert redecide(store, RUN, Config()) == 0


def test_audits_that_certify_are_not_decided_by_late_verdicts(store: Store) -> None:
    opened, ids = asked(store, ["q0"])
    with store.writing() as session:
        session.execute(values(Query, Query.round_id == opened.id).values(certify=True))
    decided(store, opened, "q0", DecisionKind.GOLD, ids[0])
    a_verdict(store, ids[0], VerdictKind.REJECT)
    assert redecide(store, RUN, Config()) == 0
    assert in_force(store).kind is DecisionKind.GOLD


def test_status_and_export_follow(store: Store, tmp_path: Path) -> None:
    opened, ids = asked(store, ["q0"])
    decided(store, opened, "q0", DecisionKind.UNDECIDED, ids[0])
    a_verdict(store, ids[0], VerdictKind.ACCEPT)
    redecide(store, RUN, Config())
    (figures,) = round_figures(store, RUN, counting.verdicts(store, RUN))
    assert figures["accepted"] == 1
    export(store, RUN, tmp_path / "out")
    assert len((tmp_path / "out" / "examples.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    assert reviews.pending(store, id_of(opened)) == []
