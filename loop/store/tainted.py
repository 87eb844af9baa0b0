"""What a recall is about: which verdicts, replies and decisions are doubted, and what ever rested on them."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import Select

from loop.records import (
    Decision,
    DecisionKind,
    Rationale,
    Reopened,
    Reply,
    RevisionReply,
    Round,
    Verdict,
    Withdrawal,
    deciding,
)
from loop.store.database import Store
from loop.store.reviews import VERSION, WITHDRAWN


@dataclass(frozen=True)
class Grounds:
    """What is doubted; what several name together is doubted only where all hold.

    With a reviewer: that person's verdicts, given since then. Without one: the teacher's replies that came since then,
    and where neither a model nor a prompt is named, whatever was decided since then.
    """

    reviewer: str = ""
    """As the board names people."""
    teacher_model: str = ""
    """As it was asked for, or as the endpoint gave it back."""
    prompt: str = ""
    """The hash of a prompt."""
    since: datetime | None = None

    @property
    def names_replies(self) -> bool:
        """Whether replies of a model or to a prompt are meant."""
        return bool(self.teacher_model or self.prompt)


@dataclass(frozen=True)
class Touched:
    """What a recall takes back."""

    verdicts: tuple[Verdict, ...]
    """Every version since the moment; only the newest of each annotation counted before."""
    decisions: tuple[Decision, ...]
    """Those in force that rested on what is doubted."""
    earlier: tuple[Decision, ...]
    """One of each other round that decided by a doubted reply: what is said of that reply later decides nothing."""
    open_items: tuple[str, ...]
    """Items about which nothing is decided yet, though something doubted is there: held back, or still in review."""
    ever: tuple[Decision, ...]
    """All decisions that ever rested on it, so that versions, students and exports of then can be named."""


class Written(NamedTuple):
    """A rationale, and where it came from; of one that no reply gave as such, what its revision was asked by."""

    id: int
    round_id: int
    item_key: str
    supersedes: int | None
    models: frozenset[str]
    prompts: frozenset[str]
    came_at: datetime | None


def touched(store: Store, run: str, grounds: Grounds) -> Touched:
    """What is doubted and still counts, and what rests or rested on it."""
    with store.reading() as session:
        return touched_in(session, run, grounds)


def touched_in(session: Session, run: str, grounds: Grounds) -> Touched:
    """As `touched`, within a transaction."""
    if grounds.reviewer:
        return _said(session, run, grounds)
    decided = _decisions(session, run)
    if grounds.names_replies:
        doubted = _doubted(session, run, grounds)
        resting = [row for row in decided if row.rationale_id in doubted]
        asked = {(each.round_id, each.item_key) for each in doubted.values()}
    else:
        dated = [row for row in decided if grounds.since is None or row.decided_at >= grounds.since]
        resting, asked = [row for row in dated if row.kind is not DecisionKind.UNDECIDED], set()
    found = _touched(decided, (), resting, asked)
    closed = set(session.exec(closed_by_replies(run)))
    still = tuple(row for row in found.decisions if (row.round_id, row.item_key) not in closed)
    closed |= {(row.round_id, row.item_key) for row in still}
    marked = set(session.exec(select(Reopened.decision_id)))
    others = {at: row for row in resting if (at := (row.round_id, row.item_key)) not in closed and row.id not in marked}
    return replace(found, decisions=still, earlier=tuple(others.values()))


def closed_by_replies(run: str, until: datetime | None = None) -> Select[int, str]:
    """The rounds and items in which a recall, until now or that moment, doubted the reply, or what was decided."""
    query = (
        select(Decision.round_id, Decision.item_key)
        .join(Reopened, col(Reopened.decision_id) == Decision.id)
        .join(Withdrawal, col(Withdrawal.id) == Reopened.withdrawal_id)
        .where(Decision.run == run, Withdrawal.reviewer == "")
    )
    return query if until is None else query.where(Withdrawal.withdrawn_at <= until)


def written(store: Store, run: str) -> dict[int, Written]:
    """All rationales of a run that are not planted, by id."""
    with store.reading() as session:
        return _written(session, run)


def parents_of(session: Session) -> dict[int | None, int | None]:
    """Which rationale each one supersedes."""
    query = select(Rationale.id, Rationale.supersedes).where(col(Rationale.supersedes).is_not(None))
    return dict(session.exec(query).all())


def reviewed(
    number: int | None, parents: Mapping[int | None, int | None], said_of: Container[int | None]
) -> int | None:
    """The rationale itself or the nearest one before it of which the reviewer said something."""
    while number is not None and number not in said_of:
        number = parents.get(number)
    return number


def _touched(
    decided: Iterable[Decision],
    verdicts: tuple[Verdict, ...],
    resting: Iterable[Decision],
    asked: Set[tuple[int, str]],
) -> Touched:
    """Of decisions that rest on what is doubted those that matter; `asked` are rounds and items that it is about."""
    rows, ever = list(decided), list(resting)
    newest = {row.item_key: row.id for row in rows}
    done = {(row.round_id, row.item_key) for row in rows}
    return Touched(
        verdicts,
        tuple(row for row in ever if newest[row.item_key] == row.id),
        (),
        tuple(sorted({key for number, key in asked if (number, key) not in done})),
        tuple(ever),
    )


def _decisions(session: Session, run: str) -> list[Decision]:
    return list(session.exec(select(Decision).where(Decision.run == run).order_by(col(Decision.id))))


def _doubted(session: Session, run: str, grounds: Grounds) -> dict[int, Written]:
    """The rationales that a doubted reply gave, and the corrections and continuations of them."""
    every = _written(session, run)
    found: dict[int, Written] = {}
    for number in sorted(every):  # what it supersedes was stored before
        each = every[number]
        if (each.supersedes or 0) in found or _is_doubted(each, grounds):
            found[number] = each
    return found


def _is_doubted(each: Written, grounds: Grounds) -> bool:
    """Whether the teacher's own word is doubted; without a reply of its own it is dated by what it supersedes."""
    return (
        (not grounds.teacher_model or grounds.teacher_model in each.models)
        and (not grounds.prompt or grounds.prompt in each.prompts)
        and (grounds.since is None or (each.came_at is not None and each.came_at >= grounds.since))
    )


def _written(session: Session, run: str) -> dict[int, Written]:
    query = (
        select(  # type: ignore[call-overload]
            Rationale.id, Rationale.round_id, Rationale.item_key, Rationale.supersedes, Rationale.teacher,
            Reply.teacher, Reply.model, Reply.prompt_hash, Reply.created_at,
        )
        .join(Round, col(Round.id) == Rationale.round_id)
        .outerjoin(Reply, col(Reply.id) == Rationale.reply_id)
        .where(Round.run == run, Rationale.planted == "")
    )  # fmt: skip
    revised = _revised(session, run)
    found: dict[int, Written] = {}
    for number, round_id, key, before, teacher, asked, model, prompt, came_at in session.exec(query):
        models = frozenset(name for name in (teacher, asked, model) if name)
        own = (frozenset[str](), frozenset([prompt] if prompt else []), came_at)
        more, prompts, moment = revised.get((round_id, key), own) if model is None and teacher else own
        found[number] = Written(number, round_id, key, before, models | more, prompts, moment)
    return found


def _revised(session: Session, run: str) -> dict[tuple[int, str], tuple[frozenset[str], frozenset[str], datetime]]:
    """Models, prompts and the last moment of what was asked to revise the student's own words, by round and item."""
    query = select(RevisionReply).join(Round, col(Round.id) == RevisionReply.round_id).where(Round.run == run)
    rows: defaultdict[tuple[int, str], list[RevisionReply]] = defaultdict(list)
    for row in session.exec(query):
        rows[row.round_id, row.item_key].append(row)
    return {
        at: (
            frozenset(row.model for row in some),
            frozenset(row.prompt_hash for row in some),
            max(row.created_at for row in some),
        )
        for at, some in rows.items()
    }


def _said(session: Session, run: str, grounds: Grounds) -> Touched:
    """What a reviewer said that is doubted, and what rests on it."""
    query = (
        select(Verdict, Rationale)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, VERSION.not_in(WITHDRAWN))
        .order_by(col(Verdict.updated_at), col(Verdict.annotation))
    )
    rows = list(session.exec(query))
    about = _doubted(session, run, _replies(grounds)).keys() if grounds.names_replies else None
    start = "" if grounds.since is None else grounds.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    taken = [
        each
        for each, _ in rows
        if each.reviewer == grounds.reviewer
        and each.updated_at >= start
        and (about is None or each.rationale_id in about)
    ]
    known_since = _known_since(rows, taken, grounds.reviewer)
    asked = {(each.round_id, each.item_key) for _, each in rows if each.id in known_since}
    decided = _decisions(session, run)
    return _touched(decided, tuple(taken), _resting(session, decided, known_since), asked)


def _replies(grounds: Grounds) -> Grounds:
    """The grounds but for the person: with one, a moment speaks of verdicts."""
    return Grounds(teacher_model=grounds.teacher_model, prompt=grounds.prompt)


def _known_since(
    rows: Iterable[tuple[Verdict, Rationale]], taken: Iterable[Verdict], reviewer: str
) -> dict[int, datetime]:
    """The rationales whose decision these verdicts bore on, each with when the reviewer's first one was known."""
    newest: defaultdict[int, dict[tuple[str, str, str], Verdict]] = defaultdict(dict)
    first: dict[int, datetime] = {}
    planted: set[int] = set()
    meant = {id(each) for each in taken}
    for each, rationale in rows:
        number = rationale.id or 0
        newest[number][each.board, each.project, each.annotation] = each
        if each.reviewer == reviewer:
            first[number] = min(each.pulled_at, first.get(number, each.pulled_at))
        if rationale.planted:
            planted.add(number)
    return {
        number: first[number]
        for number, said in newest.items()
        if number not in planted and any(id(each) in meant for each in deciding(said.values()))
    }


def _resting(session: Session, decided: Iterable[Decision], known_since: Mapping[int, datetime]) -> list[Decision]:
    """The decisions about these rationales, or corrections of them, that were made when the verdict was known.

    What was accepted unreviewed rests on no verdict.
    """
    parents = parents_of(session)
    found = []
    for row in decided:
        since = known_since.get(reviewed(row.rationale_id, parents, known_since) or 0)
        if since is not None and row.decided_at >= since and row.kind is not DecisionKind.SILVER:
            found.append(row)
    return found
