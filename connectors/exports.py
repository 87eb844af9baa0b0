"""Writes the cleaned dataset: examples with their provenance, a card, and a manifest of hashes."""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from connectors import gate
from connectors.card import Card, Tally, dated, terms
from connectors.conditions import Condition, condition, together
from connectors.formats import FORMATS, About, Example, Row
from connectors.promises import promises
from loop.answer import Answer
from loop.config import Config, ExportConfig
from loop.errors import PreceptorError
from loop.records import DecisionKind, Round, Verdict
from loop.report import pseudonyms
from loop.resemblance import Alike
from loop.store import dataset, exported, reading, rounds
from loop.store.database import Store
from loop.store.dataset import Origin, Version

CARD, MANIFEST, STAGING = "README.md", "manifest.json", ".preceptor-partial"
MAKER = "preceptor"
FILTERS = ("decision", "risk", "reviewer", "round", "domain", "teacher_model", "key")
"""What rows can be chosen by."""
KEPT = (DecisionKind.GOLD, DecisionKind.SILVER)
"""What is exported unless a filter names decisions."""
UNWRITABLE = re.compile("[\\x00\\ud800-\\udfff]")
"""What UTF-8 cannot hold, and what ends a text in many programs."""


@dataclass(frozen=True)
class Wanted:
    """What is to be written: in which form, which rows, which bars they have to clear, and what is known of terms."""

    form: str = "jsonl"
    where: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    terms: ExportConfig = field(default_factory=ExportConfig)


@dataclass(frozen=True)
class Exported:
    """What was written where."""

    folder: Path
    examples: int
    decisions: Mapping[str, int]
    simulated: int
    figures: Mapping[str, gate.Figure]
    rows: int

    def summary(self) -> str:
        """What there is to say, a line a fact."""
        rows = f"{self.rows} rows of " if self.rows != self.examples else ""
        said = f"wrote {rows}{self.examples} examples ({gate.counted(Counter(self.decisions))}) to {self.folder}"
        if self.simulated:
            said += f"; {self.simulated} verdicts behind them are simulated"
        return "\n".join([said, *map(str, self.figures.values())])


def export(store: Store, run: str, folder: Path, wanted: Wanted | None = None) -> Exported:
    """Write the items of a run that are gold or silver, or those asked for; the same state gives the same bytes.

    Raises:
        PreceptorError: the folder holds other things, nothing was asked yet, a bar is not cleared, nothing is left to
            write, or form, filter or bar are not known.
    """
    wanted = wanted or Wanted()
    if wanted.form not in FORMATS:
        raise PreceptorError(f"{wanted.form}: unknown format; known: {', '.join(FORMATS)}")
    required = gate.bars(wanted.require)
    last = rounds.current(store, run)
    if last is None:
        raise PreceptorError(f"run {run} has no round yet, so there is nothing to export; `preceptor run` starts one")
    _check_folder(folder, wanted.form)
    writing = _Export(store, last, folder, wanted)
    fresh = not folder.exists()
    try:
        done = writing.write(required)
    except OSError as error:
        raise PreceptorError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        _tidy(folder, fresh)
    exported.keep(store, run, folder, wanted.form)
    return done


class _Export:
    """One export: rows are read, looked at and written one after another."""

    def __init__(self, store: Store, last: Round, folder: Path, wanted: Wanted) -> None:
        self._store, self._last, self._folder, self._wanted = store, last, folder, wanted
        self._config = Config.model_validate(rounds.config_of(store, last), strict=False)
        self._names = pseudonyms(reading.reviewers_of(store, last.run))
        self._filters = _filters(wanted.where, self._names)
        found = promises(store, last.run, self._config)
        assert found is not None
        self._promised = found
        similarity = self._config.query.duplicate_similarity
        self._seen = gate.Seen(Alike(dataset.holdout_texts(store), similarity))
        self._tally = Tally()

    def write(self, required: Sequence[Condition]) -> Exported:
        """Write everything beside its place, see whether it may go there, and move it; the manifest comes last."""
        staging = self._folder / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        about = About(self._config.task, f"rationales-{self._last.run}", dated(self._last), self._licence())
        rows = FORMATS[self._wanted.form].write(self._examples(), about, staging)
        self._check_rows(rows)
        found = gate.figures(self._store, self._last.run, self._promised, self._seen)
        if missed := gate.missed(found, required, self._config.acceptance.delta):
            raise PreceptorError("nothing was written:\n" + "\n".join(missed))
        card = Card(self._store, self._last, self._tally, self._promised, self._wanted.terms)
        text = card.text(FORMATS[self._wanted.form].file, rows, [str(each) for each in self._filters], found)
        (staging / CARD).write_text(text, encoding="utf-8", newline="\n")
        manifest = self._manifest(staging, found, rows)
        _move(staging, self._folder, manifest)
        kinds = self._tally.decisions
        return Exported(self._folder, kinds.total(), kinds, self._tally.simulated, found, rows)

    def _examples(self) -> Iterator[Example]:
        """The rows that are asked for, each noted as it goes by."""
        certified = self._promised["export"]["bound"] <= self._promised["alpha"]
        chosen = together(self._filters)
        for origin in dataset.origins(self._store, self._last.run, self._kinds()):
            row = _row(origin, self._names)
            if row["decision"] == DecisionKind.SILVER.value and certified:
                row["certified"] = True
            if not all(any(each.holds(_field(row, each.name)) for each in some) for some in chosen):
                continue
            made = Example(row, origin, self._names)
            if self._unwritable(row, origin):
                made = _mended(made)
                self._tally.mended += 1
            decided = origin.decided
            text = "\n".join(part for part in (decided.context, decided.question, *decided.choices) if part)
            self._seen.take(decided.key, text, decided.text_hash)
            self._tally.take(made.row)
            yield made

    def _kinds(self) -> Sequence[DecisionKind]:
        """The decisions that rows are read of; marks on steps are worth having whatever was decided."""
        if any(each.name == "decision" for each in self._filters) or self._wanted.form == "prm":
            return tuple(DecisionKind)
        return KEPT

    def _unwritable(self, row: Row, origin: Origin) -> bool:
        """Whether a row holds what may not or cannot be written: half a character, or somebody's address."""
        try:
            steps = [each.steps for each in (*origin.chain, *origin.rejected)]  # the student's stand in the row
            text = orjson.dumps([row, steps]).lower()
        except orjson.JSONEncodeError:
            return True
        return b"\\u0000" in text or any(name.encode().lower() in text for name in self._names if "@" in name)

    def _check_rows(self, rows: int) -> None:
        if rows or not (self._filters or self._tally.decisions):
            return
        counts = gate.counted(dataset.decided_counts(self._store, self._last.run))
        what = f" with {', '.join(map(str, self._filters))}" if self._filters else ""
        form = self._wanted.form
        cause = {
            "dpo": "; a pair needs a rationale that people corrected or rejected, and another in its place",
            "prm": "; step labels need people's verdicts",
        }.get(form, "")
        raise PreceptorError(f"nothing to write as {form}{what}{cause}; the run has decided {counts}")

    def _licence(self) -> str:
        known = {*self._wanted.terms.sources.values()}
        return "; ".join(sorted(known)) or "unknown"

    def _manifest(self, staging: Path, found: Mapping[str, gate.Figure], rows: int) -> str:
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        about = {
            "made_by": MAKER,
            "run": self._last.run,
            "round": self._last.number,
            "config_hash": self._last.config_hash,
            "task": self._config.task.model_dump(mode="json"),
            "format": self._wanted.form,
            "where": [str(each) for each in self._filters],
            "require": list(self._wanted.require),
            "examples": self._tally.decisions.total(),
            "rows": rows,
            "decisions": dict(self._tally.decisions),
            "mended": self._tally.mended,
            "figures": gate.plain(found),
            "promises": self._promised,
            "terms": terms(self._tally, self._wanted.terms),
            "files": {path.relative_to(staging).as_posix(): hashed(path) for path in files},
        }
        return json.dumps(about, indent=1, sort_keys=True) + "\n"


def _filters(texts: Sequence[str], names: Mapping[str, str]) -> list[Condition]:
    """The filters, with pseudonyms in place of addresses."""
    found = []
    for text in texts:
        each = condition(text, FILTERS)
        if each.name == "reviewer":
            each = Condition(each.name, each.sign, names.get(each.value, each.value))
            if each.value not in names.values():
                known = ", ".join(names.values()) or "nobody gave a verdict yet"
                raise PreceptorError(f"reviewer{each.sign}: no such reviewer; known: {known}")
        if each.name == "decision" and each.value not in set(DecisionKind):
            raise PreceptorError(f"{each}: no such decision; known: {', '.join(DecisionKind)}")
        if each.name in ("risk", "round"):
            each.number  # noqa: B018 - refuses what is none
        found.append(each)
    return found


def _field(row: Row, name: str) -> Any:
    return [each["reviewer"] for each in row["verdicts"]] if name == "reviewer" else row[name]


def _row(origin: Origin, names: Mapping[str, str]) -> Row:
    """One row of the dataset."""
    decided, chain = origin.decided, origin.chain
    first, last = chain[0], chain[-1]
    written = [*([] if origin.student is None else [origin.student]), *chain]
    answer = None if last.answer is None else Answer.from_canonical(last.answer)
    said = [each for version in chain for each in origin.verdicts.get(version.id, ())]
    return {
        "key": decided.key,
        "question": decided.question,
        "context": decided.context,
        "choices": decided.choices,
        "domain": decided.domain,
        "source": decided.source,
        "steps": last.steps,
        "answer": None if answer is None else answer.value,
        "answer_kind": None if answer is None else answer.kind.value,
        "decision": decided.kind.value,
        "reason": decided.reason,
        "certified": decided.certified,
        "authors": list(dict.fromkeys(each.author.value for each in written)),
        "round": decided.round,
        "risk": first.risk,
        "verdicts": [
            _shown(each, names) for each in sorted(said, key=lambda each: (each.updated_at, each.annotation))
        ],
        "teacher_model": first.teacher_model,
        "prompt_hash": first.prompt_hash,
        "parents": [_version(each) for each in written[:-1]],
    }  # fmt: skip


def _shown(verdict: Verdict, names: Mapping[str, str]) -> Row:
    """A verdict without the person."""
    return {
        "verdict": None if verdict.kind is None else verdict.kind.value,
        "reviewer": names[verdict.reviewer],
        "simulated": verdict.simulated,
        "marks": dict(sorted(verdict.marks.items())),
        "reasons": list(verdict.reasons),
        "seconds": round(verdict.seconds, 3),
    }


def _version(version: Version) -> Row:
    return {"author": version.author.value, "steps": version.steps, "stated": version.stated}


def _mended(example: Example) -> Example:
    """An example without what may not or cannot be written; the key of a row with such a key changes too."""
    addresses = {name: shown for name, shown in example.names.items() if "@" in name}
    named = re.compile("|".join(map(re.escape, addresses)), re.IGNORECASE) if addresses else None
    lower = {name.lower(): shown for name, shown in addresses.items()}

    def mend(value: Any) -> Any:
        if isinstance(value, str):
            text = UNWRITABLE.sub("\ufffd", value)
            return named.sub(lambda found: lower[found[0].lower()], text) if named else text
        if isinstance(value, list):
            return [mend(each) for each in value]
        if isinstance(value, dict):
            return {name: mend(each) for name, each in value.items()}
        return value

    def version(each: Version) -> Version:
        return each._replace(steps=mend(each.steps), stated=mend(each.stated))

    origin = example.origin
    mended = replace(
        origin, chain=[*map(version, origin.chain)], rejected=[*map(version, origin.rejected)]
    )  # the student's own stands in the row alone
    return Example(mend(example.row), mended, example.names)


def _check_folder(folder: Path, form: str) -> None:
    """Refuse to write among files that are not an export of ours, or are one in another form."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PreceptorError(f"{folder}: a file is in the way; name another folder")
    if (folder / STAGING).is_dir() or not any(folder.iterdir()):
        return
    there = manifest_of(folder)
    if there is None:
        raise PreceptorError(f"{folder}: holds other files, which an export could overwrite; name an empty folder")
    if (before := there.get("format", "jsonl")) != form:
        raise PreceptorError(f"{folder}: holds an export as {before}; name another folder, or --format {before}")


def _tidy(folder: Path, fresh: bool) -> None:
    """Take away what was half done. Of files half moved it stays: it says that the folder is ours."""
    if not folder.is_dir():
        return
    moved = any(path.name != STAGING for path in folder.iterdir())
    if not moved or (folder / MANIFEST).is_file():
        shutil.rmtree(folder / STAGING, ignore_errors=True)
    if fresh and not any(folder.iterdir()):
        folder.rmdir()


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """What an export of ours says of itself; None where the folder holds none."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return found if found.get("made_by") == MAKER else None
    except (OSError, ValueError, AttributeError):
        return None


def _move(staging: Path, folder: Path, manifest: str) -> None:
    """Put the files in their place; the manifest comes last and vouches for the others."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        place = folder / path.relative_to(staging)
        place.parent.mkdir(exist_ok=True)
        path.replace(place)
    path = staging / MANIFEST
    path.write_text(manifest, encoding="utf-8", newline="\n")
    path.replace(folder / MANIFEST)


def hashed(path: Path) -> dict[str, Any]:
    """The checksum and the size of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
