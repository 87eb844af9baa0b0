"""What changed between two exports: rows that came, went or differ, and in which fields."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from connectors.exports import MANIFEST, hashed, manifest_of
from connectors.formats import FORMATS, Row
from loop.errors import PreceptorError

SHOWN = 10
"""Keys that are named of each kind."""
Group = tuple[str, list[Row]]
"""A key and its rows: several where a form has them."""


@dataclass
class Difference:
    """What changed from one export to the other."""

    same: int = 0
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The fields that differ, by key."""
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The same in words, a line a fact."""
        fields = Counter(name for names in self.changed.values() for name in names)
        said = ", ".join(f"{name} in {count}" for name, count in fields.most_common())
        shown = {key: f"{key} ({', '.join(names)})" for key, names in self.changed.items()}
        return [
            f"{len(self.added)} items added, {len(self.removed)} removed, {len(self.changed)} changed, "
            f"{self.same} the same",
            *_named("added", self.added),
            *_named("removed", self.removed),
            *_named("changed", [*shown.values()]),
            *([f"fields that changed: {said}"] if said else []),
            *self.notes,
        ]


def difference(before: Path, after: Path) -> Difference:
    """What changed from one export to another of the same task in the same form.

    Raises:
        PreceptorError: a folder holds no export, they cannot be compared, or a file is not as it was written.
    """
    said = [_manifest(folder) for folder in (before, after)]
    _check_alike(before, after, *said)
    found = Difference(notes=_notes((before, after), said))
    for key, old, new in _joined(*(_groups(folder, each) for folder, each in zip((before, after), said, strict=True))):
        if old is None:
            found.added.append(key)
        elif new is None:
            found.removed.append(key)
        elif names := _changed(old, new):
            found.changed[key] = names
        else:
            found.same += 1
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    found = manifest_of(folder)
    if found is None:
        raise PreceptorError(f"{folder}: holds no finished export; it has no {MANIFEST} of ours")
    return found


def _check_alike(before: Path, after: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    if old.get("format") not in FORMATS or old["format"] != new.get("format"):
        raise PreceptorError(
            f"{before} is written as {old.get('format')}, {after} as {new.get('format')}; export both in one format"
        )
    apart = [name for name in ("answer", "labels", "instructions") if old["task"].get(name) != new["task"].get(name)]
    if apart:
        raise PreceptorError(
            f"{before} and {after} are of different tasks (task.{', task.'.join(apart)} differ); their rows mean "
            "different things"
        )


def _notes(folders: tuple[Path, Path], said: list[dict[str, Any]]) -> list[str]:
    notes = []
    if said[0]["where"] != said[1]["where"]:
        shown = [", ".join(each["where"]) or "none" for each in said]
        notes.append(f"the filters differ: {shown[0]} before, {shown[1]} after")
    for folder, each in zip(folders, said, strict=True):
        for name, file in each["files"].items():
            path = folder / name
            if not path.is_file() or hashed(path)["sha256"] != file["sha256"]:
                notes.append(f"{path} is not as it was written: its checksum differs from {MANIFEST}")
    return notes


def _groups(folder: Path, said: Mapping[str, Any]) -> Iterator[Group]:
    """The rows of an export by key, in order; a key in which something was replaced may stand elsewhere."""
    form = FORMATS[said["format"]]
    path, last = folder / form.file, ""
    try:
        every = sorted(form.read(path), key=_key) if said.get("mended") else form.read(path)
        for key, rows in groupby(every, key=_key):
            if key < last:
                raise PreceptorError(f"{path}: {key} stands behind {last}; its rows are not in the order of an export")
            last = key
            yield key, list(rows)
    except (OSError, ValueError, KeyError) as error:
        raise PreceptorError(f"{path}: cannot be read: {error}") from error


def _key(row: Row) -> str:
    return str(row["key"])


def _joined(old: Iterator[Group], new: Iterator[Group]) -> Iterator[tuple[str, list[Row] | None, list[Row] | None]]:
    """Two ordered streams side by side."""
    left, right = next(old, None), next(new, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(old, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(new, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(old, None), next(new, None)


def _changed(old: list[Row], new: list[Row]) -> tuple[str, ...]:
    """The fields in which the rows of one key differ."""
    if len(old) != len(new):
        return (f"{len(old)} rows before and {len(new)} after",)
    names = dict.fromkeys(name for pair in zip(old, new, strict=True) for row in pair for name in row)
    return tuple(
        name for name in names if any(one.get(name) != two.get(name) for one, two in zip(old, new, strict=True))
    )


def _named(what: str, keys: list[str]) -> list[str]:
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return [f"{what}: {', '.join(keys[:SHOWN])}{more}"] if keys else []
