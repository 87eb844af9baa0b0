"""What status, history, export and report read across a whole run."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import inspect, or_
from sqlalchemy.orm import defer
from sqlmodel import Session, SQLModel, col, func, select

from loop.records import (
    Charge,
    Checkpoint,
    Currency,
    Decision,
    Flag,
    Item,
    Judgement,
    Prompt,
    Query,
    Rationale,
    Reply,
    ReviewTask,
    Revision,
    RevisionReply,
    Risk,
    Round,
    Score,
    Split,
    Trial,
    Verdict,
    once,
)
from loop.store.database import Store
from loop.store.rationales import FIRST, REAL
from loop.store.reviews import VERSION, WITHDRAWN

Noun = TypeVar("Noun", bound=SQLModel)
PAID = frozenset({"ask", "escalate", "revise", "continue", "judge"})
"""What dollars are spent on for an item of the batch: the first part of a charge's purpose."""
DEMONSTRATE = "demonstrate"
"""The same, for items that people decided: what their demonstrations cost."""

NEWEST = 50
"""So many requests say what a further one may cost: holds shrink as lengths are learned."""


@dataclass(frozen=True)
class Past:
    """Everything that a run stored about one item, each list in the order in which it came to be."""

    item: Item
    scores: list[Score]
    queries: list[Query]
    prompts: list[Prompt]
    replies: list[Reply]
    charges: list[Charge]
    rationales: list[Rationale]
    flags: list[Flag]
    risks: list[Risk]
    judgements: list[Judgement]
    tasks: list[ReviewTask]
    verdicts: list[Verdict]
    decisions: list[Decision]
    trials: list[Trial]
    revisions: list[Revision]
    revision_replies: list[RevisionReply]


def decisions_of(store: Store, run: str) -> list[Decision]:
    """All decisions of a run, the superseded ones too."""
    with store.reading() as session:
        return list(session.exec(select(Decision).where(Decision.run == run).order_by(col(Decision.id))))


def rationales_of(store: Store, run: str) -> list[Rationale]:
    """All rationales of a run that are not planted."""
    query = select(Rationale).join(Round, col(Round.id) == Rationale.round_id).where(Round.run == run, REAL)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Rationale.id))))


def judged(store: Store, run: str) -> list[Rationale]:
    """Those of them that somebody ever judged."""
    query = select(Rationale).join(Round, col(Round.id) == Rationale.round_id).where(Round.run == run, REAL)
    query = query.where(col(Rationale.id).in_(select(Verdict.rationale_id)))
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Rationale.id))))


def risks_of(store: Store, run: str) -> dict[int, float]:
    """The risk of each of the teacher's first rationales of a run; of planted ones none."""
    query = (
        select(Risk.rationale_id, Risk.value)
        .join(Rationale, col(Rationale.id) == Risk.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run, FIRST)
    )
    with store.reading() as session:
        return dict(session.exec(query).all())


def verdicts_of(store: Store, run: str) -> list[tuple[int, Verdict]]:
    """The verdicts of a run that count, each with the id of its round, oldest first; of planted rationales none.

    Of every annotation the newest version, of every reviewer of a rationale one; those deleted on the board are out.
    What came raw is not read.
    """
    newest = select(Verdict.board, Verdict.project, Verdict.annotation, func.max(Verdict.updated_at)).group_by(
        col(Verdict.board), col(Verdict.project), col(Verdict.annotation)
    )
    query = (
        select(Rationale.round_id, Verdict)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(
            Round.run == run, VERSION.in_(newest), VERSION.not_in(WITHDRAWN), col(Verdict.deleted_at).is_(None), REAL
        )
        .order_by(col(Verdict.updated_at), col(Verdict.annotation))
        .options(defer(Verdict.raw, raiseload=True))  # type: ignore[arg-type]
    )
    with store.reading() as session:
        rows = [(round_id, verdict) for round_id, verdict in session.exec(query)]
    by_rationale: defaultdict[int | None, list[Verdict]] = defaultdict(list)
    for _, verdict in rows:
        by_rationale[verdict.rationale_id].append(verdict)
    counting = {id(verdict) for given in by_rationale.values() for verdict in once(given)}
    return [(round_id, verdict) for round_id, verdict in rows if id(verdict) in counting]


def reviewers_of(store: Store, run: str) -> list[str]:
    """Who gave verdicts in a run, in the order of their first one; later verdicts change nothing in it."""
    first = func.min(Verdict.pulled_at)
    query = (
        select(Verdict.reviewer, first)
        .join(Rationale, col(Rationale.id) == Verdict.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
        .where(Round.run == run)
        .group_by(col(Verdict.reviewer))
        .order_by(first, col(Verdict.reviewer))
    )
    with store.reading() as session:
        return [reviewer for reviewer, _ in session.exec(query)]


def tasks_of(store: Store, run: str) -> list[ReviewTask]:
    """The review tasks of a run by rationale."""
    query = select(ReviewTask).join(Round, col(Round.id) == ReviewTask.round_id).where(Round.run == run)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(ReviewTask.rationale_id))))


def queries_of(store: Store, run: str) -> list[Query]:
    """All queries of a run, round by round."""
    query = select(Query).join(Round, col(Round.id) == Query.round_id).where(Round.run == run)
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Query.round_id), col(Query.position))))


def checkpoints_of(store: Store, run: str) -> dict[int, Checkpoint]:
    """The checkpoints of a run by id."""
    with store.reading() as session:
        rows = session.exec(select(Checkpoint).where(Checkpoint.run == run))
        return {row.id: row for row in rows if row.id is not None}


def domains(store: Store) -> dict[str, str]:
    """The domains of all items but those of the pool that nobody asked about, by key."""
    asked = col(Item.key).in_(select(Query.item_key)) | col(Item.key).in_(select(Rationale.item_key))
    with store.reading() as session:
        of_pool = session.exec(select(Item.key, Item.domain).where(Item.split == Split.POOL, asked)).all()
        others = session.exec(select(Item.key, Item.domain).where(col(Item.split).in_([Split.HOLDOUT, Split.SEED])))
        return dict([*of_pool, *others])


def all_keys(store: Store) -> list[str]:
    """The keys of all items."""
    with store.reading() as session:
        return list(session.exec(select(Item.key).order_by(col(Item.key))))


def spent_by_round(store: Store, run: str) -> dict[int, dict[Currency, int]]:
    """Settled millionths by round and currency: dollars by what they were charged for, minutes by review task."""
    found: defaultdict[int, dict[Currency, int]] = defaultdict(lambda: dict.fromkeys(Currency, 0))
    reviewed = (
        select(ReviewTask.round_id, func.sum(Charge.settled))
        .join(Charge, col(Charge.id) == ReviewTask.charge_id)
        .where(Charge.run == run)
        .group_by(col(ReviewTask.round_id))
    )
    with store.reading() as session:
        for round_id, settled in session.exec(_settled(run, PAID | {DEMONSTRATE})):
            found[round_id][Currency.USD] = int(settled)
        for round_id, settled in session.exec(reviewed):
            found[round_id][Currency.MINUTES] = int(settled)
    return dict(found)


def spent_on_batches(store: Store, run: str) -> dict[int, int]:
    """Micro-dollars that a round's batch cost, by the round's id: settled, or saved by remembering."""
    found: Counter[int] = Counter()
    own = select(Round.id).where(Round.run == run)
    judged = select(Rationale.round_id, func.sum(Judgement.saved)).join(
        Rationale, col(Rationale.id) == Judgement.rationale_id
    )
    remembered = [
        *(select(each.round_id, func.sum(each.saved)).group_by(col(each.round_id)) for each in (Reply, RevisionReply)),
        judged.group_by(col(Rationale.round_id)),
    ]
    with store.reading() as session:
        mine = set(session.exec(own))
        for query in (_settled(run, PAID), *remembered):
            found.update({number: int(micro_usd) for number, micro_usd in session.exec(query) if number in mine})
    return dict(found)


def _settled(run: str, kinds: Iterable[str]) -> Any:
    """Sums of the settled micro-dollars of these kinds, by the round's id."""
    wanted = or_(*(col(Charge.purpose).startswith(f"{kind}/") for kind in sorted(kinds)))
    query = select(Charge.round_id, func.sum(Charge.settled)).where(
        Charge.run == run, Charge.currency == Currency.USD, col(Charge.round_id).is_not(None), wanted
    )
    return query.group_by(col(Charge.round_id))


def spent_by_query(store: Store, run: str, kinds: Set[str] = PAID) -> dict[tuple[int, str], int]:
    """Micro-dollars by the round and the key of the item that was asked and judged: settled, or saved by remembering.

    So a campaign that is replayed weighs its items as the one that paid did. `kinds` are some of `PAID`.
    """
    found: defaultdict[tuple[int, str], int] = defaultdict(int)
    asked = select(Charge.purpose, Charge.settled).where(Charge.run == run, Charge.currency == Currency.USD)
    replies = select(Reply.round_id, Reply.item_key, Reply.saved).where(Reply.saved > 0)
    revised = select(RevisionReply.round_id, RevisionReply.item_key, RevisionReply.saved).where(RevisionReply.saved > 0)
    judged = (
        select(Rationale.round_id, Rationale.item_key, Judgement.saved)
        .join(Rationale, col(Rationale.id) == Judgement.rationale_id)
        .where(Judgement.saved > 0)
    )
    with store.reading() as session:
        for purpose, settled in session.exec(asked):
            kind, number, *key, _, _ = purpose.split("/")
            if kind in kinds:
                found[int(number), "/".join(key)] += settled
        for kind, remembered, at in (
            ("ask", replies, Reply.round_id),
            ("revise", revised, RevisionReply.round_id),
            ("judge", judged, Rationale.round_id),
        ):
            if kind not in kinds:
                continue
            rows = session.exec(remembered.join(Round, col(Round.id) == at).where(Round.run == run))
            for round_id, item_key, saved in rows:
                found[round_id, item_key] += saved
    return dict(found)


def trial_prices(store: Store, run: str) -> list[int]:
    """Micro-dollars of each request by which demonstrations were explained or tried, in their order; no zeros."""
    query = select(Charge.settled).where(
        Charge.run == run, col(Charge.purpose).startswith(f"{DEMONSTRATE}/"), col(Charge.settled) > 0
    )
    with store.reading() as session:
        return list(session.exec(query.order_by(col(Charge.id))))


def spent_by_model(store: Store, run: str) -> dict[str, int]:
    """Micro-dollars by the model that was paid, by its name."""
    query = select(Charge.model, func.sum(Charge.settled)).where(Charge.run == run, Charge.model != "")
    with store.reading() as session:
        rows = session.exec(query.group_by(col(Charge.model)).order_by(col(Charge.model)))
        return {model: int(settled) for model, settled in rows}


def mean_output_tokens(store: Store, run: str) -> float | None:
    """Tokens of an average reply to an item alone; None before the first one."""
    query = select(func.avg(Reply.output_tokens)).join(Round, col(Round.id) == Reply.round_id)
    query = query.where(Round.run == run, Reply.version == 1)
    with store.reading() as session:
        mean = session.exec(query).one()
    return None if mean is None else float(mean)


def remembered(store: Store, round_id: int) -> int:
    """How many replies about items of a round were remembered and cost nothing."""
    with store.reading() as session:
        return sum(
            session.exec(select(func.count()).where(noun.round_id == round_id, col(noun.remembered).is_not(None))).one()
            for noun in (Reply, RevisionReply)
        )


def least_request(store: Store, run: str) -> int:
    """The smallest hold that one of the newest requests to the teacher needed, in micro-dollars; 0 before any."""
    query = select(Charge.reserved).where(
        Charge.run == run,
        Charge.currency == Currency.USD,
        col(Charge.purpose).startswith("ask/"),
        col(Charge.reserved) > 0,
    )
    with store.reading() as session:
        return min(session.exec(query.order_by(col(Charge.id).desc()).limit(NEWEST)), default=0)


def past_of(store: Store, run: str, item: Item) -> Past:
    """Everything that a run stored about an item."""
    key = item.key
    rounds = select(Round.id).where(Round.run == run)
    with store.reading() as session:
        rationales = _rows(session, Rationale, Rationale.item_key == key, col(Rationale.round_id).in_(rounds))
        ids = [each.id for each in rationales]
        replies = _rows(session, Reply, Reply.item_key == key, col(Reply.round_id).in_(rounds))
        tasks = _rows(session, ReviewTask, col(ReviewTask.rationale_id).in_(ids))
        judgements = _rows(session, Judgement, col(Judgement.rationale_id).in_(ids))
        trials = _rows(session, Trial, Trial.item_key == key, Trial.run == run)
        checked = _rows(session, RevisionReply, RevisionReply.item_key == key, col(RevisionReply.round_id).in_(rounds))
        sent: list[Reply | Judgement | Trial | RevisionReply] = [*replies, *judgements, *trials, *checked]
        prompts, paid = [each.prompt_hash for each in sent], [each.charge_id for each in sent]
        paid += [each.charge_id for each in tasks]
        return Past(
            item=item,
            scores=_rows(session, Score, Score.item_key == key, col(Score.round_id).in_(rounds)),
            queries=_rows(session, Query, Query.item_key == key, col(Query.round_id).in_(rounds)),
            prompts=_rows(session, Prompt, col(Prompt.hash).in_(prompts)),
            replies=replies,
            charges=_rows(session, Charge, Charge.run == run, col(Charge.id).in_(paid)),
            rationales=rationales,
            flags=_rows(session, Flag, col(Flag.rationale_id).in_(ids)),
            risks=_rows(session, Risk, col(Risk.rationale_id).in_(ids)),
            judgements=judgements,
            tasks=tasks,
            verdicts=_rows(session, Verdict, col(Verdict.rationale_id).in_(ids)),
            decisions=_rows(session, Decision, Decision.item_key == key, Decision.run == run),
            trials=trials,
            revisions=_rows(session, Revision, Revision.item_key == key, col(Revision.round_id).in_(rounds)),
            revision_replies=checked,
        )


def _rows(session: Session, model: type[Noun], *conditions: Any) -> list[Noun]:
    """The rows of a table that meet the conditions, in the order of their primary key."""
    order = inspect(model).primary_key
    return list(session.exec(select(model).where(*conditions).order_by(*order)))
