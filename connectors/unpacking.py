"""How much memory a piece of a table takes: a file of a kilobyte can unpack to more than any machine has."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loop.errors import BadRow

FIELDS = ("key", "question", "context", "choices", "domain", "answer", "rationale", "model")
"""What is read of a row; other columns are left alone."""
BATCH = 10_000
"""Rows of a Parquet file that are in memory at once. All texts that they may have come with them, however few they are:
with a tenth of the rows each text is looked at ten times as often."""
MOST_UNPACKED = 2**30
"""Bytes that the columns of one row group may unpack to, and that a line which is passed over may have."""
REPEATING = "DELTA_BYTE_ARRAY"
"""Of such a column each value may repeat the one before it, so that a few bytes give as many as all of it holds. It is
not read as a dictionary, but so few rows at a time that they fit."""
VALUE = 8
"""Bytes that a value takes beside its text."""


def unpacked(path: Path, metadata: Any) -> tuple[list[str], int]:
    """The leaves of a Parquet file that are read as dictionaries, and how many rows may be unpacked at once.

    Texts that are written once and named often stay so: as texts of their own they can fill any memory.

    The file says itself what it unpacks to. One that lies can still take two gigabytes for a page.

    Raises:
        BadRow: a row group unpacks to more than is held in memory.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest: defaultdict[str, int] = defaultdict(int)
    repeating: set[str] = set()
    for number, group in enumerate(groups):
        columns = [group.column(at) for at in range(group.num_columns)]
        read = [each for each in columns if each.path_in_schema.split(".")[0] in FIELDS]
        size = sum(each.total_uncompressed_size + VALUE * each.num_values for each in read)
        if size > MOST_UNPACKED:
            raise BadRow(
                f"{path}: row group {number} unpacks to {size} bytes, and no more than {MOST_UNPACKED} are read at "
                "once; write the file with fewer rows in a group (pyarrow: row_group_size=10000)"
            )
        for each in read:
            if each.physical_type == "BYTE_ARRAY":
                largest[each.path_in_schema] = max(1, largest[each.path_in_schema], each.total_uncompressed_size)
                repeating |= {each.path_in_schema} if REPEATING in each.encodings else set()
    rows = min([BATCH, *(max(1, MOST_UNPACKED // largest[each]) for each in repeating)])
    return sorted(largest.keys() - repeating), rows


def sizes_of(name: str, column: Any) -> NDArray[np.float64]:
    """Bytes that the value of each row of an Arrow array takes as Python has it, about; (rows,).

    Raises:
        ValueError: the column is of a type that items do not have.
    """
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load
    import pyarrow.compute as pc  # noqa: PLC0415

    kinds, kind = pa.types, column.type
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        each, rows = sizes_of(name, pc.list_flatten(column)), pc.list_parent_indices(column).to_numpy()
        return np.bincount(rows, weights=each + VALUE, minlength=len(column)).astype(np.float64)
    if kinds.is_dictionary(kind):
        of_each = sizes_of(name, column.dictionary)
        places: NDArray[np.int64] = column.indices.fill_null(len(of_each)).to_numpy()
        return np.append(of_each, 0.0)[places]
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        lengths: NDArray[np.float64] = pc.binary_length(column).fill_null(0).to_numpy().astype(np.float64)
        return lengths
    plain = (kinds.is_null, kinds.is_boolean, kinds.is_integer, kinds.is_floating, kinds.is_decimal)
    if any(each(kind) for each in plain):
        return np.zeros(len(column))
    raise ValueError(f"column `{name}` holds {str(kind)[:60]}, but text, lists of texts or numbers are expected")


def decoded(column: Any) -> Any:
    """An Arrow array without a dictionary: each row has its text, or its texts, for itself."""
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load

    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_list(kind) and pa.types.is_dictionary(kind.value_type):
        return column.cast(pa.list_(kind.value_type.value_type))
    return column
