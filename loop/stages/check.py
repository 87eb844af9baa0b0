"""CHECK: every rationale gets its doubts and its risk; known errors are planted among them."""

import math
from collections import Counter
from datetime import UTC, datetime

from loop.checks.planted import Good, choose
from loop.config import Config
from loop.ports import Student
from loop.query import select
from loop.records import CONTROL, Author, Rationale, Round, Stage
from loop.stages.checking import Checking
from loop.stages.looking import learned, looking
from loop.stages.parts import Parts, id_of, seed_of, student_in_force
from loop.stages.review import wanted
from loop.store import items, planted, rationales, rounds
from loop.store.database import Store


def check_rationales(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Check what was asked, then what is planted among it, which has learned nothing from its own items."""
    student = student_in_force(current, store, parts)
    checking = Checking(current, store, parts, config)
    looked_at = looking(current, store, parts, config)
    checking(rationales.unchecked(store, id_of(current)), looked_at, learned(current, store, looked_at, config))
    _plant(current, store, student, config)
    bad = rationales.unchecked(store, id_of(current), planted=True)
    if bad:
        looked_at, unseen = looking(current, store, parts, config), {each.item_key for each in bad}
        checking(bad, looked_at, learned(current, store, looked_at, config, unseen=unseen))
    checking.say()
    return rounds.enter(store, current, Stage.REVIEW, review_opened_at=datetime.now(UTC))


def _plant(current: Round, store: Store, student: Student | None, config: Config) -> None:
    """Make the round's planted rationales, once, and let the student look at their items as at any other."""
    size = math.ceil(config.review.planted_share * sum(each.slot == 0 for each in wanted(current, store, config)))
    if not size or planted.of_round(store, id_of(current)):
        return
    before = Counter(each.is_control for each in planted.shown(store, current.run))
    good = [Good(*each) for each in planted.good(store, current.run)]
    seed = seed_of(config, current.number)
    chosen = choose(good, size, ahead=before[False] - before[True], seed=seed)
    rows = [
        Rationale(
            item_key=each.rationale.item_key,
            round_id=id_of(current),
            author=Author.TEACHER,
            steps=list(each.rationale.steps if bad is None else bad.steps),
            answer=each.rationale.answer,
            stated=each.rationale.stated,
            teacher=each.rationale.teacher,
            confidence=each.rationale.confidence,
            confidence_by=each.rationale.confidence_by,
            calibrated=each.rationale.calibrated,
            other=each.rationale.other,
            planted=CONTROL if bad is None else bad.kind.value,
            planted_from=each.rationale.id,
        )
        for each, bad in chosen
    ]
    if rows and student is not None and rounds.scored_chunks(store, id_of(current)):
        some = list(items.existing(store, [each.item_key for each in rows]).values())
        rounds.keep_scores(store, select.score_chunk(id_of(current), -1, some, student, config.query, seed=seed))
    planted.keep(store, rows)
