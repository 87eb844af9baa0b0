"""Keys and ids that a query names: in pieces that fit into one IN list, or all in one parameter."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ARRAY, JSON, ColumnElement, String, any_, cast, collate, func, select
from sqlmodel import Session

MANY = 500
Name = TypeVar("Name", int, str, tuple[Any, ...])


def pieces(names: Iterable[Name]) -> list[list[Name]]:
    """The names in order, in pieces; each name once."""
    wanted = sorted(set(names))
    return [wanted[start : start + MANY] for start in range(0, len(wanted), MANY)]


def among(session: Session, column: Any, names: Sequence[str]) -> ColumnElement[bool]:
    """That a column holds one of thousands of names: they are handed over as a whole, not one by one."""
    if session.get_bind().dialect.name == "sqlite":
        return column.in_(select(func.json_each(json.dumps(names)).table_valued("value").c.value))  # type: ignore[no-any-return]
    read = select(func.json_array_elements_text(cast(list(names), JSON)))
    return column == any_(func.array(read.scalar_subquery(), type_=ARRAY(String)))  # type: ignore[no-any-return]


def by_characters(session: Session, column: Any) -> ColumnElement[str]:
    """The order of a column's texts by their characters, which is one order on both databases."""
    return collate(column, "BINARY" if session.get_bind().dialect.name == "sqlite" else "C")
