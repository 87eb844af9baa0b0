"""Looks at the audits that are held back: what they certify, which threshold is in force, and their release."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from loop import acceptance
from loop.certificate import (
    Stratum,
    audits_needed,
    certified_threshold,
    look_delta,
    testable,
    thresholds_to_test,
    wrong_rows_bound,
)
from loop.config import Config
from loop.interval import clopper_pearson_lower, clopper_pearson_upper
from loop.records import Certificate, Decision, DecisionKind, Item, Promise, Rationale, RiskFit, Round, Split
from loop.store import certificates, counting, decisions, rationales, reviews, rounds, withdrawals
from loop.store.certificates import Audit
from loop.store.database import Store
from loop.teacher.judge_prompt import a_step_request
from loop.teacher.prompt import request_for

TEACHES = {
    "base_url",
    "recorded",
    "model",
    "samples",
    "temperature",
    "format",
    "demonstrations",
    "logprobs",
    "reprompt_below",
    "revise",
    "stronger",
    "vote_confidence",
}
"""Settings of the teacher, and of the judge, that shape what it says."""


def threshold_in_force(store: Store, current: Round, config: Config) -> Certificate | None:
    """The certified threshold that a round may rely on: the newest look of the rounds before it, if it holds still.

    None whose audits a recall may have taken back since.
    """
    looks = [look for look in _looks(store, current.run) if look.round_id < _id(current)]
    if not looks or looks[-1].threshold is None:
        return None
    recalled = withdrawals.last_on_audits(store, current.run)
    if recalled is not None and recalled >= looks[-1].issued_at:
        return None
    fit = rationales.risk_fit(store, looks[-1].round_id)
    return looks[-1] if fit is not None and fingerprint(config, fit) == looks[-1].fingerprint else None


def lapsed(store: Store, run: str, until: datetime | None = None) -> dict[int, int]:
    """Rounds whose rows no threshold certifies (any more), by id with their number: as is known now, or was then.

    The look that they relied on was refuted by the next one, or audits that it may rest on were recalled since.
    """
    looks = [each for each in _looks(store, run) if until is None or each.issued_at <= until]
    recalled = withdrawals.last_on_audits(store, run, until)
    every = {_id(each): each.number for each in rounds.all_rounds(store, run)}
    return {number: place for number, place in every.items() if not _certifies(looks, number, recalled)}


def _certifies(looks: Sequence[Certificate], round_id: int, recalled: datetime | None) -> bool:
    """Whether the threshold that a round relied on still stands."""
    before = [each for each in looks if each.round_id < round_id]
    if not before or before[-1].threshold is None or (recalled is not None and recalled >= before[-1].issued_at):
        return False
    after = looks[len(before) : len(before) + 1]
    return all(each.threshold is not None or each.fingerprint != before[-1].fingerprint for each in after)


def fingerprint(config: Config, fit: RiskFit) -> str:
    """Of all that makes a rationale and its risk, the student apart; while it stays, a certified threshold holds."""
    from loop.checks.flag import check_set  # noqa: PLC0415 - loads every check, which takes a second

    blank = Item(key="", question="", split=Split.POOL, text_hash="")
    made_by = [
        config.teacher.model_dump(mode="json", include=TEACHES),
        [dict(message) for message in request_for(blank, config.task, config.teacher, (), 0).messages],
        check_set(config.checks),
        [fit.base, sorted(fit.weights.items()), fit.reviewed, fit.learned_in or fit.round_id],
    ]
    if config.judge.model:
        made_by += [
            config.judge.model_dump(mode="json", include=TEACHES | {"max_steps"}),
            [dict(message) for message in a_step_request(blank, config.task, config.judge).messages],
        ]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def look(
    current: Round, store: Store, config: Config, rescored: Callable[[Sequence[Rationale]], Sequence[float]]
) -> Certificate | None:
    """Test whether a threshold can be certified, where enough audits are held; the stored look, None without one.

    `rescored` gives the risk of rationales as the round would judge them. A certified threshold releases the audits
    that it rests on. While one is in force, a look is only made to withdraw it: when the audits held since refute it.
    """
    past = _looks(store, current.run)
    fit = rationales.risk_fit(store, _id(current))
    held = [audit for audit in certificates.audits(store, current.run) if audit.held]
    if fit is None or not held or (past and past[-1].round_id == _id(current)):
        return None
    seen = list(zip(rescored([audit.rationale for audit in held]), [audit.wrong for audit in held], strict=True))
    relied_on = threshold_in_force(store, current, config)
    alpha, delta = config.acceptance.alpha, look_delta(config.acceptance.delta, len(past) + 1)
    fixed = config.acceptance.thresholds or _quantiles(store, current, len(held), config, delta)
    tested, found = testable(fixed, [risk for risk, _ in seen], alpha=alpha, delta=delta), None
    if relied_on is not None:
        tested = [relied_on.threshold or 0.0] if _refuted(relied_on, seen, delta) else []
    else:
        found = certified_threshold(tested, seen, alpha=alpha, delta=delta)
    if not tested:
        return None
    below = [wrong for risk, wrong in seen if risk < (found or tested[0])]
    row = _certificate(current, config, Promise.THRESHOLD, len(past) + 1, len(below), sum(below))
    row.delta, row.threshold, row.fingerprint = delta, found, fingerprint(config, fit)
    row.bound = clopper_pearson_upper(sum(below), len(below), 1 - delta)
    certificates.keep(store, row, _released(store, config, held, row) if found is not None else [])
    return row


def _quantiles(store: Store, current: Round, audits: int, config: Config, delta: float) -> list[float]:
    """The thresholds of a look, from the risks of all that the round asked."""
    ids = [each.id or 0 for each in rationales.of_round(store, _id(current)) if each.is_reply]
    risks = [*rationales.risks(store, ids).values()]
    wanted = config.acceptance
    found = thresholds_to_test(risks, audits, alpha=wanted.alpha, delta=delta)
    return sorted({min(each, wanted.silver_risk) for each in found})


def _refuted(relied_on: Certificate, seen: Sequence[tuple[float, bool]], delta: float) -> bool:
    """Whether audits say that more than alpha are wrong below a certified threshold."""
    below = [wrong for risk, wrong in seen if risk < (relied_on.threshold or 0.0)]
    return clopper_pearson_lower(sum(below), len(below), 1 - delta) > relied_on.alpha


def look_text(row: Certificate) -> str:
    """What a look found, in a sentence."""
    counted = f"{row.wrong} of the {row.audited} audits below it were wrong, bound {row.bound:.1%}"
    if row.threshold is None:
        return f"no threshold is certified: the strictest that can be tested failed ({counted})"
    return f"certified: of rationales with risk below {row.threshold:g} at most {row.alpha:.0%} are wrong ({counted})"


def missing_audits(store: Store, run: str, config: Config) -> int:
    """How many more audits without an error the next look at a threshold needs; 0 where it can be made."""
    held = counting.held(store, run)
    delta = look_delta(config.acceptance.delta, len(_looks(store, run)) + 1)
    return max(0, audits_needed(config.acceptance.alpha, delta) - held)


def export_certificate(
    store: Store, current: Round, config: Config, every: Sequence[Audit], rows: Counter[int] | None = None
) -> Certificate:
    """What can be promised of the rows accepted unreviewed so far, by all of a run's audits; not stored.

    `rows` are others than those, counted by the id of their round.
    """
    audits = [audit for audit in every if audit.query.passes]
    silver = decisions.in_force_by_round(store, current.run, [DecisionKind.SILVER]) if rows is None else rows
    drawn = Counter(audit.query.round_id for audit in audits)
    wrong = Counter(audit.query.round_id for audit in audits if audit.wrong)
    strata = [
        Stratum(silver[number] + drawn[number], drawn[number], wrong[number]) for number in sorted(silver | drawn)
    ]
    looks = certificates.of_run(store, current.run, Promise.EXPORT)
    row = _certificate(current, config, Promise.EXPORT, len(looks) + 1, drawn.total(), wrong.total())
    row.population = silver.total() + drawn.total()
    _, row.bound = wrong_rows_bound(strata, config.acceptance.delta)
    return row


def issue(store: Store, current: Round, config: Config) -> tuple[Certificate, int]:
    """Store the export's certificate and release all audits that are held; the certificate and how many they were."""
    audits = certificates.audits(store, current.run)
    row = export_certificate(store, current, config, audits)
    held = [audit for audit in audits if audit.held and audit.verdicts]
    certificates.keep(store, row, _released(store, config, held, row))
    return row, len(held)


def _looks(store: Store, run: str) -> list[Certificate]:
    return certificates.of_run(store, run, Promise.THRESHOLD)


def _certificate(current: Round, config: Config, promise: Promise, look: int, audited: int, wrong: int) -> Certificate:
    return Certificate(
        run=current.run,
        round_id=_id(current),
        promise=promise,
        look=look,
        alpha=config.acceptance.alpha,
        delta=config.acceptance.delta,
        audited=audited,
        wrong=wrong,
        bound=1.0,
        issued_at=datetime.now(UTC),
    )


def _released(store: Store, config: Config, held: Sequence[Audit], row: Certificate) -> list[Decision]:
    """The decisions about held audits, by what people said of them."""
    rows = []
    for audit in held:
        passing = acceptance.passing(config.acceptance, None)
        chain = rationales.of_round(store, audit.query.round_id)
        given = reviews.verdicts(store, [each.id or 0 for each in chain if each.item_key == audit.item.key])
        said = {number: acceptance.counting(each, config.review) for number, each in given.items()}
        rationale = acceptance.standing(audit.rationale, chain, said)
        verdicts = said.get(rationale.id or 0, ())
        decided = acceptance.decide(audit.query, rationale, True, verdicts, audit.risk, passing)
        if decided.corrected is not None:
            steps, answer = decided.corrected
            rationale = rationales.keep_correction(store, rationale, steps=list(steps), answer=answer)
        rows.append(
            Decision(
                run=row.run,
                item_key=audit.item.key,
                round_id=audit.query.round_id,
                rationale_id=rationale.id,
                kind=decided.kind,
                reason=f"{decided.reason}; released by the certificate of the {row.promise}",
                decided_at=row.issued_at,
            )
        )
    return rows


def _id(current: Round) -> int:
    assert current.id is not None
    return current.id
