"""Writes the cleaned dataset: examples with their provenance, a card, and a manifest of hashes."""

import gc
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors import gate, states
from connectors.card import Card, Tally, dated, terms
from connectors.conditions import Condition, asks_for_kinds, condition, together
from connectors.export_rows import Passed, Rows
from connectors.formats import FORMATS, About, Example, Other, Row, labelled
from connectors.states import State
from connectors.versions import naming
from loop.config import ExportConfig
from loop.errors import PreceptorError
from loop.records import DecisionKind, Export
from loop.report import pseudonyms
from loop.store import dataset, exported, reading, versions
from loop.store.database import Store, now
from loop.store.dataset import Origin

CARD, MANIFEST, STAGING = "README.md", "manifest.json", ".preceptor-partial"
MAKER = "preceptor"
FILTERS = ("decision", "risk", "reviewer", "round", "domain", "teacher_model", "key")
"""What rows can be chosen by."""


@dataclass(frozen=True)
class Wanted:
    """What is to be written: in which form, which rows of which version, which bars, and what is known of terms."""

    form: str = "jsonl"
    where: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    version: str = ""
    """A name or the beginning of a hash; empty: what is decided now."""
    name: str = ""
    """What to call what is written, if anything."""
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
            write, form, filter, bar or version are not known, or a version is no longer what it was.
    """
    wanted = wanted or Wanted()
    if wanted.form not in FORMATS:
        raise PreceptorError(f"{wanted.form}: unknown format; known: {', '.join(FORMATS)}")
    required = gate.bars(wanted.require)
    state = _state(store, run, wanted)
    _check_folder(folder, wanted.form)
    writing = _Export(store, state, folder, wanted)
    fresh = not folder.exists()
    gc.freeze()  # or the collector looks again and again at all that was there before
    try:
        done = writing.write(required)
    except OSError as error:
        raise PreceptorError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        gc.unfreeze()
        _tidy(folder, fresh)
    return done


def _state(store: Store, run: str, wanted: Wanted) -> State:
    if wanted.name:
        return naming(store, run, wanted.name, wanted.version)[0]
    return states.named(store, run, wanted.version) if wanted.version else states.current(store, run)


class _Export:
    """One export: rows are read, looked at and written one after another."""

    def __init__(self, store: Store, state: State, folder: Path, wanted: Wanted) -> None:
        self._store, self._state, self._folder, self._wanted = store, state, folder, wanted
        self._last, self._config = state.last, state.config
        self._names = pseudonyms(reading.reviewers_of(store, state.last.run))
        self._filters = _filters(wanted.where, self._names)
        self._form = FORMATS[wanted.form]
        self._rows = Rows(self._names, certified=state.certified, lapsed=state.lapsed)
        self._chosen = together(self._filters)
        self._seen = gate.Seen(dataset.holdout_texts(store), self._config.query.holdout_similarity)
        self._tally, self._passed = Tally(), Passed()

    def write(self, required: Sequence[Condition]) -> Exported:
        """Write everything beside its place, see whether it may go there, and move it; the manifest comes last."""
        staging = self._folder / STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        about = About(self._config.task, f"rationales-{self._last.run}", dated(self._last), self._licence)
        rows = self._form.write(self._examples(), about, staging)
        self._check_version()
        self._check_rows(rows)
        found = {**self._state.measured, **gate.noticed(self._seen)}
        if missed := gate.missed(found, required, self._config.acceptance.delta):
            raise PreceptorError("nothing was written:\n" + "\n".join(missed))
        card = Card(self._state, self._passed.version.hash, self._tally, self._wanted.terms)
        text = card.text(self._form.file, rows, self._conditions, found)
        (staging / CARD).write_text(text, encoding="utf-8", newline="\n")
        manifest = self._manifest(staging, found, rows)
        _move(staging, self._folder, manifest)
        self._note()
        kinds = self._tally.decisions
        return Exported(self._folder, kinds.total(), kinds, self._tally.simulated, found, rows)

    def _note(self) -> None:
        """Keep what was written from which version, so that a recall can say which exports hold what it takes back."""
        run, last, until = self._last.run, self._last.id or 0, self._state.until
        version = versions.keep(
            self._store, run, self._passed.version, round_id=last, last_decision=until.last_decision
        )  # fmt: skip
        if self._state.name is not None:
            versions.give_name(self._store, self._state.name)
        exported.keep(
            self._store,
            Export(
                run=run, folder=str(self._folder.resolve()), format=self._wanted.form,
                last_decision=until.last_decision, data_version=version.hash, filters=self._conditions,
                exported_at=now(),
            ),
        )  # fmt: skip

    @property
    def _conditions(self) -> list[str]:
        return [self._rows.clean(str(each)) for each in self._filters]

    def _examples(self) -> Iterator[Example]:
        """The rows that are asked for, each noted as it goes by."""
        rows, named = self._rows, self._state.name is not None
        run, until, judged = self._last.run, self._state.until, self._form.others is labelled
        every = self._form.others is None and not self._chosen
        for origin in dataset.origins(self._store, run, self._kinds(), until, judged=judged):
            row = rows.row(origin)
            wanted, others = (True, ()) if every else self._asked_for(row, origin)
            if not wanted and not named:
                self._passed.take(row, None)
                continue
            made, mended = rows.example(row, origin, others)
            self._passed.take(row, made.line if named else None)
            if wanted:
                self._note_row(made, mended)
                yield made

    def _asked_for(self, row: Row, origin: Origin) -> tuple[bool, Sequence[Other]]:
        """Whether an item is asked for, and with which of its other rationales: each has to meet the filters."""
        if self._form.others is None:
            return self._holds(row), ()
        every = [self._rows.other(each, origin) for each in self._form.others(origin)]
        others = [each for each in every if self._holds(row | each.row)]
        return bool(others) and (self._form.in_place or self._holds(row)), others

    def _holds(self, row: Row) -> bool:
        return all(any(each.holds(_field(row, each.name)) for each in some) for some in self._chosen)

    def _note_row(self, made: Example, mended: bool) -> None:
        self._seen.take(made.row["key"], made.origin.decided)
        self._tally.mended += mended
        self._tally.take(made.row, self._written(made) if made.others else (made.row,))

    def _written(self, made: Example) -> list[Row]:
        """Where the rationales come from that are written of an item; the chain of the one in force tells as one."""
        if self._form.in_place:
            return [each.row for each in made.others]
        chain = {each.id for each in made.origin.chain}
        return [made.row, *(each.row for each in made.others if each.version.id not in chain)]

    def _check_version(self) -> None:
        """Refuse to call something by a name that it does not have."""
        name = self._state.name
        if name is None:
            return
        now_hash, what = self._passed.version.hash, f"version {name.name}"
        if now_hash != name.hash:
            raise PreceptorError(
                f"nothing was written: {what} is {name.hash[:12]}, but the store now gives {now_hash[:12]} for it: an "
                "item of it was forgotten, the database was changed from outside, or decisions came late from another "
                "process; name what is there now, or restore a copy"
            )
        if self._passed.digest != name.digest:
            raise PreceptorError(
                f"nothing was written: the rows of {what} say what they said, but what stands beside them (verdicts, "
                "risks, people's names) no longer does; `preceptor versions name NEWNAME "
                f"{name.hash[:12]}` names the same rows as they stand now"
            )

    def _kinds(self) -> Sequence[DecisionKind]:
        """The decisions that rows are read of; marks on steps are worth having whatever was decided."""
        if asks_for_kinds(self._filters) or self._form.in_place:
            return tuple(DecisionKind)
        return versions.TEACHING

    def _check_rows(self, rows: int) -> None:
        if rows:
            return
        kinds = dataset.decided_counts(self._store, self._last.run)
        if not (self._filters or any(kinds[each] for each in self._kinds())):
            return
        counts = gate.counted(kinds)
        what = f" with {', '.join(map(str, self._filters))}" if self._filters else ""
        form = self._wanted.form
        cause = {
            "dpo": "; a pair needs a rationale that people corrected or rejected, and another in its place",
            "prm": "; step labels need people's verdicts",
        }.get(form, "")
        raise PreceptorError(f"nothing to write as {form}{what}{cause}; the run has decided {counts}")

    def _licence(self) -> str:
        """Of the files that the rows come from; that of an unnamed one is unknown."""
        named = self._wanted.terms.sources
        return "; ".join(sorted({named.get(each, "unknown") for each in self._tally.sources})) or "unknown"

    def _manifest(self, staging: Path, found: Mapping[str, gate.Figure], rows: int) -> str:
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        about = {
            "made_by": MAKER,
            "run": self._last.run,
            "round": self._last.number,
            "config_hash": self._last.config_hash,
            "version": self._passed.version.hash,
            "task": self._config.task.model_dump(mode="json"),
            "format": self._wanted.form,
            "where": self._conditions,
            "require": list(self._wanted.require),
            "examples": self._tally.decisions.total(),
            "rows": rows,
            "decisions": dict(self._tally.decisions),
            "mended": self._tally.mended,
            "figures": gate.plain(found),
            "promises": self._state.promised,
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
        if place.parent != folder and place.parent.is_symlink():
            raise PreceptorError(f"{place.parent}: is a link, which may lead anywhere; name another folder")
        place.parent.mkdir(exist_ok=True)
        path.replace(place)
    path = staging / MANIFEST
    path.write_text(manifest, encoding="utf-8", newline="\n")
    path.replace(folder / MANIFEST)


def hashed(path: Path) -> dict[str, Any]:
    """The checksum and the size of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
