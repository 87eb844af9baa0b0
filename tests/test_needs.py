"""What the order of reviews goes by comes off the store, and moves with every verdict."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from connectors.needs import review_worth
from loop.config import BudgetConfig, Config, ReviewConfig
from loop.records import DecisionKind, Risk, Round, Score, VerdictKind
from loop.store import items, rationales, rounds
from loop.store.database import Store
from tests.builders import (
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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def a_checked_round(store: Store, evidence: dict[str, float], steps: Sequence[str] = ("1 + 1 = 2",)) -> Round:
    """A round with a rationale for each key, with so much evidence by the check of its name's first letter."""
    items.add(store, [an_item(key, domain=key[-1]) for key in evidence])
    opened = queried(store, a_round(store), list(evidence))
    for key, weight in evidence.items():
        number = a_reply(store, opened, key, steps=steps, answer=2)
        risk = Risk(rationale_id=number, value=0.5, check_set="c", evidence={key[0]: weight} if weight else {})
        rationales.keep_checked(store, [risk], [])
    sent_to_review(store, opened, list(evidence))
    return opened


def worths(store: Store, opened: Round, config: Config | None = None) -> dict[str, float]:
    """What a minute is worth by item."""
    rows = [each for each in rationales.of_round(store, id_of(opened)) if each.supersedes is None]
    found = review_worth(store, config or Config(), rows)
    return {each.item_key: found[each.id or 0] for each in rows}


def test_more_evidence_and_more_doubt_of_the_student_are_worth_more(store: Store) -> None:
    opened = a_checked_round(store, {"a-x": 0.0, "b-x": 3.0, "c-x": 3.0})
    rounds.keep_scores(store, [Score(round_id=id_of(opened), item_key="c-x", chunk=0, score=0.1, parts={})])
    found = worths(store, opened)
    assert found["a-x"] < found["c-x"] < found["b-x"]


def test_a_verdict_moves_what_is_still_open(store: Store) -> None:
    opened = a_checked_round(store, {"a1-x": 2.0, "a2-x": 2.0, "a3-x": 2.0, "b1-x": 2.0, "b2-x": 2.0})
    before = worths(store, opened)
    assert before["a3-x"] == before["b2-x"]
    ids = {each.item_key: each.id or 0 for each in rationales.of_round(store, id_of(opened))}
    for key in ("a1-x", "a2-x"):
        a_verdict(store, ids[key], VerdictKind.ACCEPT)
    a_verdict(store, ids["b1-x"], VerdictKind.REJECT)
    after = worths(store, opened)
    assert after["a3-x"] < after["b2-x"]


def test_domains_whose_wrong_rationales_are_rejected_are_worth_less(store: Store) -> None:
    opened = a_checked_round(store, {"a-x": 2.0, "a-y": 2.0, "b-x": 2.0})
    decided(store, opened, "b-x", DecisionKind.REJECTED, None)
    found = worths(store, opened)
    assert found["a-x"] < found["a-y"]


def test_minutes_that_a_simulated_reviewer_claims_teach_nothing(store: Store) -> None:
    opened = a_checked_round(store, {"a-x": 0.0, "b-x": 0.0})
    number = next(each.id or 0 for each in rationales.of_round(store, id_of(opened)) if each.item_key == "a-x")
    slow = Config(review=ReviewConfig(minutes_per_review=100.0))
    a_verdict(store, number, VerdictKind.ACCEPT, simulated=True)
    simulated = worths(store, opened, slow)["b-x"]
    a_verdict(store, number, VerdictKind.ACCEPT, minute=1)
    assert worths(store, opened, slow)["b-x"] == pytest.approx(simulated * 100 / ((10 * 100 + 0.5) / 11))


def test_a_dear_teacher_makes_corrections_worth_more(store: Store) -> None:
    opened = a_checked_round(store, {"a-x": 3.0})
    priced = Config(budget=BudgetConfig(usd_per_review_hour=0.06))
    assert worths(store, opened, priced)["a-x"] > worths(store, opened)["a-x"]
