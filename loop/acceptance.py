"""What becomes of an item: gold, silver, rejected or undecided. Pure; the round stores it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loop.answer import Answer
from loop.config import AcceptanceConfig
from loop.records import DecisionKind, Query, Rationale, Verdict, VerdictKind, deciding


@dataclass(frozen=True)
class Decided:
    """A decision and its reason; `corrected` holds the steps and the answer of an edit."""

    kind: DecisionKind
    reason: str
    certified: bool = False
    corrected: tuple[tuple[str, ...], Answer] | None = None


@dataclass(frozen=True)
class Passing:
    """Risks strictly below which a rationale passes unreviewed, and below which that is certified."""

    silver: float
    certified: float


def passing(config: AcceptanceConfig, threshold: float | None) -> Passing:
    """What passes where this threshold is certified, or none."""
    certified = threshold or 0.0
    return Passing(certified if config.require_certificate else config.silver_risk, certified)


def decide(
    query: Query,
    rationale: Rationale | None,
    sent: bool,
    verdicts: Sequence[Verdict],
    risk: float | None,
    limits: Passing,
) -> Decided:
    """Decide about an item when its review closes, `sent` if it was to be reviewed.

    People's verdicts go before the risk.
    """
    if rationale is None:
        return _undecided(query.problem or "no reply came")
    votes = _votes(verdicts)
    if votes:
        return _judged(rationale, votes)
    if sent:
        return _undecided("no verdict when the review closed")
    return unreviewed(rationale, risk, limits)


def contradict(verdicts: Sequence[Verdict]) -> bool:
    """Whether reviewers contradict each other, so that one more person has to decide."""
    votes = _votes(verdicts)
    corrected = {vote.answer for vote in votes if vote.kind is VerdictKind.EDIT}
    return len({vote.kind for vote in votes}) > 1 or len(corrected) > 1


def strictest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts that count where the stricter one does: rejections, where there are none edits, else all."""
    votes = _votes(verdicts)
    for kind in (VerdictKind.REJECT, VerdictKind.EDIT):
        if found := [vote for vote in votes if vote.kind is kind]:
            return found
    return votes


def _undecided(reason: str) -> Decided:
    return Decided(DecisionKind.UNDECIDED, reason)


def _votes(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The newest deciding verdict of each reviewer in each slot, oldest first."""
    usable = sorted(deciding(verdicts), key=lambda each: each.updated_at)
    newest = {(each.slot, each.reviewer or (each.board, each.project, each.annotation)): each for each in usable}
    return sorted(newest.values(), key=lambda each: (each.updated_at, each.annotation))


def _judged(rationale: Rationale, votes: Sequence[Verdict]) -> Decided:
    """What more than half of the reviewers say."""
    kind, count = Counter(vote.kind for vote in votes).most_common(1)[0]
    if 2 * count <= len(votes):
        return _undecided("reviewers disagree")
    if kind is VerdictKind.REJECT:
        return Decided(DecisionKind.REJECTED, _with_reasons("rejected by review", votes))
    if kind is VerdictKind.EDIT:
        return _edited(rationale, [vote for vote in votes if vote.kind is VerdictKind.EDIT])
    if rationale.answer is None:
        return _undecided("accepted by review, but the answer is not an allowed one")
    return Decided(DecisionKind.GOLD, "accepted by review")


def _edited(rationale: Rationale, edits: Sequence[Verdict]) -> Decided:
    """The newest edit with the answer on which more than half of the edits agree."""
    answer, count = Counter(edit.answer for edit in edits).most_common(1)[0]
    if 2 * count <= len(edits):
        return _undecided("reviewers disagree about the corrected answer")
    steps = _steps(next(edit for edit in reversed(edits) if edit.answer == answer))
    allowed = _allowed(answer, rationale)
    if allowed is None:
        return _undecided("the corrected answer is not an allowed one")
    if not steps:
        return _undecided("the correction has no steps")
    return Decided(DecisionKind.GOLD, "corrected by review", corrected=(steps, allowed))


def _steps(edit: Verdict) -> tuple[str, ...]:
    return tuple(step.strip() for step in edit.steps if step.strip())


def _allowed(answer: str | None, rationale: Rationale) -> Answer | None:
    """The corrected answer as a value, if it can be read and is of the task's kind."""
    if answer is None:
        return None
    try:
        value = Answer.from_canonical(answer)
    except ValueError:
        return None
    return value if rationale.parsed is None or rationale.parsed.kind is value.kind else None


def _with_reasons(said: str, votes: Sequence[Verdict]) -> str:
    """The reviewers' reasons behind what was decided, each once."""
    reasons: Mapping[str, None] = dict.fromkeys(
        reason for vote in votes if vote.kind is VerdictKind.REJECT for reason in vote.reasons
    )
    return f"{said}: {', '.join(reasons)}" if reasons else said


def unreviewed(rationale: Rationale, risk: float | None, limits: Passing) -> Decided:
    """What becomes of a rationale that nobody looked at."""
    if rationale.answer is None:
        return _undecided("the answer is not an allowed one")
    if risk is None:
        return _undecided("not checked")
    if limits.silver == 0:
        return _undecided("no certificate, and not reviewed")
    if risk >= limits.silver:
        return _undecided(f"risk {risk:.2f}, but the minutes for review were spent")
    certified = risk < limits.certified
    return Decided(
        DecisionKind.SILVER, f"not reviewed, {'certified ' if certified else ''}risk {risk:.2f}", certified=certified
    )
