"""Rationales, flags and risks in the store."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from sqlalchemy import tuple_
from sqlmodel import col, select

from loop.answer import Answer
from loop.records import (
    Author,
    Decision,
    Flag,
    Item,
    Query,
    Rationale,
    ReviewTask,
    Risk,
    RiskFit,
    Round,
    Verdict,
    VerdictKind,
    changed_step,
    found_wrong,
    once,
)
from loop.store.database import Store
from loop.store.pieces import pieces
from loop.store.reviews import WITHDRAWN

REAL = col(Rationale.planted) == ""
"""Of a rationale that may be decided about; what is planted is read through `loop.store.planted` alone."""
FIRST = REAL & (col(Rationale.author) == Author.TEACHER) & (Rationale.sample == 0) & col(Rationale.supersedes).is_(None)
"""`Rationale.is_reply` as a condition, planted ones left out."""
BAD_MARKS = frozenset({"wrong", "unsupported", "hallucinated"})
"""What reviewers say of a step that is not right."""


def of_round(store: Store, round_id: int) -> list[Rationale]:
    """All rationales of a round that are not planted, in the order they were stored."""
    query = select(Rationale).where(Rationale.round_id == round_id, REAL)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Rationale.id))))


def unchecked(store: Store, round_id: int, *, planted: bool = False) -> list[Rationale]:
    """The teacher's first rationales of a round and what it went on with, or the planted ones, that no check has looked
    at, by item key.
    """
    query = (
        select(Rationale)
        .join(Risk, col(Risk.rationale_id) == Rationale.id, isouter=True)
        .where(
            Rationale.round_id == round_id,
            Rationale.author == Author.TEACHER,
            Rationale.sample == 0,
            col(Risk.rationale_id).is_(None),
            ~REAL if planted else REAL,
        )
        .order_by(col(Rationale.item_key))
    )
    with store.reading() as session:
        return list(session.exec(query))


def siblings(store: Store, rationale: Rationale) -> list[Rationale]:
    """The teacher's other samples on the same item in the same round; a planted one has those of the good one."""
    asked_in = select(Rationale.round_id).where(Rationale.id == (rationale.planted_from or rationale.id))
    query = (
        select(Rationale)
        .where(
            col(Rationale.round_id).in_(asked_in),
            REAL,
            Rationale.item_key == rationale.item_key,
            Rationale.author == Author.TEACHER,
            Rationale.sample != rationale.sample,
        )
        .order_by(col(Rationale.sample))
    )
    with store.reading() as session:
        return list(session.exec(query))


def by_context(store: Store, run: str) -> dict[str, list[tuple[Item, Rationale]]]:
    """Items with a context that the teacher was asked about, by context, with their first rationales, oldest first."""
    query = (
        select(Item, Rationale)
        .join(Rationale, col(Rationale.item_key) == Item.key)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, Item.context != "", FIRST)
        .order_by(col(Rationale.id))
    )
    found: defaultdict[str, list[tuple[Item, Rationale]]] = defaultdict(list)
    with store.reading() as session:
        for item, rationale in session.exec(query):
            found[item.context].append((item, rationale))
    return found


def keep_checked(store: Store, risks: Sequence[Risk], flags: Sequence[Flag]) -> None:
    """Store what the checks found on one piece."""
    with store.writing() as session:
        session.add_all([*risks, *flags])


def keep_correction(store: Store, original: Rationale, *, steps: list[str], answer: Answer) -> Rationale:
    """Store a reviewer's corrected version; the one stored already where this was done before.

    Another correction of the same rationale is a further version of it.
    """
    with store.writing() as session:
        before = list(session.exec(select(Rationale).where(Rationale.supersedes == original.id)))
        for known in before:
            if known.is_correction and (known.steps, known.answer) == (steps, answer.canonical):
                return known
        corrected = Rationale(
            item_key=original.item_key,
            round_id=original.round_id,
            author=Author.HUMAN,
            steps=steps,
            answer=answer.canonical,
            stated=answer.value,
            version=original.version + len(before) + 1,
            supersedes=original.id,
            planted=original.planted,
            planted_from=original.planted_from,
        )
        session.add(corrected)
    return corrected


def superseded(store: Store, some: Iterable[Rationale]) -> dict[int, Rationale]:
    """All versions that some rationales took the place of, back to the first, by id."""
    found: dict[int, Rationale] = {}
    wanted = {each.supersedes for each in some if each.supersedes is not None}
    with store.reading() as session:
        while wanted:
            new: dict[int, Rationale] = {}
            for part in pieces(wanted):
                rows = session.exec(select(Rationale).where(col(Rationale.id).in_(part)))
                new |= {row.id: row for row in rows if row.id is not None}
            found |= new
            wanted = {row.supersedes for row in new.values() if row.supersedes is not None} - found.keys()
    return found


def chain(rationale: Rationale, before: Mapping[int, Rationale]) -> list[Rationale]:
    """A rationale behind the versions that it took the place of, the first one first."""
    found = [rationale]
    while found[0].supersedes is not None:
        found.insert(0, before[found[0].supersedes])
    return found


def repaired_steps(versions: Sequence[Rationale]) -> frozenset[int]:
    """Numbers of the last version's steps that a person wrote or changed in any of the versions, from 0."""
    told = [[" ".join(step.split()) for step in each.steps] for each in versions]
    changed: set[str] = set()
    for (_, old), (version, new) in pairwise(zip(versions, told, strict=True)):
        if version.author is Author.HUMAN:
            changed |= set(new) - set(old)
    return frozenset(number for number, step in enumerate(told[-1]) if step in changed)


def prefix_steps(store: Store, rationale: Rationale) -> list[str]:
    """The corrected steps from which the teacher went on to this rationale; none where it did not."""
    if rationale.supersedes is None:
        return []
    with store.reading() as session:
        before = session.get(Rationale, rationale.supersedes)
    return list(before.steps) if before is not None and before.is_prefix else []


def flags(store: Store, ids: Sequence[int]) -> dict[int, list[Flag]]:
    """Flags by rationale."""
    found: defaultdict[int, list[Flag]] = defaultdict(list)
    with store.reading() as session:
        for flag in session.exec(select(Flag).where(col(Flag.rationale_id).in_(ids)).order_by(col(Flag.id))):
            found[flag.rationale_id].append(flag)
    return dict(found)


def risks(store: Store, ids: Sequence[int]) -> dict[int, float]:
    """Risk by rationale."""
    with store.reading() as session:
        return dict(session.exec(select(Risk.rationale_id, Risk.value).where(col(Risk.rationale_id).in_(ids))).all())


def evidence(store: Store, ids: Sequence[int]) -> dict[int, Mapping[str, float]]:
    """What the risk of each rationale was made from."""
    query, found = select(Risk.rationale_id, Risk.evidence), dict[int, Mapping[str, float]]()
    with store.reading() as session:
        for some in pieces(ids):
            found |= dict(session.exec(query.where(col(Risk.rationale_id).in_(some))).all())
    return found


def keep_risk_fit(store: Store, fitted: RiskFit) -> RiskFit:
    """Store the risk model of a round; the one stored already where there is one."""
    with store.writing() as session:
        known = session.get(RiskFit, fitted.round_id)
        if known is None:
            session.add(fitted)
    return known or fitted


def risk_fit(store: Store, round_id: int) -> RiskFit | None:
    """The risk model of a round."""
    with store.reading() as session:
        return session.get(RiskFit, round_id)


@dataclass(frozen=True)
class Judged:
    """A checked rationale that people judged, with the query that it came from."""

    item: Item
    rationale: Rationale
    risk: Risk
    query: Query
    wrong: bool
    wrong_steps: frozenset[int]
    """Steps that somebody marked as wrong, unsupported or hallucinated, and the first one that somebody changed before
    the teacher went on, 0-based; none where most accept.
    """


def judged(store: Store, run: str, until: datetime) -> list[Judged]:
    """What people judged in a run up to a moment, in the order in which the rationales were stored; nothing planted.

    Audits that are held back for certificates are not among it.
    """
    released = select(Decision.item_key, Decision.round_id).where(Decision.run == run, Decision.decided_at <= until)
    query = (
        select(Item, Rationale, Risk, Query)
        .join(Rationale, col(Rationale.item_key) == Item.key)
        .join(Risk, col(Risk.rationale_id) == Rationale.id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .join(Query, (col(Query.round_id) == Round.id) & (col(Query.item_key) == Item.key))
        .where(
            Round.run == run,
            FIRST,
            col(Rationale.id).in_(select(ReviewTask.rationale_id)),
            col(Rationale.id).in_(select(Verdict.rationale_id)),
            col(Query.certify).is_(False) | tuple_(col(Query.item_key), col(Query.round_id)).in_(released),
        )
        .order_by(col(Rationale.id))
    )
    given: defaultdict[int, dict[tuple[str, str, str], Verdict]] = defaultdict(dict)
    with store.reading() as session:
        withdrawn = set(session.exec(WITHDRAWN))
        there = col(Verdict.deleted_at).is_(None) | (col(Verdict.deleted_at) > until)
        for verdict in session.exec(
            select(Verdict).where(Verdict.pulled_at <= until, there).order_by(col(Verdict.updated_at))
        ):
            key = (verdict.board, verdict.project, verdict.annotation)
            given[verdict.rationale_id or 0].pop(key, None)
            if (*key, verdict.updated_at) not in withdrawn:
                given[verdict.rationale_id or 0][key] = verdict
        return [
            Judged(
                item,
                rationale,
                risk,
                asked,
                wrong,
                _wrong_steps(rationale, once(given[rationale.id or 0].values())) if wrong else frozenset(),
            )
            for item, rationale, risk, asked in session.exec(query)
            if (wrong := found_wrong(once(given[rationale.id or 0].values()))) is not None
        ]


def _wrong_steps(rationale: Rationale, verdicts: Iterable[Verdict]) -> frozenset[int]:
    said = list(verdicts)
    marked = {int(step) for verdict in said for step, mark in verdict.marks.items() if mark in BAD_MARKS}
    changed = (changed_step(rationale, each) for each in said if each.kind is VerdictKind.CONTINUE)
    return frozenset(marked).union(step for step in changed if step is not None)
