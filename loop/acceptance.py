"""What becomes of an item: gold, silver, rejected or undecided. Pure; the round stores it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loop.answer import Answer
from loop.config import AcceptanceConfig, ReviewConfig
from loop.records import Author, DecisionKind, Query, Rationale, Verdict, VerdictKind, deciding


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


def continued(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The newest verdict with a corrected prefix, if more than half of the reviewers want the teacher to go on."""
    votes = _votes(verdicts)
    wanted = [vote for vote in votes if vote.kind is VerdictKind.CONTINUE]
    return wanted[-1] if 2 * len(wanted) > len(votes) else None


def prefix_of(rationale: Rationale, verdict: Verdict) -> list[str]:
    """The steps from which the teacher goes on: those up to the last change.

    What stands behind it as it was is the teacher's to write anew. A prefix that came back is taken as it is.
    """
    steps, before = [step.strip() for step in verdict.steps if step.strip()], list(rationale.steps)
    while not rationale.is_prefix and steps and before and steps[-1].split() == before[-1].split():
        steps.pop()
        before.pop()
    return steps


def standing(first: Rationale, rows: Sequence[Rationale], verdicts: Mapping[int, Sequence[Verdict]]) -> Rationale:
    """The rationale that is decided about: the newest that the teacher went on to, as long as reviewers want it to."""
    later = next((each for each in rows if each.supersedes == first.id and not each.is_correction), None)
    if later is None:
        return first
    goes_on = later.author is Author.TEACHER or continued(verdicts.get(first.id or 0, ())) is not None
    return standing(later, rows, verdicts) if goes_on else first


def counting(verdicts: Sequence[Verdict], config: ReviewConfig) -> Sequence[Verdict]:
    """The verdicts that count where people disagree."""
    return strictest(verdicts) if config.disagreements == "strictest" else verdicts


def strictest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts that count where the stricter one does: rejections, else edits, else prefixes, else all."""
    votes = _votes(verdicts)
    for kind in (VerdictKind.REJECT, VerdictKind.EDIT, VerdictKind.CONTINUE):
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
    if kind is VerdictKind.CONTINUE:
        return _undecided("the teacher was to go on from a corrected step, and did not before the review closed")
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
