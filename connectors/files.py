"""Reads rows out of files: JSONL, CSV, Parquet and Hugging Face dataset folders. What a row means is not known here."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from connectors.unpacking import FIELDS, MOST_UNPACKED, decoded, sizes_of, unpacked
from loop.errors import BadRow, extra

LONGEST_LINE = 4 * 2**20
"""Bytes of a JSONL line that are read; a longer one is named and passed over."""
PIECE = 1000
"""Rows of a dataset folder that are in memory at once."""
LARGEST_PIECE = 2**24
"""Bytes of rows that are looked at together."""


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


@dataclass(frozen=True)
class Piece:
    """Some rows of a table as Arrow arrays by column, numbered from `first`; `sizes` are about their bytes, (rows,).

    Of a column of classes `name_of` gives the name of each.
    """

    file: str
    first: int
    columns: Mapping[str, Any]
    sizes: NDArray[np.float64]
    name_of: Callable[[int], str] | None = None

    def row(self, at: int) -> Raw:
        """A row; one that is too long to be one is named."""
        if self.sizes[at] > LONGEST_LINE:
            return Raw(self.file, self.first + at, {}, f"the row is longer than {LONGEST_LINE} bytes")
        raw = Raw(self.file, self.first + at, {name: column[at].as_py() for name, column in self.columns.items()})
        return raw if self.name_of is None else _labelled(raw, self.name_of)

    def rows(self) -> Iterator[Raw]:
        """All rows."""
        return map(self.row, range(len(self.sizes)))

    def cut(self) -> Iterator["Piece"]:
        """The same rows in pieces that are small even where each row has its texts for itself, which they then have.

        A row that is too large by itself is a piece as it is: it cannot be used anyway.
        """
        rows = len(self.sizes)
        if self.sizes.sum() <= LARGEST_PIECE:
            yield replace(self, columns={name: decoded(column) for name, column in self.columns.items()})
        elif rows == 1:
            yield self
        else:
            for start, end in ((0, rows // 2), (rows // 2, rows)):
                columns = {name: column[start:end] for name, column in self.columns.items()}
                yield from replace(self, first=self.first + start, columns=columns, sizes=self.sizes[start:end]).cut()


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


def pieces_of(path: Path) -> Iterator[Piece | Raw] | None:
    """A table in pieces, and what is wrong with it where that is; None where a file is no table.

    Raises:
        BadRow: see `reader_of`.
    """
    reader = reader_of(path)
    if reader is _parquet:
        return _parquet_pieces(path)
    return _dataset_pieces(path) if reader is _dataset else None


def _by_row(pieces: Iterator[Piece | Raw]) -> Iterator[Raw]:
    for piece in pieces:
        if isinstance(piece, Raw):
            yield piece
        else:
            yield from piece.rows()


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
        passed = 0
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)
            passed += len(line)
            if passed > MOST_UNPACKED:
                raise EOFError(f"a line of more than {MOST_UNPACKED} bytes")


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
        reader = csv.reader(iter(partial(file.readline, LONGEST_LINE), ""), strict=True)
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
    return _by_row(_parquet_pieces(path))


def _parquet_pieces(path: Path) -> Iterator[Piece | Raw]:
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load
    import pyarrow.parquet as pq  # noqa: PLC0415

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            _require_question(path, file.schema_arrow.names)
            leaves, rows = unpacked(path, file.metadata)
        with pq.ParquetFile(path, read_dictionary=leaves) as file:
            names = list(dict.fromkeys(file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=rows, columns=[name for name in FIELDS if name in names]):
                yield from piece_of(str(path), batch, number + 1).cut()
                number += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if number == 0:
            raise BadRow(f"{path}: not a Parquet file that can be read ({error})") from error
        yield Raw(str(path), number + 1, {}, f"the file is damaged from here on ({error})")


def piece_of(place: str, batch: Any, first: int) -> Piece:
    """A piece of an Arrow table, whose rows are numbered from `first`.

    Raises:
        ValueError: a column is of another type than items have (`pyarrow.ArrowInvalid` is one).
    """
    batch.validate(full=True)
    columns = {name: _joined(batch.column(at)) for at, name in enumerate(batch.schema.names)}
    sizes = np.sum([sizes_of(name, column) for name, column in columns.items()], axis=0)
    return Piece(place, first, columns, sizes)


def _joined(column: Any) -> Any:
    """A column as one array."""
    chunked = hasattr(column, "combine_chunks")
    return column.unify_dictionaries().combine_chunks() if chunked else column


def _dataset(path: Path) -> Iterator[Raw]:
    return _by_row(_dataset_pieces(path))


def _dataset_pieces(path: Path) -> Iterator[Piece | Raw]:
    """A dataset, or every split of a dataset dictionary."""
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load

    with extra("hf", f"{path}: a Hugging Face dataset folder"):
        from datasets import DatasetDict, load_from_disk  # noqa: PLC0415 - takes seconds to load

    try:
        _refuse_elsewhere(path)
        loaded = load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, pa.ArrowException) as error:
        raise BadRow(f"{path}: not a Hugging Face dataset that can be read ({error})") from error
    parts = {f"{path}[{name}]": part for name, part in loaded.items()} if isinstance(loaded, DatasetDict) else None
    for name, part in (parts or {str(path): loaded}).items():
        yield from _pieces_of_part(name, part)


def _refuse_elsewhere(path: Path) -> None:
    """Refuse a folder that names files outside of it: whoever made it must not choose what is read of this disk.

    Raises:
        BadRow: it does.
    """
    splits = json.loads((path / "dataset_dict.json").read_bytes())["splits"] if _is_several(path) else ["."]
    parts = [path / each for each in splits]
    said = [(part, json.loads((part / "state.json").read_bytes())) for part in parts if (part / "state.json").is_file()]
    files = [
        part / each["filename"]
        for part, state in said
        for each in [*state["_data_files"], *(state.get("_indices_data_files") or [])]
    ]
    for each in (*parts, *files):
        if not each.resolve().is_relative_to(path.resolve()):
            raise BadRow(f"{path}: names {each}, which is outside of the folder; copy what it holds into the folder")


def _is_several(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file()


def _pieces_of_part(name: str, part: Any) -> Iterator[Piece | Raw]:
    """One dataset as it is stored: nothing that it names is opened. A class label stands for its name."""
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load

    _require_question(name, part.column_names)
    labelled = getattr(part.features.get("answer"), "int2str", None)
    wanted = part.select_columns([each for each in FIELDS if each in part.column_names]).with_format("arrow")
    for start in range(0, len(wanted), PIECE):
        try:
            piece = piece_of(name, wanted[start : start + PIECE], start + 1)
        except (ValueError, pa.ArrowException) as error:
            yield Raw(name, start + 1, {}, f"the dataset is damaged from here on ({error})")
            return
        yield from replace(piece, name_of=labelled).cut()


def _labelled(raw: Raw, name_of: Callable[[int], str]) -> Raw:
    """The row with the name of its class."""
    number = raw.fields.get("answer")
    if raw.problem or number is None or number < 0:
        return replace(raw, fields={**raw.fields, "answer": None})
    try:
        return replace(raw, fields={**raw.fields, "answer": name_of(number)})
    except ValueError:
        return replace(raw, problem=f"`answer` is {number}, which is none of the dataset's classes")


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
