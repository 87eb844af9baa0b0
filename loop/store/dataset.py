"""The rows of a dataset, read by a cursor: what was decided, with everything that it came from."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Text, bindparam, type_coerce
from sqlmodel import Session, col, func, select

from loop.records import (
    Author,
    Decision,
    DecisionKind,
    Item,
    Query,
    Rationale,
    Reply,
    Revision,
    Risk,
    Round,
    Split,
    Verdict,
)
from loop.store.database import Store
from loop.store.pieces import pieces
from loop.store.rationales import FIRST, REAL
from loop.store.reviews import verdicts_in, verdicts_query
from loop.store.tainted import closed_by_replies

PIECE = 1000
"""Rows that are in memory at once."""
KINDS, AUTHORS = dict(DecisionKind.__members__), dict(Author.__members__)
"""By the name that the database holds; a column's own type takes longer to say it."""


NOTHING_SAID: Mapping[int, Sequence[Verdict]] = {}


class Until(NamedTuple):
    """A state of a run that is over or lasts: its newest decision, and when verdicts had come; None: up to now."""

    last_decision: int
    moment: datetime | None = None


class Version(NamedTuple):
    """A rationale, its round, and for a teacher's the reply and the risk that belong to it."""

    id: int
    author: Author
    steps: list[str]
    answer: str | None
    stated: str
    supersedes: int | None
    round: int
    risk: float | None
    teacher_model: str | None
    prompt_hash: str | None

    def after(self, first: "Version") -> "Version":
        """The same with risk, model and prompt of the rationale that it goes back to."""
        return self._replace(risk=first.risk, teacher_model=first.teacher_model, prompt_hash=first.prompt_hash)


class Decided(NamedTuple):
    """An item with the decision in force about it."""

    key: str
    question: str
    context: str
    choices: list[str]
    domain: str
    source: str
    text_hash: str
    kind: DecisionKind
    reason: str
    certified: bool
    round: int


class Origin(NamedTuple):
    """A decided item, and what became of it until then."""

    decided: Decided
    chain: Sequence[Version]
    """The rationale in force last, the versions that it supersedes before it, oldest first."""
    student: Version | None
    """The student's own rationale, where the teacher revised that."""
    rejected: Sequence[Version]
    """Rationales of the same item that were decided about before and rejected; none whose reply a recall doubted."""
    judged: Sequence[Version]
    """Every rationale of the item that people reviewed, whatever was decided, oldest first; only where asked for."""
    verdicts: Mapping[int, Sequence[Verdict]]
    """What counts of what was said, by rationale, oldest first."""


ITEM = (
    Item.key, Item.question, Item.context, type_coerce(col(Item.choices), Text), Item.domain, Item.source,
    Item.text_hash,
)  # fmt: skip
DECISION = (type_coerce(col(Decision.kind), Text), Decision.reason, Decision.certified, Round.number)
VERSION = (
    Rationale.id, type_coerce(col(Rationale.author), Text), type_coerce(col(Rationale.steps), Text), Rationale.answer,
    Rationale.stated, Rationale.supersedes, Rationale.round_id, Risk.value,
    func.coalesce(Reply.model, func.nullif(Rationale.teacher, "")), Reply.prompt_hash,
)  # fmt: skip


def origins(
    store: Store, run: str, kinds: Collection[DecisionKind], until: Until, *, judged: bool = False
) -> Iterator[Origin]:
    """What was decided so and was in force until then, by item key, whatever language the database sorts in.

    `judged`: with all that people reviewed; an item that was asked anew in vain then stands as it was decided before.
    """
    with store.snapshot() as session:
        order = col(Item.key).collate({"sqlite": "BINARY"}.get(session.get_bind().dialect.name, "C"))
        query: Any = select(*ITEM, *DECISION, *VERSION)  # type: ignore[call-overload]
        query = (
            query.select_from(Decision)
            .join(Item, col(Item.key) == Decision.item_key)
            .join(Round, col(Round.id) == Decision.round_id)
            .join(Rationale, col(Rationale.id) == Decision.rationale_id)
            .outerjoin(Risk, col(Risk.rationale_id) == Rationale.id)
            .outerjoin(Reply, col(Reply.id) == Rationale.reply_id)
            .where(
                col(Decision.id).in_(_in_force(run, until.last_decision, about_rationale=judged)),
                col(Decision.kind).in_(kinds),
            )
            .order_by(order)
        )
        origins_of = _Origins(session, run, until, judged=judged)
        with closing(session.connection().execute(query, execution_options={"yield_per": PIECE})) as rows:
            for piece in rows.partitions():
                yield from origins_of(piece)


def decided_counts(store: Store, run: str) -> Counter[str]:
    """How many items are decided how."""
    query = select(Decision.kind, func.count()).where(col(Decision.id).in_(_in_force(run)))
    with store.reading() as session:
        return Counter({str(kind): count for kind, count in session.exec(query.group_by(col(Decision.kind)))})


def counts_by_round(store: Store, run: str, last_decision: int) -> list[tuple[int, int, int, Counter[str]]]:
    """Id and number of each round, how many items it asked about, and what it had decided by that decision."""
    by_item = (col(Decision.round_id), col(Decision.item_key))
    until = (Decision.run == run, col(Decision.id) <= last_decision)
    last = select(func.max(Decision.id)).where(*until).group_by(*by_item)
    made = select(Decision.round_id, Decision.kind, func.count()).where(col(Decision.id).in_(last))
    asked = (
        select(Round.id, Round.number, func.count(col(Query.item_key)))
        .outerjoin(Query, col(Query.round_id) == Round.id)
        .where(Round.run == run)
        .group_by(col(Round.id), col(Round.number))
        .order_by(col(Round.number))
    )
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    with store.reading() as session:
        for round_id, kind, count in session.exec(made.group_by(col(Decision.round_id), col(Decision.kind))):
            found[round_id][str(kind)] += count
        return [(number or 0, place, count, found[number or 0]) for number, place, count in session.exec(asked)]


def holdout_texts(store: Store) -> Iterator[tuple[str, str]]:
    """Everything that each item of the holdout says, and what it asks."""
    query = select(Item).where(Item.split == Split.HOLDOUT).order_by(col(Item.key))
    query = query.execution_options(yield_per=PIECE)
    with store.reading() as session, closing(session.exec(query)) as found:
        for item in found:
            yield item.text, "\n".join([item.question, *item.choices])


def audited(store: Store, run: str) -> list[tuple[Rationale, list[Verdict]]]:
    """The rationales that were drawn into an audit before anybody looked, each with the verdicts that count."""
    query = (
        select(Rationale)
        .join(Query, (col(Query.round_id) == Rationale.round_id) & (col(Query.item_key) == Rationale.item_key))
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, col(Query.audit), FIRST)
        .order_by(col(Rationale.id))
    )
    with store.reading() as session:
        rows = list(session.exec(query))
        said = _said(session, [each.id or 0 for each in rows], verdicts_query())
    return [(each, said[each.id or 0]) for each in rows if said.get(each.id or 0)]


def reviewed(store: Store, run: str) -> list[Rationale]:
    """The rationales of a run that somebody gave a verdict on; of planted ones none."""
    judged = select(Verdict.rationale_id).where(col(Verdict.rationale_id).is_not(None))
    query = (
        select(Rationale)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, col(Rationale.id).in_(judged), REAL)
    )
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Rationale.id))))


def _in_force(run: str, last_decision: int | None = None, *, about_rationale: bool = False) -> Any:
    """The ids of a run's newest decisions (about a rationale), now or when this one was the newest of all."""
    query = select(func.max(Decision.id)).where(Decision.run == run)
    if about_rationale:
        query = query.where(col(Decision.rationale_id).is_not(None))
    if last_decision is not None:
        query = query.where(col(Decision.id) <= last_decision)
    return query.group_by(col(Decision.item_key))


class _Origins:
    """What became of decided items. What few rows have is asked for of these alone."""

    def __init__(self, session: Session, run: str, until: Until, *, judged: bool) -> None:
        self._session, self._run, self._until = session, run, until
        self._verdicts = verdicts_query(until.moment)
        of_ids: Any = select(*VERSION)  # type: ignore[call-overload]
        self._of_ids = (
            of_ids.select_from(Rationale)
            .outerjoin(Risk, col(Risk.rationale_id) == Rationale.id)
            .outerjoin(Reply, col(Reply.id) == Rationale.reply_id)
            .where(col(Rationale.id).in_(bindparam("ids", expanding=True)))
        )
        self._numbers = dict(session.exec(select(Round.id, Round.number).where(Round.run == run)).all())
        closed = set(session.exec(closed_by_replies(run, until.moment)))
        self._rejected = self._by_item(self._decided_about(DecisionKind.REJECTED), closed)
        self._judged = set(session.exec(select(Verdict.rationale_id).distinct()))
        self._reviewed = self._by_item(self._reviewed_and_decided(), closed) if judged else {}
        revised = select(Revision.rationale_id, Revision.student_id).join(Round, col(Round.id) == Revision.round_id)
        self._revised = {made: student for made, student in session.exec(revised.where(Round.run == run)) if student}

    def _decided_about(self, kind: DecisionKind) -> Any:
        """Item, rationale and round of the decisions of a kind, oldest first."""
        query = select(Decision.item_key, Decision.rationale_id, Decision.round_id).where(
            Decision.run == self._run, Decision.kind == kind, col(Decision.id) <= self._until.last_decision
        )
        return query.order_by(col(Decision.id))

    def _reviewed_and_decided(self) -> Any:
        """The same of the rationales that somebody judged, in rounds that had decided about their items by then."""
        decided = select(Decision.id).where(
            Decision.item_key == Rationale.item_key, col(Decision.round_id) + 0 == Rationale.round_id,
            col(Decision.id) <= self._until.last_decision,
        )  # fmt: skip
        query = (
            select(Rationale.item_key, Rationale.id, Rationale.round_id)
            .join(Round, col(Round.id) == Rationale.round_id)
            .where(Round.run == self._run, REAL, col(Rationale.id).in_(select(Verdict.rationale_id)), decided.exists())
        )
        return query.order_by(col(Rationale.id))

    def _by_item(self, query: Any, closed: Collection[tuple[int, str]]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for key, number, round_id in dict.fromkeys(self._session.exec(query)):
            if number is not None and (round_id, key) not in closed:
                found.setdefault(key, []).append(number)
        return found

    def __call__(self, rows: Sequence[Sequence[Any]]) -> Iterator[Origin]:
        """The origins of a piece of decided items."""
        cut, numbers = len(Decided._fields), self._numbers
        pairs = [(_decided(row[:cut]), _version(row[cut:], numbers)) for row in rows]
        known = {version.id: version for _, version in pairs}
        keys = [decided.key for decided, _ in pairs]
        other = {each for of in (self._rejected, self._reviewed) for key in keys for each in of.get(key, ())}
        missing = other | {version.supersedes for version in known.values() if version.supersedes}
        while missing := missing - known.keys():
            found = self._versions(missing)
            known |= found
            missing = {version.supersedes for version in found.values() if version.supersedes}
        students = self._versions({self._revised[number] for number in known.keys() & self._revised.keys()})
        said = self._said(known.keys() & self._judged)
        for decided, version in pairs:
            chain = _chain(version, known) if version.supersedes else [version]
            student = students.get(self._revised.get(chain[0].id, 0))
            refused = self._traced(self._rejected, decided.key, known, chain)
            judged = self._traced(self._reviewed, decided.key, known)
            own = {each.id: said[each.id] for each in (*chain, *refused, *judged) if each.id in said} if said else {}
            yield Origin(decided, chain, student, refused, judged, own or NOTHING_SAID)

    @staticmethod
    def _traced(
        numbers: Mapping[str, Sequence[int]], key: str, known: Mapping[int, Version], but: Sequence[Version] = ()
    ) -> Sequence[Version]:
        """The versions of an item that stand in a list, but for some, as they go back to their first one."""
        if key not in numbers:
            return ()
        found = [known[each] for each in numbers[key] if all(each != own.id for own in but)]
        return [each.after(_chain(each, known)[0]) for each in found]

    def _versions(self, ids: Collection[int]) -> dict[int, Version]:
        if not ids:
            return {}
        rows = self._session.connection().execute(self._of_ids, {"ids": sorted(ids)})
        return {row[0]: _version(row, self._numbers) for row in rows}

    def _said(self, ids: Collection[int]) -> dict[int, list[Verdict]]:
        return _said(self._session, sorted(ids), self._verdicts)


def _decided(row: Sequence[Any]) -> Decided:
    key, question, context, choices, domain, source, text_hash, kind, reason, certified, number = row
    return Decided(
        key, question, context, _listed(choices), domain, source, text_hash, KINDS[kind], reason, certified, number
    )


def _version(row: Sequence[Any], numbers: Mapping[int | None, int]) -> Version:
    number, author, steps, answer, stated, supersedes, made_in, risk, model, prompt = row
    return Version(
        number, AUTHORS[author], _listed(steps), answer, stated, supersedes, numbers[made_in], risk, model, prompt
    )


def _chain(version: Version, known: Mapping[int, Version]) -> list[Version]:
    """The versions that one supersedes, oldest first, and itself."""
    chain = [version]
    while chain[0].supersedes:
        chain.insert(0, known[chain[0].supersedes])
    return chain


def _listed(value: str | list[str]) -> list[str]:
    """A list as the driver gives it: as the JSON that is stored, or read already."""
    if isinstance(value, list):
        return value
    try:
        found: list[str] = orjson.loads(value)
    except orjson.JSONDecodeError:  # half a surrogate pair
        found = json.loads(value)
    return found


def _said(session: Session, ids: Sequence[int], query: Any) -> dict[int, list[Verdict]]:
    """The verdicts that can be read and count as the query says, by rationale, oldest first."""
    found: dict[int, list[Verdict]] = {}
    for some in pieces(ids):
        for number, given in verdicts_in(session, some, query).items():
            read = [each for each in given if each.kind is not None]
            if read:
                found[number] = sorted(read, key=lambda each: (each.updated_at, each.annotation))
    return found
