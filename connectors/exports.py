"""Writes the cleaned dataset: examples with their provenance, a card, and a manifest of hashes."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.promises import promises, promises_text
from connectors.status import round_figures
from loop.config import Config
from loop.errors import PreceptorError
from loop.records import Decision, DecisionKind, Item, Rationale, Round, Verdict
from loop.report import pseudonyms
from loop.store import decisions, exported, reading, revisions, rounds
from loop.store.database import Store

EXAMPLES, CARD, MANIFEST = "examples.jsonl", "README.md", "manifest.json"
MAKER = "preceptor"
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|!&~$])")


@dataclass(frozen=True)
class Exported:
    """What was written where."""

    folder: Path
    examples: int
    decisions: Mapping[str, int]
    simulated: int

    def summary(self) -> str:
        """One sentence for the terminal."""
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(self.decisions.items())) or "nothing decided"
        said = f"wrote {self.examples} examples ({counts}) to {self.folder}"
        return f"{said}; {self.simulated} verdicts behind them are simulated" if self.simulated else said


def export(store: Store, run: str, folder: Path, *, format: str = "jsonl") -> Exported:  # noqa: A002 - the option's name
    """Write all gold and silver items of a run; the same state gives the same bytes.

    Raises:
        PreceptorError: the folder holds other things, nothing was asked yet, or the format is not known.
    """
    if format not in WRITERS:
        raise PreceptorError(f"{format}: unknown format; known: {', '.join(WRITERS)}")
    last = rounds.current(store, run)
    if last is None:
        raise PreceptorError(f"run {run} has no round yet, so there is nothing to export; `preceptor run` starts one")
    _check_folder(folder)
    source = _Provenance(store, run)
    examples = [source.example(*each) for each in decisions.decided(store, run)]
    promised = promises(store, run, Config.model_validate(rounds.config_of(store, last), strict=False))
    assert promised is not None
    if promised["export"]["bound"] <= promised["alpha"]:
        for each in examples:
            each["certified"] = each["certified"] or each["decision"] == DecisionKind.SILVER.value
    card = _card(store, last, examples, promised)
    try:
        _write_all(folder, {EXAMPLES: WRITERS[format](examples), CARD: card}, last, promised)
    except OSError as error:
        raise PreceptorError(f"{folder}: cannot be written: {error.strerror}") from error
    exported.keep(store, run, folder, format)
    counts = Counter(each["decision"] for each in examples)
    return Exported(folder, len(examples), counts, _simulated(examples))


class _Provenance:
    """Where each row of the export comes from."""

    def __init__(self, store: Store, run: str) -> None:
        self._rationales = {each.id: each for each in reading.rationales_of(store, run)}
        self._replies = reading.replies_of(store, run)
        self._risks = reading.risks_of(store, run)
        revised = [row for _, row in revisions.of_run(store, run)]
        self._students = {row.rationale_id: self._rationales[row.student_id] for row in revised if row.rationale_id}
        self._rounds = {each.id: each.number for each in rounds.all_rounds(store, run)}
        verdicts = [verdict for _, verdict in reading.verdicts_of(store, run)]
        self._names = pseudonyms(reading.reviewers_of(store, run))
        self._verdicts = [verdict for verdict in verdicts if verdict.kind is not None]

    def example(self, item: Item, rationale: Rationale, decision: Decision) -> dict[str, Any]:
        """One row of the dataset."""
        parents = list(self._parents(rationale))
        chain = [*parents, rationale]
        first = chain[0]
        revised = self._students.get(first.id or 0)
        before = [] if revised is None else [revised]
        model, prompt = self._replies.get(first.reply_id or 0, (first.teacher or None, None))
        answer = rationale.parsed
        return {
            "key": item.key,
            "question": item.question,
            "context": item.context,
            "choices": list(item.choices),
            "domain": item.domain,
            "source": item.source,
            "steps": list(rationale.steps),
            "answer": None if answer is None else answer.value,
            "answer_kind": None if answer is None else answer.kind.value,
            "decision": decision.kind.value,
            "reason": decision.reason,
            "certified": decision.certified,
            "authors": list(dict.fromkeys(each.author.value for each in [*before, *chain])),
            "round": self._rounds.get(decision.round_id),
            "risk": self._risks.get(first.id or 0),
            "verdicts": [self._shown(verdict) for verdict in self._about(chain)],
            "teacher_model": model,
            "prompt_hash": prompt,
            "parents": [_version(each) for each in [*before, *parents]],
        }

    def _parents(self, rationale: Rationale) -> Iterator[Rationale]:
        """The versions that a rationale supersedes, oldest first."""
        older = self._rationales.get(rationale.supersedes)
        if older is not None and older.id != rationale.id:
            yield from self._parents(older)
            yield older

    def _about(self, chain: Sequence[Rationale]) -> list[Verdict]:
        ids = {each.id for each in chain}
        return [verdict for verdict in self._verdicts if verdict.rationale_id in ids]

    def _shown(self, verdict: Verdict) -> dict[str, Any]:
        """A verdict without the person."""
        return {
            "verdict": None if verdict.kind is None else verdict.kind.value,
            "reviewer": self._names[verdict.reviewer],
            "simulated": verdict.simulated,
            "marks": dict(sorted(verdict.marks.items())),
            "reasons": list(verdict.reasons),
            "seconds": round(verdict.seconds, 3),
        }


def _version(rationale: Rationale) -> dict[str, Any]:
    return {"author": rationale.author.value, "steps": list(rationale.steps), "stated": rationale.stated}


def _lines(examples: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in examples)


WRITERS: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {"jsonl": _lines}
"""What writes the examples, by format."""


def _check_folder(folder: Path) -> None:
    """Refuse to write among files that are not an export of ours."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PreceptorError(f"{folder}: a file is in the way; name another folder")
    names = {file.name.removesuffix(".partial") for file in folder.iterdir()}
    cut_off = EXAMPLES in names and names <= {EXAMPLES, CARD, MANIFEST}
    if names and not cut_off and not _is_ours(folder / MANIFEST):
        raise PreceptorError(f"{folder}: holds other files, which an export could overwrite; name an empty folder")


def _is_ours(manifest: Path) -> bool:
    try:
        return bool(json.loads(manifest.read_text(encoding="utf-8")).get("made_by") == MAKER)
    except (OSError, ValueError, AttributeError):
        return False


def _write_all(folder: Path, texts: Mapping[str, str], last: Round, promised: Mapping[str, Any]) -> None:
    """Write the files beside their names, then rename them; the manifest comes last and vouches for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: {"sha256": _digest(text), "bytes": len(text.encode())} for name, text in sorted(texts.items())}
    about = {"made_by": MAKER, "run": last.run, "round": last.number, "config_hash": last.config_hash}
    about["promises"] = promised
    manifest = json.dumps({**about, "files": files}, indent=1, sort_keys=True) + "\n"
    for name, text in {**texts, MANIFEST: manifest}.items():
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(folder / name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _simulated(examples: Sequence[Mapping[str, Any]]) -> int:
    return sum(verdict["simulated"] for each in examples for verdict in each["verdicts"])


def _card(store: Store, last: Round, examples: Sequence[Mapping[str, Any]], promised: Mapping[str, Any]) -> str:
    """The dataset card in Markdown."""
    models = sorted({each["teacher_model"] for each in examples if each["teacher_model"]})
    held_out = "The holdout is not in it: neither its questions nor its answers."
    parts = [
        "---\nconfigs:\n- config_name: default\n  data_files: examples.jsonl\ntags:\n- rationales\n- distillation\n---",
        f"# Rationales of the run {_escaped(last.run)}",
        f"{len(examples)} examples: a question, a rationale in steps, and its answer. {held_out}",
        *_simulation_note(examples),
        *_recording_note(store, last),
        _certificate_note(examples, promised),
        "## How it was made\n\n"
        f"- rounds: {last.number}\n- teacher: {', '.join(map(_escaped, models)) or 'none'}\n"
        f"- config: `{last.config_hash}`\n"
        "- `gold`: people accepted or corrected the rationale. `silver`: nobody looked at it, and the checks put its "
        "risk below the threshold.\n"
        "- `parents` holds the versions before a correction, `verdicts` what reviewers said, under pseudonyms.",
        _table("By round", _by_round(store, last.run)),
        _counts("By domain", examples, "domain"),
        "Licence and terms of the questions and of the teacher's replies are those of their sources.",
    ]
    return "\n\n".join(parts) + "\n"


def _simulation_note(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    simulated = _simulated(examples)
    if not simulated:
        return []
    total = sum(len(each["verdicts"]) for each in examples)
    return [
        f"> **Simulated:** {simulated} of the {total} verdicts behind these examples are by a simulated reviewer, not "
        "by people. Gold decisions and corrections (author `human`) that rest on them are simulated too; each verdict "
        "says so (`simulated`)."
    ]


def _recording_note(store: Store, last: Round) -> list[str]:
    teacher = rounds.config_of(store, last).get("teacher", {})
    return ["> The teacher's replies come from a recording."] if teacher.get("recorded") else []


def _certificate_note(examples: Sequence[Mapping[str, Any]], promised: Mapping[str, Any]) -> str:
    said = "".join(f"\n- {_escaped(line)}" for line in promises_text(promised))
    silver = [each for each in examples if each["decision"] == DecisionKind.SILVER.value]
    uncertified = sum(not each["certified"] for each in silver)
    if not uncertified:
        return ("All silver examples are certified." if silver else "There are no silver examples.") + said
    return f"{uncertified} of {len(silver)} silver examples are **not certified**.{said}"


def _by_round(store: Store, run: str) -> list[list[object]]:
    names = ("round", "queried", "reviewed", "gold", "silver", "rejected", "undecided")
    return [list(names), *([each[name] for name in names] for each in round_figures(store, run))]


def _counts(title: str, examples: Sequence[Mapping[str, Any]], name: str) -> str:
    """Gold and silver by the value of a field."""
    found = Counter((each[name], each["decision"]) for each in examples)
    values = sorted({each[name] for each in examples})
    rows = [[value, found[value, "gold"], found[value, "silver"]] for value in values]
    return _table(title, [[name, "gold", "silver"], *rows])


def _table(title: str, rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(_escaped(str(cell)) for cell in row)} |" for row in rows]
    rule = "|" + " --- |" * len(rows[0])
    return "\n".join([f"## {title}\n", lines[0], rule, *lines[1:]])


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))
