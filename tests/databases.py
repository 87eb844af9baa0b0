"""Where the stores of tests are: SQLite files, or PostgreSQL where `PRECEPTOR_TEST_DATABASE` asks for it.

There every SQLite file that a test names stands for a database of the server, and in the file's place lies its name. So
a file that is missing is an empty database, and a copied file is a copy of the database.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from sqlalchemy import Connection, create_engine, inspect, make_url, text

from loop.store.database import Store

WANTED = "PRECEPTOR_TEST_DATABASE"
"""`postgresql` starts Debian's server; an address (`postgresql://me@host/postgres`) names one to make databases on."""
SERVER = "PRECEPTOR_TEST_SERVER"
"""The server's address, for this process and those that tests start."""
TEMPLATE = "preceptor_test_template"
MARK = "preceptor_test_"
HOOKS = Path(__file__).parent / "hooks"
_opened: WeakSet[Store] = WeakSet()
_open = Store.__init__


@contextmanager
def on_postgresql(server: str) -> Iterator[None]:
    """Stores are databases of the server while the block lasts; a new one is a copy of one that was migrated once."""
    with _maintaining(server) as connection:
        _make(connection, TEMPLATE, "template0")
    template = Store(_named(server, TEMPLATE))
    template.migrate()
    template.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SERVER, server)
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, [HOOKS, HOOKS.parents[1]])))
        yield
    close_stores()
    with _maintaining(server) as connection:
        _drop(connection, list(connection.scalars(text("SELECT datname FROM pg_database"))))


def follow() -> None:
    """In a process that a test started: have its stores where the test has them."""
    if SERVER in os.environ:
        note_stores()


def note_stores() -> None:
    """Know of every store that is opened from now on, and open it where the test has its stores."""
    Store.__init__ = _open_elsewhere  # type: ignore[method-assign]


def drop(folder: Path) -> None:
    """Drop the databases of a folder."""
    names = [name for file in folder.rglob("*.db") if (name := _stands_for(file)) is not None]
    if names:
        with _maintaining(os.environ[SERVER]) as connection:
            _drop(connection, names)


def close_stores() -> None:
    """End the connections that tests left open; a store that is asked again opens new ones."""
    for store in _opened:
        store.close()


def rows(file: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What another program finds in the store of a file; each `?` is a value."""
    with _other_program(file) as connection:
        places = count()
        bound = text(re.sub(r"\?", lambda _: f":v{next(places)}", query))
        return [tuple(row) for row in connection.execute(bound, {f"v{n}": value for n, value in enumerate(values)})]


def tables(file: Path) -> list[str]:
    """The names of its tables."""
    with _other_program(file) as connection:
        return sorted(inspect(connection).get_table_names())


def change(file: Path, statement: str) -> None:
    """Change the store of a file as another program does."""
    with _other_program(file) as connection:
        connection.execute(text(statement))


@contextmanager
def _other_program(file: Path) -> Iterator[Connection]:
    engine = create_engine(_address(f"sqlite:///{file}"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _open_elsewhere(self: Store, url: str) -> None:
    _open(self, _address(url))
    _opened.add(self)


def _address(url: str) -> str:
    """The address of the database that stands for an SQLite file; other addresses, and damaged files, as they are."""
    file = make_url(url).database
    if SERVER not in os.environ or not url.startswith("sqlite") or not file or not Path(file).parent.is_dir():
        return url
    path = Path(file).resolve()
    name = MARK + hashlib.sha256(str(path).encode()).hexdigest()[:32]
    if path.exists() and _stands_for(path) is None:
        return url
    if _stands_for(path) != name:
        with _maintaining(os.environ[SERVER]) as connection:
            connection.execute(text("SELECT pg_advisory_lock(1)"))
            if (source := _stands_for(path)) != name:
                _make(connection, name, source or TEMPLATE)
                path.write_text(name, encoding="utf-8")
    return _named(os.environ[SERVER], name)


def _stands_for(file: Path) -> str | None:
    """The name of the database in the file's place."""
    with file.open("rb") if file.is_file() else open(os.devnull, "rb") as opened:  # noqa: PTH123
        start = opened.read(64).decode("utf-8", errors="replace")
    return start if start.startswith(MARK) else None


def _named(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@contextmanager
def _maintaining(server: str) -> Iterator[Connection]:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _make(connection: Connection, name: str, source: str) -> None:
    """A copy of a database, in which nobody is meanwhile; one of that name is dropped first."""
    _drop(connection, [name])
    connection.execute(
        text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :source"), {"source": source}
    )
    connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{source}"'))


def _drop(connection: Connection, names: list[str]) -> None:
    for name in names:
        if name.startswith(MARK):
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
