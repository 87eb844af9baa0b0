"""Versions of the dataset in the store: what they are known by, which names they have, and what they hold."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from sqlmodel import col, select

from loop.errors import PreceptorError
from loop.records import DataVersion, Decision, DecisionKind, Item, Rationale, VersionName
from loop.store.database import Store, add_missing, now

TEACHING = (DecisionKind.GOLD, DecisionKind.SILVER)


class Content(NamedTuple):
    """What a row says, which a student learns: where it comes from is no part of it."""

    key: str
    question: str
    context: str
    choices: Sequence[str]
    steps: Sequence[str]
    answer_kind: str | None
    answer: str | None
    decision: str


class Digest:
    """The hash of a version: SHA-256 over its rows as lines of JSON, each a list in the order of `Content`, by key."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.gold = self.silver = 0

    def take(self, row: Content) -> None:
        """Take the next row."""
        try:
            line = orjson.dumps(list(row), option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError:  # half a surrogate pair
            line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        self.gold += row.decision == DecisionKind.GOLD
        self.silver += row.decision == DecisionKind.SILVER

    @property
    def hash(self) -> str:
        """The hash of the rows so far."""
        return self._hash.hexdigest()


def content(item: Item, rationale: Rationale, kind: DecisionKind) -> Content:
    """What an item and the rationale that was decided about say."""
    answer = rationale.parsed
    form, value = (None, None) if answer is None else (answer.kind.value, answer.value)
    return Content(
        item.key, item.question, item.context, item.choices, rationale.steps, form, value, kind.value
    )  # fmt: skip


def keep(store: Store, run: str, digest: Digest, *, round_id: int, last_decision: int) -> DataVersion:
    """Store a version; the one that is known already where these rows were seen before."""
    with store.writing() as session:
        add_missing(
            session, DataVersion, run=run, hash=digest.hash, round_id=round_id, last_decision=last_decision,
            gold=digest.gold, silver=digest.silver, recorded_at=now(),
        )  # fmt: skip
        return session.get_one(DataVersion, (run, digest.hash))


def give_name(store: Store, name: VersionName) -> VersionName:
    """Store a name; the one that is known already where it names this version.

    Raises:
        PreceptorError: it is the name of another version.
    """
    with store.writing() as session:
        add_missing(session, VersionName, **name.model_dump())
        known = session.get_one(VersionName, (name.run, name.name))
        check_name(known, name)
    return known


def check_name(known: VersionName | None, wanted: VersionName) -> None:
    """Refuse to move a name.

    Raises:
        PreceptorError: it is the name of another version.
    """
    if known is not None and known.hash != wanted.hash:
        raise PreceptorError(
            f"{wanted.name}: is the name of version {known.hash[:12]} since {known.named_at:%Y-%m-%d %H:%M} UTC, and a "
            f"name never moves; what you want to name is version {wanted.hash[:12]}: give it another name"
        )


def of_run(store: Store, run: str) -> list[DataVersion]:
    """The versions of a run, in the order in which they were first seen."""
    query = select(DataVersion).where(DataVersion.run == run)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(DataVersion.recorded_at), col(DataVersion.hash))))


def names_of(store: Store, run: str) -> list[VersionName]:
    """The names of a run's versions, oldest first."""
    query = select(VersionName).where(VersionName.run == run)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(VersionName.named_at), col(VersionName.name))))


def held(decided: Sequence[Decision], last_decision: int) -> Decision | None:
    """Of an item's decisions, oldest first, the gold or silver one in force when `last_decision` was the newest."""
    row = next((each for each in reversed(decided) if (each.id or 0) <= last_decision), None)
    return row if row is not None and row.kind in TEACHING else None
