"""Takes back what a reviewer said: shows what that touches, and does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from connectors.reviewers import review_figures
from connectors.wiring import Project
from loop.errors import PreceptorError
from loop.records import Decision, DecisionKind, Stage
from loop.report import pseudonyms
from loop.store import claims, exported, reading, rounds, withdrawals
from loop.store.withdrawals import Touched

BY_HAND = "recalled by hand"
LEASE_SECONDS = 60.0


@dataclass(frozen=True)
class Recalled:
    """What a recall takes back, or would."""

    reviewer: str
    since: datetime
    reason: str
    touched: Touched
    students: tuple[str, ...]
    """Checkpoints that learnt from what is taken back."""
    exports: tuple[str, ...]
    """Folders of datasets that hold it."""
    rounds: int
    """Rounds in all with which the reviews are made again."""

    @property
    def items(self) -> int:
        """How many items are reviewed again."""
        return len({*(each.item_key for each in self.touched.decisions), *self.touched.open_items})


def recall_reviewer(project: Project, name: str, since: datetime, *, reason: str | None, sure: bool) -> Recalled:
    """What a reviewer's verdicts since a moment touch; they are taken back where that is sure.

    Raises:
        PreceptorError: no such reviewer, or nothing of theirs since then counts.
        AlreadyWorking: `preceptor run` is at work.
    """
    store, run = project.store, project.config.run.name
    names = pseudonyms(reading.reviewers_of(store, run))
    reviewer = _known(name, names)
    told = reason or _accusation(project, names[reviewer]) or BY_HAND
    if sure:
        # what it used is read before, since afterwards nothing is in force any more
        with claims.holding(store, run, "run", run, lease_seconds=LEASE_SECONDS):
            found = _looked_at(project, reviewer, names[reviewer], since, told)
            withdrawals.withdraw(store, run, reviewer, since, told)
            return found
    return _looked_at(project, reviewer, names[reviewer], since, told)


def recall_summary(found: Recalled, *, sure: bool) -> list[str]:
    """What was recalled or would be, a line a fact."""
    kinds = [each.kind for each in found.touched.decisions]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in DecisionKind if kind in kinds)
    lines = [
        f"{len(found.touched.verdicts)} verdicts of {found.reviewer} since {found.since:%Y-%m-%d %H:%M} UTC "
        f"{'no longer count' if sure else 'would no longer count'} ({found.reason})",
        f"{found.items} items go to review again in the next REVIEW; "
        f"decisions put back to undecided: {counts or 'none'}",
        f"students that learnt from them: {', '.join(found.students) or 'none'}",
        f"exports that hold them: {', '.join(found.exports) or 'none'}",
    ]
    if sure:
        return [*lines, f"what other reviewers said stays; `preceptor run --rounds {found.rounds}` goes on"]
    return [*lines, "nothing was changed; --yes does it"]


def moment(text: str) -> datetime:
    """A date, or a date with a time; UTC where it names no zone.

    Raises:
        ValueError: it is neither.
    """
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _known(name: str, names: dict[str, str]) -> str:
    """The board's name of a reviewer who is named so there, or by pseudonym."""
    for stored, shown in names.items():
        if name in (shown, stored):
            return stored
    known = ", ".join(f"{shown} ({stored} on the board)" for stored, shown in names.items())
    raise PreceptorError(
        f"{name}: no such reviewer; " + (f"known: {known}" if known else "nobody gave a verdict yet")
    )  # fmt: skip


def _accusation(project: Project, shown: str) -> str | None:
    """Why a reviewer is accused, if so."""
    rows = review_figures(project.store, project.config.run.name)["reviewers"]
    return next((str(each["reason"]) for each in rows if each["reviewer"] == shown and each["accused"]), None)


def _looked_at(project: Project, reviewer: str, shown: str, since: datetime, reason: str) -> Recalled:
    found = withdrawals.touched(project.store, project.config.run.name, reviewer, since)
    if not found.verdicts:
        raise PreceptorError(
            f"{shown} gave no verdict since {since:%Y-%m-%d %H:%M} UTC that still counts; name an earlier --since"
        )
    gold = [each for each in found.decisions if each.kind is DecisionKind.GOLD]
    current = rounds.current(project.store, project.config.run.name)
    assert current is not None
    wanted = max(project.config.run.rounds, current.number + (current.stage is Stage.CLOSED))
    return Recalled(shown, since, reason, found, _students(project, gold), _exports(project, gold), wanted)


def _students(project: Project, taught: Sequence[Decision]) -> tuple[str, ...]:
    """The checkpoints that were trained while one of these decisions was in force."""
    store, run = project.store, project.config.run.name
    kept = reading.checkpoints_of(store, run)
    every = rounds.all_rounds(store, run)
    numbers = {each.id: each.number for each in every}
    return tuple(
        student.folder
        for each in every
        if (student := kept.get(each.candidate_id or 0)) is not None
        and any(numbers[row.round_id] <= each.number and row.decided_at <= student.created_at for row in taught)
    )


def _exports(project: Project, held: Sequence[Decision]) -> tuple[str, ...]:
    """The datasets that were written while one of these decisions was in force; they still are."""
    first = min((each.id or 0 for each in held), default=None)
    rows = exported.of_run(project.store, project.config.run.name)
    return tuple(dict.fromkeys(each.folder for each in rows if first is not None and each.last_decision >= first))
