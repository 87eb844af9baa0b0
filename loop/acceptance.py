"""What becomes of an item: gold, silver, rejected or undecided. Pure; the round stores it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loop.answer import Answer
from loop.config import AcceptanceConfig
from loop.records import DecisionKind, Query, Rationale, ReviewTask, Verdict, VerdictKind


@dataclass(frozen=True)
class Decided:
    """A decision and its reason; `corrected` holds the steps and the answer of an edit."""

    kind: DecisionKind
    reason: str
    certified: bool = False
    corrected: tuple[tuple[str, ...], Answer] | None = None


def decide(
    query: Query,
    rationale: Rationale | None,
    task: ReviewTask | None,
    verdicts: Sequence[Verdict],
    risk: float | None,
    config: AcceptanceConfig,
) -> Decided:
    """Decide about an item when its review closes; people's verdicts go before the risk."""
    if rationale is None:
        return _undecided(query.problem or "no reply came")
    votes = _votes(verdicts)
    if votes:
        return _judged(rationale, votes)
    if task is not None:
        return _undecided("no verdict when the review closed")
    return _unreviewed(rationale, risk, config)


def _undecided(reason: str) -> Decided:
    return Decided(DecisionKind.UNDECIDED, reason)


def _votes(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The newest interpreted verdict of each reviewer, oldest first."""
    usable = sorted((each for each in verdicts if each.kind is not None), key=lambda each: each.updated_at)
    newest = {each.reviewer or (each.board, each.project, each.annotation): each for each in usable}
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


def _unreviewed(rationale: Rationale, risk: float | None, config: AcceptanceConfig) -> Decided:
    """What becomes of a rationale that nobody looked at."""
    if rationale.answer is None:
        return _undecided("the answer is not an allowed one")
    if risk is None:
        return _undecided("not checked")
    if config.require_certificate:
        return _undecided("no certificate, and not reviewed")
    if risk >= config.silver_risk:
        return _undecided(f"risk {risk:.2f}, but the minutes for review were spent")
    return Decided(DecisionKind.SILVER, f"not reviewed, risk {risk:.2f}")
