"""Rows of a table that need no closer look, told by whole columns.

Whatever is doubtful is left to `connectors.rows.checked`, which knows what to say of it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.files import Piece
from connectors.rows import LONGEST_KEY, LONGEST_TEXT, MOST_CHOICES

TEXTS = ("question", "context", "domain", "model", "key", "answer", "rationale")
"""Columns that may hold a text."""
WHOLE = ("key", "answer")
"""Columns that may hold a whole number."""
LISTS = ("choices", "rationale")
"""Columns that may hold a list of texts."""


Plain = tuple[str, str, str, tuple[str, ...], str, str]
"""Key, question, context, choices, domain and answer of a row that can be used, as `connectors.rows.Row` has them.

A tuple without names: a million of those with names keep the garbage collector busy.
"""


def plain_rows(piece: Piece) -> list[Plain | None]:
    """The rows of a piece in their order; None for each that must be looked at by itself."""
    sure = piece.sizes <= LONGEST_TEXT  # bytes of all columns; characters are fewer
    if piece.name_of is not None:
        sure &= _is_null(piece.columns["answer"])
    for name, column in piece.columns.items():
        sure &= _are_fine(name, column)
    places = np.flatnonzero(sure)
    found: list[Plain | None] = [None] * len(sure)
    for at, row in zip(places.tolist(), _cleaned(piece, places), strict=True):
        found[at] = row
    return found


def _are_fine(name: str, column: Any) -> NDArray[np.bool_]:
    """Which values of a column are of the right type and hold no NUL; nothing is fine everywhere."""
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load
    import pyarrow.compute as pc  # noqa: PLC0415

    kind = column.type
    if name in WHOLE and pa.types.is_integer(kind):
        return np.ones(len(column), dtype=np.bool_)
    if name in LISTS and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        bad = ~_are_texts(pc.list_flatten(column))
        rows = pc.list_parent_indices(column).to_numpy()
        return np.asarray(np.bincount(rows, weights=bad, minlength=len(column)) == 0)
    fine = _is_null(column)
    return fine | _are_texts(column) if name in TEXTS else fine


def _are_texts(column: Any) -> NDArray[np.bool_]:
    """Which values are texts without a NUL."""
    import pyarrow as pa  # noqa: PLC0415 - takes a while to load
    import pyarrow.compute as pc  # noqa: PLC0415

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return np.zeros(len(column), dtype=np.bool_)
    found: NDArray[np.bool_] = pc.match_substring(column, "\0").fill_null(True).to_numpy(zero_copy_only=False)
    return ~found


def _is_null(column: Any) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return found


def _cleaned(piece: Piece, places: NDArray[np.intp]) -> list[Plain | None]:
    """These rows with their texts stripped; None where that leaves something that may not be."""

    def values(name: str) -> Sequence[Any]:
        if name not in piece.columns:
            return [None] * len(places)
        column = piece.columns[name]
        found: list[Any] = (column if len(places) == len(column) else column.take(places)).to_pylist()
        return found

    rows = zip(
        _stripped(values("key")),
        _stripped(values("question")),
        _stripped(values("context")),
        [tuple([each.strip() for each in some]) if some else () for some in values("choices")],
        [domain or "default" for domain in _stripped(values("domain"))],
        _stripped(values("answer")),
        strict=True,
    )
    return [row if _may_be(row) else None for row in rows]


def _stripped(values: Sequence[Any]) -> list[str]:
    """Texts and whole numbers as clean texts; empty where there is none."""
    return ["" if value is None else str(value).strip() for value in values]


def _may_be(row: Plain) -> bool:
    """Whether a row has a question, and a key and choices that can be used where it has them."""
    key, question, _, choices, *_ = row
    if not question or len(key) > LONGEST_KEY or not key.isprintable():
        return False
    return not choices or (2 <= len(set(choices)) == len(choices) <= MOST_CHOICES and all(choices))
