"""Reads rows out of files: JSONL, CSV, Parquet and Hugging Face dataset folders. What a row means is not known here."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from loop.errors import BadRow, extra

FIELDS = ("key", "question", "context", "choices", "domain", "answer", "rationale", "model")
"""What is read of a row; other columns are left alone."""
LONGEST_LINE = 4 * 2**20
"""Bytes of a JSONL line that are read; a longer one is named and passed over."""
BATCH = 1000
"""Rows of a table that are in memory at once."""


@dataclass(frozen=True)
class Raw:
    """A row as it stands in a file, or what is wrong with it."""

    file: str
    line: int
    fields: Mapping[str, Any]
    problem: str | None = None

    @property
    def place(self) -> str:
        """File and line; what did not come from a file has no line."""
        return f"{self.file}:{self.line}" if self.line else self.file


def reader_of(path: Path) -> Callable[[Path], Iterator[Raw]]:
    """What reads this file.

    Raises:
        BadRow: there is no such file, it cannot be opened, or its kind is not known.
    """
    if path.is_dir():
        if not any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
            raise BadRow(f"{path}: a folder that holds no Hugging Face dataset; name its files instead")
        return _dataset
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise BadRow(f"{path}: no such file") from error
    except OSError as error:
        raise BadRow(f"{path}: cannot be read: {error.strerror}") from error
    name = path.name.lower()
    for ending, reader in READERS.items():
        if name.endswith(ending):
            return reader
    raise BadRow(f"{path}: unknown kind of file; known: {', '.join(READERS)} and Hugging Face dataset folders")


def _jsonl(path: Path) -> Iterator[Raw]:
    for raw in json_lines(path):
        yield replace(raw, fields={name: raw.fields[name] for name in FIELDS if name in raw.fields})


def json_lines(path: Path) -> Iterator[Raw]:
    """Rows of a JSONL file, gzipped or not, with all their columns."""
    with _opened(path) as file:
        number = 0
        try:
            for number, line in enumerate(_lines(file), start=1):
                if line.strip():
                    yield _json_row(path, number, line)
        except (OSError, EOFError, zlib.error) as error:
            yield Raw(str(path), number + 1, {}, f"the file is damaged from here on ({error})")


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of a line that is too long, one byte more than is allowed."""
    while line := file.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)


def _json_row(path: Path, number: int, line: bytes) -> Raw:
    if len(line) > LONGEST_LINE:
        return Raw(str(path), number, {}, f"the line is longer than {LONGEST_LINE} bytes")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Raw(str(path), number, {}, "not UTF-8; save the file as UTF-8")
    except (ValueError, RecursionError) as error:
        said = getattr(error, "msg", error)
        return Raw(str(path), number, {}, f"not valid JSON ({said}); expected one object a line")
    if not isinstance(row, dict):
        return Raw(str(path), number, {}, f"a JSON {type(row).__name__}, but one object a line is expected")
    return Raw(str(path), number, row)


def _csv(path: Path) -> Iterator[Raw]:
    """Rows of a CSV file with a header; bytes that are not UTF-8 are found when the row is looked at."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = _header(path, reader)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Raw(str(path), line, {}, f"not valid CSV ({error})")
                continue
            if cells:
                yield _csv_row(path, line, header, cells)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(reader)]
    except StopIteration:
        header = []
    except csv.Error as error:
        raise BadRow(f"{path}:1: not valid CSV ({error})") from error
    _require_question(path, header)
    return header


def _csv_row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> Raw:
    if len(cells) != len(header):
        return Raw(str(path), line, {}, f"{len(cells)} cells, but the header names {len(header)} columns")
    row = {name: cell for name, cell in zip(header, cells, strict=True) if name in FIELDS and cell.strip()}
    try:
        return Raw(str(path), line, {name: _cell(name, cell) for name, cell in row.items()})
    except (ValueError, RecursionError) as error:
        return Raw(str(path), line, {}, f"a list in a cell is not valid JSON ({error}); or separate its parts by |")


def _cell(name: str, cell: str) -> Any:
    """Lists are written as JSON or separated by `|`; a rationale may be plain text too."""
    if name in ("choices", "rationale") and cell.lstrip().startswith("["):
        return json.loads(cell)
    if name == "choices" or (name == "rationale" and "|" in cell):
        return [part.strip() for part in cell.split("|")]
    return cell


def _parquet(path: Path) -> Iterator[Raw]:
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load
    import pyarrow.parquet as pq  # noqa: PLC0415

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _require_question(path, names)
            for batch in file.iter_batches(batch_size=BATCH, columns=[name for name in FIELDS if name in names]):
                for row in batch.to_pylist():
                    number += 1
                    yield Raw(str(path), number, row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if number == 0:
            raise BadRow(f"{path}: not a Parquet file that can be read ({error})") from error
        yield Raw(str(path), number + 1, {}, f"the file is damaged from here on ({error})")


def _dataset(path: Path) -> Iterator[Raw]:
    """Rows of a dataset, or of every split of a dataset dictionary."""
    with extra("hf", f"{path}: a Hugging Face dataset folder"):
        from datasets import DatasetDict, load_from_disk  # noqa: PLC0415 - takes seconds to load

    try:
        loaded = load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRow(f"{path}: not a Hugging Face dataset that can be read ({error})") from error
    parts = {f"{path}[{name}]": part for name, part in loaded.items()} if isinstance(loaded, DatasetDict) else None
    for name, part in (parts or {str(path): loaded}).items():
        yield from _dataset_rows(name, part)


def _dataset_rows(name: str, part: Any) -> Iterator[Raw]:
    """Rows of one dataset; a class label stands for its name."""
    _require_question(name, part.column_names)
    wanted = part.select_columns([each for each in FIELDS if each in part.column_names]).with_format(None)
    named = getattr(wanted.features.get("answer"), "int2str", None)
    for start in range(0, len(wanted), BATCH):
        columns = wanted[start : start + BATCH]
        for offset, values in enumerate(zip(*columns.values(), strict=True)):
            row = dict(zip(columns, values, strict=True))
            if named is not None and row["answer"] is not None:
                row["answer"] = named(row["answer"]) if row["answer"] >= 0 else None
            yield Raw(name, start + offset + 1, row)


def _require_question(path: object, names: Sequence[str]) -> None:
    if "question" not in names:
        raise BadRow(f"{path}: no column `question`; its columns are: {', '.join(names) or 'none'}")


READERS: Mapping[str, Callable[[Path], Iterator[Raw]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""What reads a file, by how its name ends."""
