"""Rounds, their configs, scores and queries in the store."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session, SQLModel, col, select

from loop.errors import StageMoved
from loop.events import about, happened
from loop.records import ConfigRow, Query, Round, Score, Stage
from loop.store.database import Store, add_missing, now, rows_changed, values


def current(store: Store, run: str) -> Round | None:
    """The newest round of a run."""
    with store.reading() as session:
        return session.exec(select(Round).where(Round.run == run).order_by(col(Round.number).desc())).first()


def by_id(store: Store, round_id: int) -> Round:
    """A round by its id."""
    with store.reading() as session:
        return session.exec(select(Round).where(Round.id == round_id)).one()


def all_rounds(store: Store, run: str) -> list[Round]:
    """All rounds of a run by number."""
    with store.reading() as session:
        return list(session.exec(select(Round).where(Round.run == run).order_by(col(Round.number))))


def open_round(store: Store, run: str, config: Mapping[str, Any]) -> Round:
    """Open the next round with its resolved config."""
    with store.writing() as session:
        last = session.exec(select(Round).where(Round.run == run).order_by(col(Round.number).desc())).first()
        digest = _kept(session, config)
        opened = Round(run=run, number=last.number + 1 if last else 1, config_hash=digest, opened_at=now())
        session.add(opened)
    with about(run=run, round=opened.number):
        happened("stage_entered", stage=opened.stage.value)
    return opened


def take_config(store: Store, opened: Round, config: Mapping[str, Any]) -> Round:
    """Give an open round other settings; the old ones stay stored."""
    with store.writing() as session:
        found = session.exec(select(Round).where(Round.id == opened.id)).one()
        found.config_hash = _kept(session, config)
        session.add(found)
    return found


def _kept(session: Session, config: Mapping[str, Any]) -> str:
    """The hash of a config that is stored."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    add_missing(session, ConfigRow, hash=digest, body=dict(config))
    return digest


def config_of(store: Store, opened: Round) -> dict[str, Any]:
    """The resolved config that a round was opened with."""
    with store.reading() as session:
        return session.exec(select(ConfigRow).where(ConfigRow.hash == opened.config_hash)).one().body


def enter(store: Store, opened: Round, stage: Stage, rows: Sequence[SQLModel] = (), **changes: object) -> Round:
    """Store the last rows of a stage and move the round on, in one transaction; the moved round.

    Raises:
        StageMoved: the round is no longer where the caller believes it is.
    """
    with store.writing() as session:
        move = values(Round, col(Round.id) == opened.id, col(Round.stage) == opened.stage)
        if rows_changed(session, move.values(stage=stage, **changes)) != 1:
            raise StageMoved(f"round {opened.number} has left the stage {opened.stage} meanwhile")
        session.add_all(rows)
        session.flush()
        moved = session.exec(select(Round).where(Round.id == opened.id)).one()
    happened("stage_ended", stage=opened.stage.value)
    if stage is not Stage.CLOSED:
        happened("stage_entered", stage=stage.value)
    return moved


def keep_scores(store: Store, scores: Sequence[Score]) -> None:
    """Store one scored chunk; newer scores of the same items take the place of older ones."""
    with store.writing() as session:
        for score in scores:
            session.merge(score)


def scored_chunks(store: Store, round_id: int) -> set[int]:
    """Numbers of the chunks that are stored."""
    with store.reading() as session:
        return set(session.exec(select(Score.chunk).where(Score.round_id == round_id).distinct()))


def scores(store: Store, round_id: int) -> list[Score]:
    """The scores of a round by item key."""
    with store.reading() as session:
        return list(session.exec(select(Score).where(Score.round_id == round_id).order_by(col(Score.item_key))))


def score_values(store: Store, round_id: int) -> dict[str, float]:
    """The scores of a round, by item key."""
    with store.reading() as session:
        return dict(session.exec(select(Score.item_key, Score.score).where(Score.round_id == round_id)).all())


def score_parts(store: Store, round_id: int, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What the scores of some items were made from, by item key."""
    query = select(Score.item_key, Score.parts).where(Score.round_id == round_id, col(Score.item_key).in_(keys))
    with store.reading() as session:
        return dict(session.exec(query).all())


def queries(store: Store, round_id: int) -> list[Query]:
    """The batch of a round in its order."""
    with store.reading() as session:
        return list(session.exec(select(Query).where(Query.round_id == round_id).order_by(col(Query.position))))
