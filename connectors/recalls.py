"""Takes back what a reviewer said, a teacher replied or was decided: shows what that touches, and does it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from connectors.holding import learned_until, taught, written_in
from connectors.reviewers import review_figures
from connectors.versions import version_text
from connectors.wiring import Project
from loop.errors import PreceptorError
from loop.records import Decision, DecisionKind, Stage
from loop.report import pseudonyms
from loop.store import exported, reading, rounds, tainted, versions, withdrawals
from loop.store.tainted import Grounds, Touched

BY_HAND = "recalled by hand"
SHORTEST = 6
"""Characters of a prompt's hash that are enough to be meant by them."""
SHOWN = 10
"""Rows that are named."""


@dataclass(frozen=True)
class Recalled:
    """What a recall takes back, or would."""

    grounds: Grounds
    reviewer: str
    """Under the pseudonym; empty where none is meant."""
    reason: str
    touched: Touched
    versions: tuple[str, ...]
    """Versions of the dataset that hold what is taken back, in words."""
    students: tuple[str, ...]
    """Checkpoints that learnt from it."""
    exports: tuple[str, ...]
    """Folders of datasets that hold it."""
    rounds: int
    """Rounds in all with which it is made good again."""
    resting: int
    """Items that were asked as often as is allowed."""

    @property
    def items(self) -> int:
        """How many items are reviewed again."""
        return len({*(each.item_key for each in self.touched.decisions), *self.touched.open_items})


def recall(project: Project, grounds: Grounds, *, reason: str | None, sure: bool) -> Recalled:
    """What a recall touches; it is taken back where that is sure. `grounds` as people name things.

    Raises:
        PreceptorError: nothing is doubted, reviewer, model or prompt is not known, or nothing counts that is doubted.
        AlreadyWorking: `preceptor run` is at work.
    """
    store, run = project.store, project.config.run.name
    names = pseudonyms(reading.reviewers_of(store, run))
    known = _known(project, grounds, names)
    shown = names.get(known.reviewer, "")
    told = reason or (_accusation(project, shown) if shown else None) or BY_HAND
    if sure:
        # what it used is read before, since afterwards nothing is in force any more
        with project.held():
            found = _looked_at(project, known, shown, told)
            withdrawals.withdraw(store, run, known, told)
            return found
    return _looked_at(project, known, shown, told)


def recall_summary(found: Recalled, *, sure: bool) -> list[str]:
    """What was recalled or would be, a line a fact."""
    kinds = Counter(each.kind for each in found.touched.decisions)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in DecisionKind if kinds[kind])
    lines = [
        _doubted_line(found, sure=sure),
        _made_good_line(found, counts or "none"),
        *_rows(found.touched.decisions),
        f"versions that hold them: {', '.join(found.versions) or 'none'}",
        f"students that learnt from them: {', '.join(found.students) or 'none'}",
        f"exports that hold them: {', '.join(found.exports) or 'none'}",
    ]
    if sure:
        stays = "what other reviewers said stays; " if found.grounds.reviewer else ""
        return [*lines, f"{stays}`preceptor run --rounds {found.rounds}` goes on"]
    return [*lines, "nothing was changed; --apply does it"]


def moment(text: str) -> datetime:
    """A date, or a date with a time; UTC where it names no zone.

    Raises:
        ValueError: it is neither.
    """
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _doubted_line(found: Recalled, *, sure: bool) -> str:
    grounds, verdicts = found.grounds, len(found.touched.verdicts)
    since = "" if grounds.since is None else f" since {grounds.since:%Y-%m-%d %H:%M} UTC"
    model = f" by {grounds.teacher_model}" if grounds.teacher_model else ""
    prompt = f" to prompt {grounds.prompt[:12]}" if grounds.prompt else ""
    if grounds.reviewer:
        about = f" on replies{model}{prompt}" if grounds.names_replies else ""
        counts = "no longer count" if sure else "would no longer count"
        return f"{verdicts} verdicts of {found.reviewer}{about}{since} {counts} ({found.reason})"
    what = f"replies{model}{prompt}" if grounds.names_replies else "what was decided"
    rows = len(found.touched.decisions)
    return f"{rows} rows rest on {what}{since}; {'they are' if sure else 'they would be'} put back ({found.reason})"


def _made_good_line(found: Recalled, counts: str) -> str:
    if found.grounds.reviewer:
        return f"{found.items} items go to review again in the next REVIEW; decisions put back to undecided: {counts}"
    left = len(found.touched.decisions) - found.resting
    line = f"decisions put back to undecided: {counts}; {left} of these items can be asked again"
    line += f", {found.resting} were asked query.max_asks times" if found.resting else ""
    if found.touched.open_items:
        line += f"; {len(found.touched.open_items)} more items are not decided yet: recall again once they are"
    return line


def _rows(touched: Sequence[Decision]) -> list[str]:
    named = [f"{row.item_key} ({row.kind.value})" for row in sorted(touched, key=lambda row: row.item_key)]
    more = f", and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    return [f"rows: {', '.join(named[:SHOWN])}{more}"] if named else []


def _known(project: Project, grounds: Grounds, names: dict[str, str]) -> Grounds:
    """The same, by the names that the store knows things by."""
    if not (grounds.reviewer or grounds.names_replies or grounds.since):
        raise PreceptorError(
            "nothing is doubted; name --reviewer, --teacher-model, --prompt or --since, or several that all hold"
        )
    written = tainted.written(project.store, project.config.run.name).values() if grounds.names_replies else ()
    if grounds.teacher_model:
        models = {name for each in written for name in each.models}
        if grounds.teacher_model not in models:
            known = ", ".join(sorted(models)) or "nothing was asked yet"
            raise PreceptorError(f"{grounds.teacher_model}: no teacher of the run is called so; known: {known}")
    return replace(
        grounds,
        reviewer=_reviewer(grounds.reviewer, names) if grounds.reviewer else "",
        prompt=_prompt(grounds.prompt, {name for each in written for name in each.prompts}) if grounds.prompt else "",
    )


def _prompt(wanted: str, known: set[str]) -> str:
    found = sorted(each for each in known if each.startswith(wanted)) if len(wanted) >= SHORTEST else []
    if len(found) == 1:
        return found[0]
    if found:
        raise PreceptorError(f"{wanted}: {len(found)} prompts begin so; name more of the hash")
    raise PreceptorError(
        f"{wanted}: no prompt of the run has this hash; `prompt_hash` of a row, or `history KEY --json`, names one"
    )


def _reviewer(name: str, names: dict[str, str]) -> str:
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


def _looked_at(project: Project, grounds: Grounds, shown: str, reason: str) -> Recalled:
    store, run = project.store, project.config.run.name
    found = tainted.touched(store, run, grounds)
    since = "" if grounds.since is None else f" since {grounds.since:%Y-%m-%d %H:%M} UTC"
    if grounds.reviewer and not found.verdicts:
        earlier = "; name an earlier --since" if since else ""
        of = " on such replies" if grounds.names_replies else ""
        raise PreceptorError(f"{shown} gave no verdict{of}{since} that still counts{earlier}")
    if not grounds.reviewer and not (found.decisions or found.ever or found.open_items):
        raise PreceptorError(f"no decision rests on that{since}; there is nothing to take back")
    current = rounds.current(store, run)
    assert current is not None
    wanted = max(project.config.run.rounds, current.number + (current.stage is Stage.CLOSED))
    holding = _Holding(project, found.ever)
    asked = Counter(each.item_key for each in reading.queries_of(store, run))
    resting = sum(asked[each.item_key] >= project.config.query.max_asks for each in found.decisions)
    return Recalled(
        grounds, shown, reason, found, holding.versions(), holding.students(), holding.exports(), wanted, resting
    )


class _Holding:
    """Who holds rows that are taken back: whatever was made while one of these decisions was in force."""

    def __init__(self, project: Project, ever: Sequence[Decision]) -> None:
        self._store, self._run = project.store, project.config.run.name
        self._ids = {each.id for each in ever}
        keys = {each.item_key for each in ever}
        self._all = reading.decisions_of(self._store, self._run)
        self._of: defaultdict[str, list[Decision]] = defaultdict(list)
        for row in self._all:
            if row.item_key in keys:
                self._of[row.item_key].append(row)

    def versions(self) -> tuple[str, ...]:
        """Versions of the dataset, in words."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        for row in versions.names_of(self._store, self._run):
            names[row.hash].append(row.name)
        found = [(each, self._count(each.last_decision)) for each in versions.of_run(self._store, self._run)]
        return tuple(
            f"{version_text(each.hash, names[each.hash])}: {count} of {each.rows}" for each, count in found if count
        )

    def students(self) -> tuple[str, ...]:
        """Checkpoints, by their folders."""
        kept = reading.checkpoints_of(self._store, self._run)
        every = rounds.all_rounds(self._store, self._run)
        numbers = {each.id: each.number for each in every}
        students = [(each.number, kept[each.candidate_id]) for each in every if each.candidate_id in kept]
        until = {row.folder: learned_until(row, number, self._all, numbers) for number, row in students}
        return tuple(
            row.folder
            for _, row in students
            if self._doubted(taught(row, some, until[row.folder]) for some in self._of.values())
        )

    def exports(self) -> tuple[str, ...]:
        """Folders of datasets that may hold them; they still are there."""
        rows = exported.of_run(self._store, self._run)
        return tuple(
            dict.fromkeys(
                each.folder for each in rows if self._doubted(written_in(each, some) for some in self._of.values())
            )
        )

    def _count(self, last_decision: int) -> int:
        """How many of the decisions were in force, as gold or silver, when this one was the newest."""
        held = (versions.held(some, last_decision) for some in self._of.values())
        return self._doubted([row] for row in held if row is not None)

    def _doubted(self, held: Iterable[Iterable[Decision]]) -> int:
        """Of how many items something that is held is taken back."""
        return sum(any(row.id in self._ids for row in some) for some in held)
