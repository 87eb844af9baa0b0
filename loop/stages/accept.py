"""ACCEPT: what becomes of each item, and which audits are held back."""

from collections.abc import Sequence, Set
from datetime import UTC, datetime

from loop import acceptance, certification
from loop.checks.flag import doubts
from loop.checks.risk import evidence
from loop.config import Config
from loop.ports import Silent
from loop.records import Decision, DecisionKind, Query, Rationale, Round, Stage
from loop.stages.judging import Judging
from loop.stages.looking import learned, looking
from loop.stages.parts import Parts, id_of
from loop.stages.review import certified
from loop.store import certificates, decisions, rationales, reviews, rounds, withdrawals
from loop.store.database import Store


def decide(current: Round, store: Store, parts: Parts, config: Config) -> Round:
    """Decide about every item of the batch but those that are held back, and move on to TRAIN."""
    limits = acceptance.passing(config.acceptance, certified(current, store, config))
    _hold_back(current, store, parts, config, limits)
    rows = rationales.of_round(store, id_of(current))
    asked = {each.item_key: each for each in rows if each.is_reply}
    sent = {task.rationale_id for task in reviews.tasks(store, id_of(current))}
    ids = [each.id for each in rows if each.id is not None]
    verdicts = {each: acceptance.counting(said, config.review) for each, said in reviews.verdicts(store, ids).items()}
    risks = rationales.risks(store, ids)
    decided_about: list[Decision] = []
    for query in rounds.queries(store, id_of(current)):
        first = asked.get(query.item_key)
        if query.certify and first is not None:
            continue  # held back until a certificate releases it
        rationale = None if first is None else acceptance.standing(first, rows, verdicts)
        number = -1 if rationale is None or rationale.id is None else rationale.id
        is_sent = number in sent or rationale is not first
        decided = acceptance.decide(query, rationale, is_sent, verdicts.get(number, []), risks.get(number), limits)
        shown = None if rationale is None else _corrected(store, rationale, decided)
        decided_about.append(_decision(current, query, shown, decided))
    decisions.keep(store, [*decided_about, *_again(current, store, config, sent, limits)])
    return rounds.enter(store, current, Stage.TRAIN)


def _again(current: Round, store: Store, config: Config, sent: Set[int], limits: acceptance.Passing) -> list[Decision]:
    """Decisions about earlier rationales that were reviewed again after a recall, by all that was said and counts."""
    waiting = withdrawals.with_queries(store, withdrawals.awaiting(store, current.run).values())
    rows: list[Decision] = []
    for query, rationale in waiting.values():
        number = rationale.id or 0
        if number in sent:
            said = acceptance.counting(reviews.verdicts(store, [number]).get(number, []), config.review)
            decided = acceptance.decide(query, rationale, True, said, None, limits)
            rows.append(_decision(current, query, _corrected(store, rationale, decided), decided))
    return rows


def _corrected(store: Store, rationale: Rationale, decided: acceptance.Decided) -> Rationale:
    """The rationale that a decision is about: as reviewers corrected it, where they did."""
    if decided.corrected is None:
        return rationale
    steps, answer = decided.corrected
    return rationales.keep_correction(store, rationale, steps=list(steps), answer=answer)


def _hold_back(current: Round, store: Store, parts: Parts, config: Config, limits: acceptance.Passing) -> None:
    """Note which certifying audits would have passed unreviewed, then look at all that are held."""
    audits = [each for each in certificates.audits(store, current.run) if each.query.round_id == current.id]
    passing = [
        each.item.key
        for each in audits
        if acceptance.unreviewed(each.rationale, each.risk, limits).kind is DecisionKind.SILVER
    ]
    certificates.note_passing(store, id_of(current), passing)

    def rescored(some: Sequence[Rationale]) -> list[float]:
        looked_at = looking(current, store, parts, config)
        knowing = learned(current, store, looked_at, config)
        cases = [knowing.knows(case) for case in looked_at(some)]
        objections = Judging(current, store, parts, config)(cases, Silent())
        found = [[*doubts(case, config.checks), *objections.get(case.rationale.id or 0, ())] for case in cases]
        return [knowing.risk(evidence(each)) for each in found]

    found = certification.look(current, store, config, rescored)
    if found is not None:
        parts.progress.say(f"  {certification.look_text(found)}")


def _decision(current: Round, query: Query, rationale: Rationale | None, decided: acceptance.Decided) -> Decision:
    return Decision(
        run=current.run,
        item_key=query.item_key,
        round_id=id_of(current),
        rationale_id=None if rationale is None else rationale.id,
        kind=decided.kind,
        certified=decided.certified,
        reason=decided.reason,
        decided_at=datetime.now(UTC),
    )
