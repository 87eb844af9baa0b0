"""The card of an exported dataset, in Markdown, and what is counted for it while the rows go by."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.gate import Figure
from connectors.promises import promises_text
from connectors.states import State
from loop.config import ExportConfig
from loop.records import DecisionKind, Round

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|!&~$])")
SILVER = DecisionKind.SILVER.value
UNKNOWN = "unknown; ask before you pass this on"


@dataclass
class Tally:
    """What is counted of the rows."""

    decisions: Counter[str] = field(default_factory=Counter)
    domains: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    verdicts: int = 0
    simulated: int = 0
    uncertified: int = 0
    mended: int = 0
    """Rows in which something could not or may not be written."""

    def take(self, row: Mapping[str, Any], written: Sequence[Mapping[str, Any]]) -> None:
        """Count a row; `written` says where each rationale comes from that is written of it."""
        decision = row["decision"]
        self.decisions[decision] += 1
        self.domains[row["domain"], decision] += 1
        self.sources[source_file(row["source"])] += 1
        for each in written:
            if each["teacher_model"]:
                self.teachers[each["teacher_model"]] += 1
            if each["verdicts"]:
                self.verdicts += len(each["verdicts"])
                self.simulated += sum(verdict["simulated"] for verdict in each["verdicts"])
        self.uncertified += decision == SILVER and not row["certified"]


@dataclass(frozen=True)
class Card:
    """What a reader of the dataset has to know."""

    state: State
    version: str
    """The hash of the version that the rows are of."""
    tally: Tally
    known: ExportConfig

    def text(self, file: str, rows: int, where: Sequence[str], figures: Mapping[str, Figure]) -> str:
        """The card."""
        total = self.tally.decisions.total()
        counted = f"{total} examples" if rows == total else f"{rows} rows of {total} examples"
        held_out = "The holdout is not in it: neither its questions nor its answers."
        if figures["leaks"].value:
            held_out = f"**{figures['leaks'].value} of its questions read like ones of the holdout.**"
        parts = [
            f"---\nconfigs:\n- config_name: default\n  data_files: {file}\ntags:\n- rationales\n- distillation\n---",
            f"# Rationales of the run {escaped(self.state.last.run)}",
            f"{counted}: a question, a rationale in steps, and its answer. {held_out}",
            *([f"Only rows with {escaped(', '.join(where))}."] if where else []),
            *self._simulation_note(),
            *self._recording_note(),
            self._certificate_note(),
            "## What is known of it\n\n" + "\n".join(f"- {escaped(str(each))}" for each in figures.values()),
            self._making(),
            _table("By round", self.state.by_round),
            self._by_domain(),
            self._terms(),
        ]
        return "\n\n".join(parts) + "\n"

    def _making(self) -> str:
        teachers = ", ".join(escaped(name) for name in sorted(self.tally.teachers)) or "none"
        return (
            f"## How it was made\n\n- rounds: {self.state.last.number}\n- teacher: {teachers}\n"
            f"- config: `{self.state.last.config_hash}`\n- version: `{self.version}`\n"
            "- `gold`: people accepted or corrected the rationale. `silver`: nobody looked at it, and the checks put "
            "its risk below the threshold.\n"
            "- `parents` holds the versions before a correction, `verdicts` what reviewers said, under pseudonyms."
        )

    def _simulation_note(self) -> list[str]:
        if not self.tally.simulated:
            return []
        return [
            f"> **Simulated:** {self.tally.simulated} of the {self.tally.verdicts} verdicts behind these examples are "
            "by a simulated reviewer, not by people. Gold decisions and corrections (author `human`) that rest on them "
            "are simulated too; each verdict says so (`simulated`)."
        ]

    def _recording_note(self) -> list[str]:
        recorded = self.state.config.teacher.recorded
        return ["> The teacher's replies come from a recording."] if recorded else []

    def _certificate_note(self) -> str:
        said = "".join(f"\n- {escaped(line)}" for line in promises_text(self.state.promised))
        silver = self.tally.decisions[DecisionKind.SILVER.value]
        if not self.tally.uncertified:
            return ("All silver examples are certified." if silver else "There are no silver examples.") + said
        return f"{self.tally.uncertified} of {silver} silver examples are **not certified**.{said}"

    def _by_domain(self) -> str:
        """How the rows of each domain were decided."""
        counts = self.tally.domains
        names = {name for name, _ in counts}
        kinds = [kind.value for kind in DecisionKind if self.tally.decisions[kind.value]] or ["gold", "silver"]
        rows = [[name, *(counts[name, kind] for kind in kinds)] for name in sorted(names)]
        return _table("By domain", [["domain", *kinds], *rows])

    def _terms(self) -> str:
        found = terms(self.tally, self.known)
        rows = [
            [part, name, about]
            for part, each in (("questions", found["sources"]), ("rationales", found["teachers"]))
            for name, about in each.items()
        ]
        note = "Say them in the config, under `[export]`." if UNKNOWN in str(found) else ""
        return "\n\n".join(
            part for part in (_table("Licence and terms", [["of", "from", "terms"], *rows]), note) if part
        )


def terms(tally: Tally, known: ExportConfig) -> dict[str, dict[str, str]]:
    """The licence of each source and the terms of each teacher that a row comes from."""
    return {
        "sources": {name: known.sources.get(name, UNKNOWN) for name in sorted(tally.sources)},
        "teachers": {name: known.teachers.get(name, UNKNOWN) for name in sorted(tally.teachers)},
    }


def source_file(source: str) -> str:
    """The file that an item came from, without the line."""
    name, colon, line = source.rpartition(":")
    return (name if colon and line.isdigit() else source) or "unknown source"


def dated(last: Round) -> str:
    """The day of the last round, which stays the same however often it is exported."""
    return last.opened_at.date().isoformat()


def _table(title: str, rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(escaped(str(cell)) for cell in row)} |" for row in rows]
    rule = "|" + " --- |" * len(rows[0])
    return "\n".join([f"## {title}\n", lines[0], rule, *lines[1:]])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))
