"""REVIEW: audits and the riskiest go to people; the stage closes at its quorum or deadline."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from loop import acceptance, certification
from loop.config import Config
from loop.ledger import to_micro
from loop.records import ADJUDICATION, ROLES, SECOND, Rationale, Round, role
from loop.stages import continuing
from loop.stages.parts import Parts, id_of
from loop.store import items, judgements, planted, rationales, reviews, rounds, withdrawals
from loop.store.database import Store
from loop.teacher.judge import is_read


def is_reviewed(current: Round, store: Store, parts: Parts, config: Config) -> bool:
    """Push what is to be reviewed, pull what was; whether the stage may close."""
    _open(current, store, parts, config)
    minutes = to_micro(config.review.minutes_per_review)
    if reviews.pending(store, id_of(current)):
        parts.reviewers.pull()  # what was judged on an older page is not asked for again on a new one
        parts.reviewers.push(reviews.pending(store, id_of(current)))
        parts.reviewers.pull()
    if config.review.disagreements == "person" and reviews.open_tasks(
        store, current.run, id_of(current), _contradicted(current, store), minutes
    ):
        parts.reviewers.push(reviews.pending(store, id_of(current)))
    assert current.review_opened_at is not None
    deadline = current.review_opened_at + timedelta(hours=config.review.deadline_hours)
    if datetime.now(UTC) >= deadline:
        return True
    if reviews.open_tasks(store, current.run, id_of(current), _continued(current, store, parts, config), minutes):
        parts.reviewers.push(reviews.pending(store, id_of(current)))
    return _is_done(current, store, config)


def _open(current: Round, store: Store, parts: Parts, config: Config) -> None:
    """Open the reviews that are wanted, as far as the minutes reach: audits first, then what a minute is worth most."""
    worth = parts.reviewers.worth([each for each in rationales.of_round(store, id_of(current)) if each.is_reply])
    real = [*_again(current, store), *wanted(current, store, config, worth)]
    sent = _without_doubts(_mixed(real, planted.of_round(store, id_of(current)), current, config), config)
    minutes = to_micro(config.review.minutes_per_review)
    reviews.open_tasks(store, current.run, id_of(current), sent, minutes)


def _is_done(current: Round, store: Store, config: Config) -> bool:
    """Whether enough of the reviews have a verdict, and all that people disagree about."""
    roles = [role(task.slot) for task in reviews.tasks(store, id_of(current))]
    waiting = [role(task.slot) for task, _, _ in reviews.pending(store, id_of(current))]
    total, left = (sum(each != ADJUDICATION for each in some) for some in (roles, waiting))
    return total - left >= math.ceil(config.review.quorum * total) and ADJUDICATION not in waiting


def wanted(
    current: Round, store: Store, config: Config, worth: Mapping[int, float] = MappingProxyType({})
) -> list[reviews.Wanted]:
    """Rationales for reviewers: audits first, then by what a review is worth, or by risk where that is not known.

    Those that certify go to two people, and of all others a share.
    """
    queries = rounds.queries(store, id_of(current))
    audited = {query.item_key for query in queries if query.audit}
    certifying = {query.item_key for query in queries if query.certify}
    asked = [each for each in rationales.of_round(store, id_of(current)) if each.is_reply]
    risks = rationales.risks(store, [each.id for each in asked if each.id is not None])
    value = risks | dict(worth)
    ranked = sorted(asked, key=lambda each: (each.item_key not in audited, -value[each.id or 0], each.item_key))
    threshold = review_threshold(config, certified(current, store, config))
    return [
        reviews.Wanted(each, "audit" if each.item_key in audited else "risk", _uid(current, each, slot), slot)
        for each in ranked
        if each.item_key in audited or risks[each.id or 0] >= threshold
        for slot in ((0, SECOND) if each.item_key in certifying or has_second(each.item_key, config) else (0,))
    ]


def has_second(key: str, config: Config) -> bool:
    """Whether what is reviewed of an item is reviewed by a second person, beside what certifies."""
    return random.Random(f"second/{config.run.seed}/{key}").random() < config.review.second_share


def _again(current: Round, store: Store) -> list[reviews.Wanted]:
    """Reviews to be made again since their verdicts were withdrawn, of this round and of earlier ones.

    Each stands in a slot of its own: on the board the old task is done.
    """
    return [
        reviews.Wanted(rationale, task.reason, f"{task.uid}/again", task.slot + ROLES)
        for rationale, task in withdrawals.to_review_again(store, current.run)
    ]


def _without_doubts(sent: Sequence[reviews.Wanted], config: Config) -> list[reviews.Wanted]:
    """The same, a random share of them to be shown without doubts; who adjudicates sees everything."""
    share, seed = config.review.unflagged_share, config.run.seed
    return [
        replace(each, unflagged=random.Random(f"unflagged/{seed}/{each.uid}").random() < share)
        if role(each.slot) != ADJUDICATION
        else each
        for each in sent
    ]


def _mixed(
    real: Sequence[reviews.Wanted], bad: Sequence[Rationale], current: Round, config: Config
) -> list[reviews.Wanted]:
    """The planted rationales spread evenly among the others, so that both get their share of the minutes."""
    places = [(at / len(real), row) for at, row in enumerate(real)]
    places += [
        ((at + 0.5) / len(bad), reviews.Wanted(each, "planted", _uid(current, each, slot), slot))
        for at, each in enumerate(bad)
        for slot in ((0, SECOND) if has_second(each.item_key, config) else (0,))
    ]
    return [row for _, row in sorted(places, key=lambda each: each[0])]


def _contradicted(current: Round, store: Store) -> list[reviews.Wanted]:
    """Rationales whose reviews contradict each other, for a third person; planted ones too, or the others show."""
    asked = [each for each in rationales.of_round(store, id_of(current)) if each.is_reply]
    asked += planted.of_round(store, id_of(current))
    said = reviews.verdicts(store, [each.id or 0 for each in asked])
    return [
        reviews.Wanted(each, "disagreement", _uid(current, each, ADJUDICATION), ADJUDICATION)
        for each in asked
        if acceptance.contradict(said.get(each.id or 0, []))
    ]


def _continued(current: Round, store: Store, parts: Parts, config: Config) -> list[reviews.Wanted]:
    """What the teacher went on to from corrected steps, to be confirmed; best by the person who corrected them, who
    gave the verdict on the rationale that it supersedes.
    """
    rows = continuing.continued(current, store, parts, config)
    return [reviews.Wanted(each, "continued", f"{_uid(current, each, 0)}/continued-{each.version}") for each in rows]


def _uid(current: Round, rationale: Rationale, slot: int) -> str:
    """What the board knows a review by."""
    return f"{current.run}/{current.number}/{rationale.item_key}" + (f"/{slot + 1}" if slot else "")


def certified(current: Round, store: Store, config: Config) -> float | None:
    """The certified threshold that the round may rely on; none where the judge could not read all that is below it."""
    relied_on = certification.threshold_in_force(store, current, config)
    if relied_on is None or relied_on.threshold is None or not config.judge.model:
        return None if relied_on is None else relied_on.threshold
    asked = {each.id or 0: each for each in rationales.of_round(store, id_of(current)) if each.is_reply}
    low = [number for number, risk in rationales.risks(store, list(asked)).items() if risk < relied_on.threshold]
    said, wanted = judgements.of_rationales(store, low), items.existing(store, [asked[each].item_key for each in low])
    read = [is_read(wanted[asked[each].item_key], asked[each], said.get(each, ()), config.judge) for each in low]
    return relied_on.threshold if all(read) else None


def review_threshold(config: Config, certified: float | None) -> float:
    """The risk from which on a rationale is reviewed."""
    return certified or 0.0 if config.acceptance.require_certificate else config.review.risk_threshold
