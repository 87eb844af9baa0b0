"""What people said of earlier rounds is what the risk learns from."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from loop.records import RiskFit, VerdictKind
from loop.store import items, rationales
from loop.store.database import Store
from tests.builders import (
    NOON,
    RUN,
    a_reply,
    a_round,
    a_store,
    a_verdict,
    an_item,
    checked,
    id_of,
    queried,
    sent_to_review,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = a_store(tmp_path)
    yield opened
    opened.close()


def test_what_people_judged_comes_with_the_risk_it_had_and_late_verdicts_do_not_count(store: Store) -> None:
    items.add(store, [an_item(key) for key in ("a", "b")])
    opened = a_round(store)
    queried(store, opened, ["a", "b"], audits=["b"])
    replies = {key: a_reply(store, opened, key, steps=["so"], answer=1) for key in ("a", "b")}
    for reply in replies.values():
        checked(store, reply, 0.4)
    sent_to_review(store, opened, ["a", "b"])
    a_verdict(store, replies["a"], VerdictKind.ACCEPT)
    a_verdict(store, replies["a"], VerdictKind.REJECT, minute=1)
    a_verdict(store, replies["b"], VerdictKind.ACCEPT, minute=5)
    now = NOON + timedelta(minutes=2)
    (found,) = rationales.judged(store, RUN, now)
    assert (found.rationale.id, found.wrong, found.query.audit, found.risk.value) == (replies["a"], True, False, 0.4)
    later = rationales.judged(store, RUN, NOON + timedelta(minutes=9))
    assert [(each.item.key, each.wrong, each.query.audit) for each in later] == [("a", True, False), ("b", False, True)]


def test_a_round_keeps_its_first_risk_model(store: Store) -> None:
    opened = a_round(store)
    first = RiskFit(round_id=id_of(opened), base=-2.0, weights={"a": 0.5}, reviewed=3, fitted_at=NOON)
    second = RiskFit(round_id=id_of(opened), base=0.0, weights={}, reviewed=9, fitted_at=NOON)
    assert rationales.keep_risk_fit(store, first).reviewed == 3
    assert rationales.keep_risk_fit(store, second).reviewed == 3
    stored = rationales.risk_fit(store, id_of(opened))
    assert stored is not None
    assert (stored.base, stored.weights) == (-2.0, {"a": 0.5})
