"""How far the present stage of a round is, by what its process has stored piece by piece."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, func, select

from loop.records import (
    Decision,
    Item,
    Prediction,
    Query,
    Rationale,
    Reply,
    ReviewTask,
    Revision,
    Risk,
    Round,
    Score,
    Shadow,
    Split,
    Stage,
    Verdict,
)
from loop.store.database import Store
from loop.store.rationales import FIRST


@dataclass(frozen=True)
class Progress:
    """So many of `total` are done. `total` is None where nothing is stored before the stage ends."""

    what: str
    done: int
    total: int | None


@dataclass(frozen=True)
class AtMost:
    """Items that SELECT looks at, and students that EVALUATE trains to compare, where nothing makes them fewer."""

    candidates: int
    shadows: int


def progress(store: Store, current: Round, most: AtMost) -> Progress:
    """How far a round's stage is."""
    with store.reading() as session:
        return STAGES[current.stage](session, current, most)


def _selected(session: Session, current: Round, most: AtMost) -> Progress:
    pool = _count(session, Item, Item.split == Split.POOL)
    scored = _count(session, Score, Score.round_id == current.id)
    return Progress("candidates that the student explained", scored, min(most.candidates, pool))


def _asked(session: Session, current: Round, _: AtMost) -> Progress:
    """Items of a round with a reply, a revision, or the reason why there is none."""
    here = current.id
    replied = select(Reply.id).where(Reply.round_id == here, col(Reply.item_key) == Query.item_key).exists()
    revised = (
        select(Revision.item_key).where(Revision.round_id == here, col(Revision.item_key) == Query.item_key).exists()
    )
    done = _count(session, Query, Query.round_id == here, replied | revised | col(Query.problem).is_not(None))
    return Progress("items that the teacher answered", done, _count(session, Query, Query.round_id == here))


def _checked(session: Session, current: Round, _: AtMost) -> Progress:
    query = (
        select(func.count(), func.count(col(Risk.rationale_id)))
        .select_from(Rationale)
        .join(Risk, col(Risk.rationale_id) == Rationale.id, isouter=True)
        .where(Rationale.round_id == current.id, FIRST)
    )
    total, done = session.exec(query).one()
    return Progress("rationales checked", done, total)


def _reviewed(session: Session, current: Round, _: AtMost) -> Progress:
    said = (
        select(Verdict.annotation)
        .where(
            col(Verdict.rationale_id) == ReviewTask.rationale_id,
            col(Verdict.slot) == ReviewTask.slot,
            col(Verdict.kind).is_not(None),
            col(Verdict.deleted_at).is_(None),
        )
        .exists()
    )
    done = _count(session, ReviewTask, ReviewTask.round_id == current.id, said)
    return Progress("reviews with a verdict", done, _count(session, ReviewTask, ReviewTask.round_id == current.id))


def _decided(session: Session, current: Round, _: AtMost) -> Progress:
    decided = _count(session, Decision, Decision.round_id == current.id)
    return Progress("items decided", decided, _count(session, Query, Query.round_id == current.id))


def _trained(_session: Session, _current: Round, _: AtMost) -> Progress:
    return Progress("the student is trained; nothing is stored before it is done", 0, None)


def _evaluated(session: Session, current: Round, most: AtMost) -> Progress:
    """The students of both arms come first, then the new student answers the holdout."""
    answered = _count(session, Prediction, Prediction.checkpoint_id == current.candidate_id)
    trained = _count(session, Shadow, Shadow.round_id == current.id)
    if not answered and trained < most.shadows:
        return Progress("students trained to see what selection saves", trained, most.shadows)
    return Progress("holdout items answered", answered, _count(session, Item, Item.split == Split.HOLDOUT))


def _closed(_session: Session, _current: Round, _: AtMost) -> Progress:
    return Progress("the round is closed", 0, None)


STAGES: Mapping[Stage, Callable[[Session, Round, AtMost], Progress]] = {
    Stage.SELECT: _selected,
    Stage.ASK: _asked,
    Stage.CHECK: _checked,
    Stage.REVIEW: _reviewed,
    Stage.ACCEPT: _decided,
    Stage.TRAIN: _trained,
    Stage.EVALUATE: _evaluated,
    Stage.CLOSED: _closed,
}


def _count(session: Session, of: type[Any], *conditions: Any) -> int:
    return session.exec(select(func.count()).select_from(of).where(*conditions)).one()
