"""How many of what a run has, counted by the database, so that a large run is looked at as fast as a small one."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import case, distinct
from sqlmodel import col, func, select

from loop.records import (
    Author,
    Certificate,
    Decision,
    DecisionKind,
    Flag,
    Item,
    Part,
    Prediction,
    Query,
    Rationale,
    ReviewTask,
    Risk,
    Round,
    Split,
    Verdict,
    VerdictKind,
    WithdrawnVerdict,
    once,
)
from loop.store.certificates import held_in
from loop.store.database import Store
from loop.store.pieces import pieces
from loop.store.rationales import FIRST, REAL
from loop.store.reviews import STANDS, VERSION, WITHDRAWN


def runs(store: Store) -> list[str]:
    """The names of all runs that opened a round, the newest first."""
    query = select(Round.run).group_by(col(Round.run)).order_by(func.max(Round.opened_at).desc(), col(Round.run))
    with store.reading() as session:
        return list(session.exec(query))


def queried(store: Store, run: str) -> dict[int, tuple[int, int]]:
    """How many items each round asked, and how many of them are audits, by the round's id."""
    query = (
        select(Query.round_id, func.count(), func.sum(case((col(Query.audit), 1), else_=0)))
        .join(Round, col(Round.id) == Query.round_id)
        .where(Round.run == run)
        .group_by(col(Query.round_id))
    )
    with store.reading() as session:
        return {number: (count, int(audits)) for number, count, audits in session.exec(query)}


def queried_items(store: Store, run: str) -> int:
    """How many items were asked, each once."""
    query = select(func.count(distinct(col(Query.item_key)))).join(Round, col(Round.id) == Query.round_id)
    with store.reading() as session:
        return session.exec(query.where(Round.run == run)).one()


def flagged(store: Store, run: str) -> dict[int, int]:
    """How many of the teacher's first rationales have a flag, by the round's id."""
    query = (
        select(Rationale.round_id, func.count(distinct(col(Flag.rationale_id))))
        .join(Flag, col(Flag.rationale_id) == Rationale.id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, FIRST)
        .group_by(col(Rationale.round_id))
    )
    with store.reading() as session:
        return dict(session.exec(query).all())


def flags(store: Store, run: str) -> Counter[str]:
    """How many flags each check raised on the teacher's first rationales."""
    query = (
        select(Flag.check_name, func.count())
        .join(Rationale, col(Rationale.id) == Flag.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, FIRST)
        .group_by(col(Flag.check_name))
    )
    with store.reading() as session:
        return Counter(dict(session.exec(query).all()))


def corrected(store: Store, run: str, most: int) -> list[str]:
    """The items that people corrected last."""
    query = (
        select(Rationale.item_key)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, REAL, col(Rationale.author) == Author.HUMAN, col(Rationale.answer).is_not(None))
        .group_by(col(Rationale.item_key))
        .order_by(func.max(Rationale.id).desc())
    )
    with store.reading() as session:
        return list(session.exec(query.limit(most)))


def audited(store: Store, run: str) -> list[int]:
    """The teacher's first rationales on the items that were drawn as audits."""
    query = (
        select(Rationale.id)
        .join(Query, (col(Query.round_id) == Rationale.round_id) & (col(Query.item_key) == Rationale.item_key))
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, FIRST, col(Query.audit))
    )
    with store.reading() as session:
        return [number for number in session.exec(query) if number is not None]


def checks_of(store: Store, rationale_ids: Iterable[int]) -> dict[int, set[str]]:
    """Which checks flagged these rationales."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    with store.reading() as session:
        for some in pieces(rationale_ids):
            query = select(Flag.rationale_id, Flag.check_name).where(col(Flag.rationale_id).in_(some))
            for number, name in session.exec(query):
                found[number].add(name)
    return dict(found)


def risks_of(store: Store, rationale_ids: Iterable[int]) -> dict[int, float]:
    """The risk of those of the rationales that are the teacher's first."""
    found: dict[int, float] = {}
    query = select(Risk.rationale_id, Risk.value).join(Rationale, col(Rationale.id) == Risk.rationale_id).where(FIRST)
    with store.reading() as session:
        for some in pieces(rationale_ids):
            found |= dict(session.exec(query.where(col(Risk.rationale_id).in_(some))).all())
    return found


class Given(NamedTuple):
    """A verdict without what was corrected."""

    round_id: int
    rationale_id: int
    kind: VerdictKind | None
    slot: int
    reviewer: str
    simulated: bool
    seconds: float
    board: str
    project: str
    annotation: str
    updated_at: str


def verdicts(store: Store, run: str) -> list[Given]:
    """Those of `loop.store.reading.verdicts_of` that can be read, oldest first, at a tenth of its price."""
    newest = select(Verdict.board, Verdict.project, Verdict.annotation, func.max(Verdict.updated_at)).group_by(
        col(Verdict.board), col(Verdict.project), col(Verdict.annotation)
    )
    names = Given._fields[1:]
    query = (
        select(Rationale.round_id, *(getattr(Verdict, name) for name in names))
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, VERSION.in_(newest), VERSION.not_in(WITHDRAWN), STANDS, REAL)
        .order_by(col(Verdict.updated_at), col(Verdict.annotation))
    )
    by_rationale: defaultdict[int, list[Given]] = defaultdict(list)
    with store.reading() as session:
        for row in session.exec(query):
            by_rationale[row[1]].append(Given(*row))
    found = [each for given in by_rationale.values() for each in once(given) if each.kind is not None]
    return sorted(found, key=lambda each: (each.updated_at, each.annotation))


def review_stamp(store: Store) -> tuple[object, ...]:
    """Numbers of which one changes whenever anything does that is known of reviews: only deletions change a row."""
    newest = select(func.count(), func.max(Verdict.pulled_at), func.count(col(Verdict.deleted_at)))
    parts = [
        newest.add_columns(func.max(Verdict.deleted_at)).select_from(Verdict),
        *(select(func.count()).select_from(each) for each in (WithdrawnVerdict, ReviewTask, Risk)),
        *(select(func.max(each.id)) for each in (Rationale, Flag, Decision, Certificate)),
    ]
    with store.reading() as session:
        return tuple(tuple(session.execute(part).one()) for part in parts)


def held(store: Store, run: str) -> int:
    """How many checked audits are held back for certificates."""
    query = (
        select(func.count())
        .select_from(Query)
        .join(Round, col(Round.id) == Query.round_id)
        .join(Rationale, (col(Rationale.round_id) == Query.round_id) & (col(Rationale.item_key) == Query.item_key))
        .join(Risk, col(Risk.rationale_id) == Rationale.id)
        .where(*held_in(run), FIRST)
    )
    with store.reading() as session:
        return session.exec(query).one()


def decided(store: Store, run: str) -> Counter[tuple[int, DecisionKind]]:
    """What was decided, by the deciding round's id: of an item that a round decided several times the newest."""
    newest = (
        select(func.max(Decision.id))
        .where(Decision.run == run)
        .group_by(col(Decision.round_id), col(Decision.item_key))
    )
    query = select(Decision.round_id, Decision.kind, func.count()).where(col(Decision.id).in_(newest))
    with store.reading() as session:
        rows = session.exec(query.group_by(col(Decision.round_id), col(Decision.kind)))
        return Counter({(number, DecisionKind(kind)): count for number, kind, count in rows})


def in_force(store: Store, run: str) -> Counter[DecisionKind]:
    """How many items have a decision of each kind in force."""
    query = select(Decision.kind, func.count()).where(col(Decision.id).in_(_newest(run))).group_by(col(Decision.kind))
    with store.reading() as session:
        return Counter({DecisionKind(kind): count for kind, count in session.exec(query)})


def decided_by_domain(store: Store, run: str) -> dict[str, Counter[DecisionKind]]:
    """The decisions in force by the item's domain."""
    query = (
        select(Item.domain, Decision.kind, func.count())
        .join(Decision, col(Decision.item_key) == Item.key)
        .where(col(Decision.id).in_(_newest(run)))
        .group_by(col(Item.domain), col(Decision.kind))
    )
    found: defaultdict[str, Counter[DecisionKind]] = defaultdict(Counter)
    with store.reading() as session:
        for domain, kind, count in session.exec(query):
            found[domain][DecisionKind(kind)] = count
    return dict(found)


def items_by_domain(store: Store) -> dict[str, int]:
    """How many items that may be asked each domain has."""
    query = select(Item.domain, func.count()).where(Item.split == Split.POOL).group_by(col(Item.domain))
    with store.reading() as session:
        return dict(session.exec(query).all())


def right(store: Store, checkpoint_ids: Iterable[int], part: Part) -> dict[int, tuple[int, int]]:
    """How many answers of each checkpoint to a part of the holdout are right, and how many there are."""
    query = (
        select(Prediction.checkpoint_id, func.sum(case((col(Prediction.correct), 1), else_=0)), func.count())
        .where(col(Prediction.checkpoint_id).in_(sorted(checkpoint_ids)), Prediction.part == part)
        .group_by(col(Prediction.checkpoint_id))
    )
    with store.reading() as session:
        return {number: (int(hits), count) for number, hits, count in session.exec(query)}


def right_by_domain(store: Store, checkpoint_id: int, part: Part) -> dict[str, tuple[int, int]]:
    """The same of one checkpoint, by the item's domain."""
    query = (
        select(Item.domain, func.sum(case((col(Prediction.correct), 1), else_=0)), func.count())
        .join(Prediction, col(Prediction.item_key) == Item.key)
        .where(Prediction.checkpoint_id == checkpoint_id, Prediction.part == part)
        .group_by(col(Item.domain))
    )
    with store.reading() as session:
        return {domain: (int(hits), count) for domain, hits, count in session.exec(query)}


def _newest(run: str) -> Any:
    return select(func.max(Decision.id)).where(Decision.run == run).group_by(col(Decision.item_key))
