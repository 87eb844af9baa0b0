"""What belongs to an item: its rows, and those that refer to them, found by the foreign keys of all tables."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Table, and_, select, tuple_
from sqlmodel import Session, SQLModel

from loop.records import Item
from loop.store.pieces import pieces

Key = tuple[Any, ...]
Rows = dict[Table, set[Key]]
"""Primary keys by table."""


def table_of(model: type[SQLModel]) -> Table:
    """The table of a row class."""
    table: Table = model.__table__  # type: ignore[attr-defined]
    return table


def rows_about(session: Session, key: str) -> Rows:
    """The primary keys of the item and of all that refers to it, directly or through others, by table."""
    found: Rows = {table_of(Item): {(key,)}} if session.get(Item, key) else {}
    todo = list(found)
    while todo:
        parent = todo.pop()
        links = [
            (table, link)
            for table in SQLModel.metadata.sorted_tables
            for link in table.foreign_key_constraints
            if link.referred_table is parent
        ]
        for table, link in links:
            new = _referring(session, table, link, found[parent]) - found.get(table, set())
            if new:
                found.setdefault(table, set()).update(new)
                todo.append(table)
    return found


def _referring(session: Session, table: Table, link: ForeignKeyConstraint, keys: Iterable[Key]) -> set[Key]:
    """The primary keys of the rows that refer by this link to rows with these."""
    parent = link.referred_table.alias()
    joined = and_(*(each.parent == parent.c[each.column.name] for each in link.elements))
    key = tuple_(*(parent.c[each.name] for each in link.referred_table.primary_key))
    query = select(*table.primary_key).select_from(table).join(parent, joined)
    return {tuple(row) for part in pieces(keys) for row in session.execute(query.where(key.in_(part)))}


def values_of(session: Session, rows: Rows, column: str, of: str | None = None) -> list[Any]:
    """The values of a column in the item's rows: of one table, or of every table that has it."""
    found: list[Any] = []
    for table in [each for each in rows if column in each.c and of in (None, each.name)]:
        for part in pieces(rows[table]):
            query = select(table.c[column]).where(tuple_(*table.primary_key).in_(part))
            found += [value for (value,) in session.execute(query) if value is not None]
    return found
