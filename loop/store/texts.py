"""Texts that are looked for in the database, however they are written there."""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Table, Text, cast, func, or_
from sqlmodel import Session, SQLModel
from sqlmodel import select as rows_of

from loop.store.cascade import table_of
from loop.store.pieces import pieces

Noun = TypeVar("Noun", bound=SQLModel)


def forms(text: str) -> list[str]:
    """How a text may be written: as it is, in JSON, in JSON within JSON, in HTML."""
    once = {text, html.escape(text), *_escaped(text)}
    return sorted(once.union(*map(_escaped, once)))


def _escaped(text: str) -> set[str]:
    return {json.dumps(text, ensure_ascii=plain)[1:-1] for plain in (True, False)}


def leaves(value: Any) -> Iterator[str]:
    """The texts within a JSON value, without keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for each in value.values() for text in leaves(each))
    elif isinstance(value, Sequence):
        yield from (text for each in value for text in leaves(each))


def conditions(session: Session, column: Any, texts: Iterable[str]) -> list[ColumnElement[bool]]:
    """Whether a column holds one of some texts in one of their forms; in parts that a statement can take."""
    finds = func.instr if session.get_bind().dialect.name == "sqlite" else func.strpos
    wanted = pieces(form for text in texts for form in forms(text))
    return [or_(*(finds(cast(column, Text), form) > 0 for form in part)) for part in wanted]


def whole(table: Table) -> ColumnElement[str]:
    """All that a row holds, as one text."""
    columns = [func.coalesce(cast(each, Text), "") for each in table.columns]
    return reduce(lambda before, each: before + "\n" + each, columns)


def with_text(session: Session, model: type[Noun], column: str, texts: Iterable[str]) -> list[Noun]:
    """The rows of a table in whose column one of the texts stands."""
    wanted = conditions(session, table_of(model).c[column], texts)
    found = [row for each in wanted for row in session.exec(rows_of(model).where(each))]
    return list({id(row): row for row in found}.values())


def without(value: Any, texts: Sequence[str], word: str) -> Any:
    """A JSON value with a word in the place of each of the texts."""
    if isinstance(value, str):
        for form in sorted((each for text in texts for each in forms(text)), key=len, reverse=True):
            value = value.replace(form, word)
        return value
    if isinstance(value, dict):
        return {name: without(each, texts, word) for name, each in value.items()}
    return [without(each, texts, word) for each in value] if isinstance(value, list) else value
