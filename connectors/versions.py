"""Versions of the dataset, for people: naming one, listing them, and showing what one holds and who learned it."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from connectors import states
from connectors.export_rows import Passed, Rows
from connectors.states import State
from loop.errors import PreceptorError
from loop.records import DataVersion, Decision, VersionName
from loop.report import pseudonyms
from loop.store import dataset, decisions, exported, reading, rounds, versions
from loop.store.database import Store
from loop.store.versions import Digest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HASH = re.compile(rf"[0-9a-f]{{{states.SHORTEST},64}}")
SHORT = 12
"""Characters of a hash that are shown."""


def name(store: Store, run: str, wanted: str, of: str = "") -> VersionName:
    """Name what is gold or silver now, or an earlier version by its hash; a name that it has already is left alone.

    Raises:
        PreceptorError: it is no name, or that of another version, there is nothing to name, or `of` is not known.
    """
    state, version = naming(store, run, wanted, of)
    assert state.name is not None
    versions.keep(store, run, version, round_id=state.name.round_id, last_decision=state.name.last_decision)
    return versions.give_name(store, state.name)


def naming(store: Store, run: str, wanted: str, of: str = "") -> tuple[State, Digest]:
    """The state that a name is to be given to, and the hash of its rows; neither is stored. Raises as `name` does."""
    _check_name(wanted)
    earlier = _of_hash(store, run, states.hash_of(store, run, of)) if of else None
    state = states.current(store, run, earlier)
    moment = state.until.moment
    assert moment is not None
    passed = _passed(store, state)
    if not passed.version.gold + passed.version.silver:
        raise PreceptorError("nothing is gold or silver yet, so there is no version to name; `preceptor run` goes on")
    if earlier and passed.version.hash != earlier.hash:
        raise PreceptorError(f"{of}: the store no longer holds what version {earlier.hash[:SHORT]} was")
    known = {each.name: each for each in versions.names_of(store, run)}.get(wanted)
    if known is not None and known.hash == passed.version.hash:
        return states.named(store, run, wanted), passed.version
    row = VersionName(
        run=run, name=wanted, hash=passed.version.hash, round_id=state.last.id or 0,
        config_hash=state.last.config_hash, last_decision=state.until.last_decision, named_at=moment,
        facts=state.facts,
        digest=passed.digest,
    )  # fmt: skip
    versions.check_name(known, row)
    return replace(state, name=row), passed.version


def listed(store: Store, run: str) -> list[dict[str, Any]]:
    """The versions of a run as JSON-ready values, in the order in which they were first seen."""
    numbers = {each.id: each.number for each in rounds.all_rounds(store, run)}
    students = reading.checkpoints_of(store, run).values()
    names, written = versions.names_of(store, run), exported.of_run(store, run)
    return [
        {
            "names": [row.name for row in names if row.hash == each.hash],
            "hash": each.hash,
            "rows": each.rows,
            "gold": each.gold,
            "silver": each.silver,
            "recorded_at": each.recorded_at.isoformat(),
            "round": numbers.get(each.round_id),
            "checkpoints": [row.folder for row in students if row.data_version == each.hash],
            "exports": list(dict.fromkeys(row.folder for row in written if row.data_version == each.hash)),
        }
        for each in versions.of_run(store, run)
    ]


def shown(store: Store, run: str, wanted: str) -> dict[str, Any]:
    """One version with its rows: the item and the id of the decision of each, and which are no longer in force.

    Raises:
        PreceptorError: no version is meant, or several are.
    """
    meant = states.hash_of(store, run, wanted)
    found = next(each for each in listed(store, run) if each["hash"] == meant)
    then = decisions.newest(store, run, _of_hash(store, run, meant).last_decision)
    today = decisions.newest(store, run)
    held = {key: row for key, row in sorted(then.items()) if row.kind in versions.TEACHING}
    return {
        **found,
        "since": {key: _since(row, today[key]) for key, row in held.items() if today[key].id != row.id},
        "decisions": {key: row.id for key, row in held.items()},
    }


def learned(store: Store, run: str) -> list[dict[str, Any]]:
    """Which version each student learned, round by round; `in_force` is the one that answers now."""
    students, every = reading.checkpoints_of(store, run), rounds.all_rounds(store, run)
    called: defaultdict[str, list[str]] = defaultdict(list)
    for row in versions.names_of(store, run):
        called[row.hash].append(row.name)
    now_in_force = next((each.student_id for each in reversed(every) if each.student_id is not None), None)
    return [
        {
            "round": each.number,
            "checkpoint": student.folder,
            "version": student.data_version or None,
            "names": called.get(student.data_version, []),
            "in_force": student.id == now_in_force,
        }
        for each in every
        if (student := students.get(each.candidate_id or 0)) is not None
    ]


def learned_text(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which version the student in force learned; nothing where that was not noted."""
    return [
        f"the student in force ({each['checkpoint']}) learned {version_text(each['version'], each['names'])}"
        for each in found
        if each["in_force"] and each["version"]
    ]


def version_text(version: str, names: Sequence[str]) -> str:
    """A version in words."""
    return f"version {version[:SHORT]}" + (f" ({', '.join(names)})" if names else "")


def list_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """The versions for people."""
    table = Table("name", "version", "rows", "gold", "silver", "first seen", "round", "learned by", box=None)
    for each in found:
        counts = (str(each[count]) for count in ("rows", "gold", "silver"))
        seen = each["recorded_at"][:16].replace("T", " ")
        learned = ", ".join(each["checkpoints"]) or "-"
        table.add_row(", ".join(each["names"]) or "-", each["hash"][:SHORT], *counts, seen, str(each["round"]), learned)
    return table


def shown_text(found: Mapping[str, Any]) -> list[str]:
    """One version for people, a line a fact."""
    since = found["since"]
    changed = [f"{key}: {said}" for key, said in list(since.items())[:10]]
    more = f"and {len(since) - 10} more" if len(since) > 10 else ""
    return [
        f"version {found['hash']}",
        f"names: {', '.join(found['names']) or 'none'}",
        f"{found['rows']} rows: {found['gold']} gold, {found['silver']} silver",
        f"first seen {found['recorded_at'][:16].replace('T', ' ')} UTC in round {found['round']}",
        f"learned by: {', '.join(found['checkpoints']) or 'no checkpoint'}",
        f"exports: {', '.join(found['exports']) or 'none'}",
        f"decided anew since: {len(since)} rows",
        *(f"  {line}" for line in [*changed, more] if line),
    ]


def _check_name(wanted: str) -> None:
    if not NAME.fullmatch(wanted):
        raise PreceptorError(
            f"{wanted!r}: not a name for a version; expected up to 64 letters, digits, dots, _ and -, like v1"
        )
    if HASH.fullmatch(wanted):
        raise PreceptorError(f"{wanted}: could be taken for the hash of a version; name it otherwise, like v1")


def _of_hash(store: Store, run: str, meant: str) -> DataVersion:
    return next(each for each in versions.of_run(store, run) if each.hash == meant)


def _passed(store: Store, state: State) -> Passed:
    """All rows of a state, looked at once."""
    passed, run = Passed(), state.last.run
    rows = Rows(pseudonyms(reading.reviewers_of(store, run)), certified=state.certified, lapsed=state.lapsed)
    for origin in dataset.origins(store, run, versions.TEACHING, state.until):
        row = rows.row(origin)
        passed.take(row, rows.example(row, origin)[0].line)
    return passed


def _since(then: Decision, today: Decision) -> str:
    return f"was {then.kind.value}, is {today.kind.value} ({today.reason})"
