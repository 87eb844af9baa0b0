"""What the order of reviews goes by, read off the store."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from loop.checks.risk import Reviewed, RiskModel, fit
from loop.config import Config
from loop.ledger import MICRO
from loop.records import Author, DecisionKind, Rationale
from loop.store import decisions, rationales, reading, rounds
from loop.store.database import Store
from review.triage import Need, pace, worth


def review_worth(store: Store, config: Config, rows: Sequence[Rationale]) -> dict[int, float]:
    """What a minute of review is worth for each rationale, by its id."""
    run = config.run.name
    minutes = pace(_past(store, run), config.review.minutes_per_review)
    saved = _saved(store, run, config.budget.usd_per_review_hour)
    found = {each.id or 0: need for each, need in zip(rows, _needs(store, run, rows), strict=True)}
    return {number: worth(need, minutes(need.length), saved) for number, need in found.items()}


def _saved(store: Store, run: str, usd_per_hour: float | None) -> float:
    """Minutes of review that cost as much as asking about an item again did on average."""
    paid = [*reading.spent_by_query(store, run).values()]
    return 0.0 if usd_per_hour is None or not paid else sum(paid) / len(paid) / MICRO / usd_per_hour * 60


def _needs(store: Store, run: str, rows: Sequence[Rationale]) -> list[Need]:
    """What is known of each rationale; of an item without a score, half is taken to be unknown."""
    model = _risk_now(store, run)
    seen = rationales.evidence(store, [each.id or 0 for each in rows])
    scores = {number: rounds.score_values(store, number) for number in {each.round_id for each in rows}}
    domain = reading.domains(store)
    corrected = _corrected(store, run, domain)
    return [
        Need(
            risk=model(seen.get(each.id or 0, {})),
            doubt=min(1.0, max(0.0, scores[each.round_id].get(each.item_key, 0.5))),
            correctable=(corrected[domain[each.item_key], True] + 1)
            / (corrected[domain[each.item_key], True] + corrected[domain[each.item_key], False] + 2),
            length=_length(each),
        )
        for each in rows
    ]


def _risk_now(store: Store, run: str) -> RiskModel:
    """The risk model from all verdicts so far, those of the open round too; it only serves the order.

    Reviewed rationales were chosen by their evidence, which the model is given, so they need no weights.
    """
    judged = rationales.judged(store, run, datetime.now(UTC))
    return fit([Reviewed(each.risk.evidence, each.wrong) for each in judged])


def _corrected(store: Store, run: str, domain: Mapping[str, str]) -> Counter[tuple[str, bool]]:
    """How many wrong rationales of each domain were corrected, and how many were not."""
    corrected = {item.key for item, rationale, _ in decisions.decided(store, run) if rationale.author is Author.HUMAN}
    rejected = {key for key, row in decisions.newest(store, run).items() if row.kind is DecisionKind.REJECTED}
    return Counter([(domain[key], True) for key in corrected] + [(domain[key], False) for key in rejected])


def _past(store: Store, run: str) -> list[tuple[int, float]]:
    """Length and minutes of each review by a person; what a simulated reviewer claims teaches nothing."""
    timed = [
        verdict
        for _, verdict in reading.verdicts_of(store, run)
        if verdict.kind is not None and not verdict.simulated and verdict.seconds > 0
    ]
    lengths = {each.id: _length(each) for each in reading.rationales_of(store, run)} if timed else {}
    return [(lengths[each.rationale_id], each.seconds / 60) for each in timed if each.rationale_id in lengths]


def _length(rationale: Rationale) -> int:
    return sum(len(step) for step in rationale.steps)
