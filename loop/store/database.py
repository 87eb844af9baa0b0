"""The database behind the store: connections, transactions and migrations."""

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, event, make_url, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError
from sqlmodel import Session, SQLModel, create_engine, select

from loop.errors import AlreadyWorking, StoreUnusable, extra
from loop.records import Claim

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
Row = tuple[Any, ...]
BUSY_SECONDS = 60
"""A transaction waits so long for SQLite's lock, and a thread for one of the connections that wait for it."""
MANY_ROWS = 10_000
"""Rows of one transaction from which on SQLite gets more memory for it, and that it is handed at once."""
BULK_KIB = 200_000
"""Memory that SQLite gets then; with its 2 MB a million rows take half as long again."""
UPGRADING = 5_031_842_317
"""The number of the lock under which PostgreSQL is upgraded."""
QUIET = "end other processes that use it, like `preceptor serve`, and call this again"


class Store:
    """Reading and writing transactions on one database; its connections end with it.

    While the store holds a claim, every writing transaction first checks that the claim is still ours.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.claim: Claim | None = None
        self._local = threading.local()
        self._engine = _engine(url)
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        frozen = {} if url.startswith("sqlite") else {"isolation_level": "REPEATABLE READ"}
        self._frozen = self._engine.execution_options(**frozen)
        self._ended = threading.Event()
        event.listen(self._engine, "checkin", partial(_given_back, self._ended))
        weakref.finalize(self, _end, self._engine, self._ended)

    def migrate(self) -> None:
        """Bring the database to the newest revision, whole or not at all; SQLite's file is copied beside itself before.

        Raises:
            StoreUnusable: the database cannot be opened or written.
        """
        settings = AlembicConfig()
        settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        try:
            with self._explained(), _rebuilding(self._writer) as connection:
                self._copy_older(connection)
                settings.attributes["connection"] = connection
                command.upgrade(settings, "head")
        except CommandError as error:
            raise StoreUnusable(
                f"{self._shown}: {error}; a newer version of preceptor wrote it: upgrade, or name another run.database"
            ) from error

    def revisions(self) -> tuple[str | None, str | None]:
        """The revision that the database is at, and the one that this version of ours wants.

        Raises:
            StoreUnusable: the database cannot be opened or read.
        """
        wanted = ScriptDirectory(str(MIGRATIONS)).get_current_head()
        with self._explained(), self._engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision(), wanted

    def _copy_older(self, connection: Connection) -> None:
        """Keep the file as it was before an upgrade, while nobody else can write; what was copied before stays."""
        at = MigrationContext.configure(connection).get_current_revision()
        if self.file is None or at in (None, ScriptDirectory(str(MIGRATIONS)).get_current_head()):
            return
        copy = self.file.with_name(f"{self.file.name}.at-{at}")
        partial = copy.with_name(f"{copy.name}.partial")
        if not copy.exists():
            partial.unlink(missing_ok=True)
            with closing(sqlite3.connect(self.file)) as before, closing(sqlite3.connect(partial)) as written:
                before.backup(written)
            partial.rename(copy)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reading.

        Raises:
            StoreUnusable: the database cannot be opened or read.
        """
        with self._explained(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session for reading that sees one state of the database, however long it lasts.

        Raises:
            StoreUnusable: the database cannot be opened or read.
        """
        with self._explained(), Session(self._frozen, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One writing transaction: committed whole at the end of the block, or not at all.

        Raises:
            AlreadyWorking: another process has taken the run over.
            StoreUnusable: the database cannot be opened or written.
        """
        shared: Session | None = getattr(self._local, "session", None)
        if shared is not None:
            with shared.begin_nested():
                yield shared
            return
        with self._explained(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            if self.claim is not None:
                _check_fence(session, self.claim)
            yield session

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for all writing blocks of this thread within; each of them is whole or not at all.

        Raises:
            AlreadyWorking, StoreUnusable: see `writing`.
        """
        with self.writing() as session:
            self._local.session = session
            try:
                yield
            finally:
                self._local.session = None

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        url = make_url(self.url)
        return Path(url.database) if url.drivername.startswith("sqlite") and url.database else None

    def compact(self) -> None:
        """Write the database anew, so that nothing of what was deleted is left in its files.

        Raises:
            StoreUnusable: another process reads or writes it.
        """
        if not self.url.startswith("sqlite"):
            with (
                self._explained(),
                self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            ):
                connection.exec_driver_sql("VACUUM FULL")
            return
        self._engine.dispose()
        raw = self._engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("VACUUM")
            (busy, _, _) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            raise StoreUnusable(f"{self._shown}: {error}; {QUIET}") from error
        finally:
            raw.close()
        if busy:
            raise StoreUnusable(f"{self._shown}: others read it; {QUIET}")

    def close(self) -> None:
        """Close all connections; one that a thread still uses ends when it is given back."""
        _end(self._engine, self._ended)

    @property
    def _shown(self) -> str:
        """The address without its password."""
        return make_url(self.url).render_as_string(hide_password=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what befalls the database itself into the user's words; what a statement did wrong passes."""
        try:
            yield
        except (DataError, IntegrityError, ProgrammingError):
            raise
        except DatabaseError as error:
            raise StoreUnusable(f"{self._shown}: {error.orig}; {_cure(str(error.orig))}") from error


def now() -> datetime:
    """The time as it is stored: in UTC."""
    return datetime.now(UTC)


def _cure(said: str) -> str:
    """What the user can do about what the database said."""
    if "is locked" in said:
        return f"another process has held it for {BUSY_SECONDS:g} s: wait for it or end it, and call this again"
    if "malformed" in said:
        return (
            "its file is damaged: put a backup of it in its place, or save what can be read with the program sqlite3 "
            "(`.recover`), and call this again"
        )
    return (
        "see that run.database names a database, that its folder exists and may be written, and that the disk has room"
    )


def _check_fence(session: Session, ours: Claim) -> None:
    """Refuse to write where the claim was taken over; prolong its lease when half of it is gone.

    Also where it ends later than it can: then the clock was set back, and would reach that end long after others do.
    """
    row = session.exec(
        select(Claim).where(Claim.run == ours.run, Claim.kind == ours.kind, Claim.key == ours.key).with_for_update()
    ).one_or_none()
    if row is None or row.fence != ours.fence:
        owner = "nobody" if row is None else f"{row.host}, process {row.pid}"
        raise AlreadyWorking(f"run {ours.run} was taken over by {owner} meanwhile; nothing more is written here")
    lease = timedelta(seconds=ours.lease_seconds)
    if not lease / 2 <= row.lease_until - now() <= lease:
        row.lease_until = now() + lease
        session.add(row)


def rows_changed(session: Session, statement: Any) -> int:
    """How many rows an UPDATE changed."""
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def values(model: Any, *conditions: Any) -> Any:
    """An UPDATE on a model's table, to be completed with `.values(...)`; rows that the session holds stay as they are.

    Bringing those up to date as well takes longer than the statement.
    """
    return update(model).where(*conditions).execution_options(synchronize_session=False)


def add_missing(session: Session, model: type[SQLModel], **fields: Any) -> None:
    """Insert a row unless one with its primary key is there, whoever else does the same at this moment."""
    dialect = {"sqlite": sqlite, "postgresql": postgresql}[session.get_bind().dialect.name]
    session.execute(dialect.insert(model).values(**fields).on_conflict_do_nothing())


def put(session: Session, model: type[SQLModel], **fields: Any) -> None:
    """Insert a row, in the place of one with its primary key, whoever else does the same at this moment."""
    dialect = {"sqlite": sqlite, "postgresql": postgresql}[session.get_bind().dialect.name]
    insert = dialect.insert(model).values(**fields)
    key = [column.name for column in model.__table__.primary_key]  # type: ignore[attr-defined]
    session.execute(insert.on_conflict_do_update(index_elements=key, set_=fields))


def insert_all(
    session: Session, model: type[SQLModel], columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Insert rows as the table has them, below the row classes: by COPY on PostgreSQL."""
    connection, table = session.connection(), model.__tablename__
    names = ", ".join(f'"{name}"' for name in columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        values = list(rows)
        if values:
            connection.exec_driver_sql(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', values)
        return
    driver: Any = connection.connection
    try:
        with driver.cursor() as cursor, cursor.copy(f'COPY "{table}" ({names}) FROM STDIN') as copying:
            for row in rows:
                copying.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise DatabaseError("COPY", None, error) from error


def insert_texts(
    session: Session, model: type[SQLModel], columns: Sequence[str], rows: Sequence[tuple[str | None, ...]], **same: Any
) -> None:
    """As `insert_all`, for rows of texts alone; `same` are columns that hold one value in all of them.

    SQLite reads thousands of them out of one JSON text, so that other threads of Python can go on meanwhile: between
    single rows it would give them way and wait for them each time.
    """
    if session.get_bind().dialect.name != "sqlite":
        insert_all(session, model, (*columns, *same), ((*row, *same.values()) for row in rows))
        return
    for start in range(0, len(rows), MANY_ROWS):
        _insert_json(session, model, columns, rows[start : start + MANY_ROWS], same)


def _insert_json(
    session: Session, model: type[SQLModel], columns: Sequence[str], rows: Sequence[Row], same: dict[str, Any]
) -> None:
    """Insert rows out of one JSON text. But for the first, columns with one value in all of them stay out of it.

    To read one out of JSON takes as long as to store it.
    """
    first, *further = zip(columns, zip(*rows, strict=True), strict=True)
    differing = dict([first, *((name, values) for name, values in further if values.count(values[0]) < len(values))])
    alike = {name: values[0] for name, values in further if name not in differing} | same
    names = ", ".join(f'"{name}"' for name in (*differing, *alike))
    read = ", ".join([f"json_extract(value, '$[{at}]')" for at in range(len(differing))] + ["?"] * len(alike))
    told = json.dumps([*zip(*differing.values(), strict=True)], ensure_ascii=False)
    statement = f'INSERT INTO "{model.__tablename__}" ({names}) SELECT {read} FROM json_each(?)'
    session.connection().exec_driver_sql(statement, (*alike.values(), told))


@contextmanager
def bulk(session: Session, rows: int) -> Iterator[None]:
    """A block that looks up and inserts so many rows; a small block needs none of this.

    SQLite gets memory for its indexes, or it writes their pages over and over; it is given back where the block ends.
    PostgreSQL finds names by an index until the transaction ends: it knows nothing yet of a table that is being filled,
    and would compare each of thousands of names with each row.
    """
    connection = session.connection()
    if rows < MANY_ROWS:
        yield
        return
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        yield
        return
    before = connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
    connection.exec_driver_sql(f"PRAGMA cache_size=-{BULK_KIB}")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size={before}")


def take_turns(session: Session, model: type[SQLModel]) -> None:
    """Let other writers of a table wait until this transaction ends; SQLite has them wait anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f'LOCK TABLE "{model.__tablename__}" IN SHARE ROW EXCLUSIVE MODE'))


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        with extra("postgresql", "run.database"):
            return create_engine(url, pool_pre_ping=True, pool_timeout=BUSY_SECONDS)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_timeout=BUSY_SECONDS)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _end(engine: Engine, ended: threading.Event) -> None:
    """Close the connections of an engine."""
    ended.set()
    engine.dispose()


def _given_back(ended: threading.Event, _: Any, record: Any) -> None:
    """Close a connection that was in use when its engine ended: SQLAlchemy leaves it to the garbage collector."""
    if ended.is_set():
        record.invalidate()


@contextmanager
def _rebuilding(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other process upgrades in; SQLite may drop a table that others refer to and make it anew.

    It can switch its foreign keys off only between transactions.
    """
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADING})")
            yield connection
        return
    with engine.connect() as connection:
        switch = connection.connection.cursor()
        switch.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
        finally:
            switch.execute("PRAGMA foreign_keys=ON")
            switch.close()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Hand transactions over to us; write-ahead log, and every commit reaches the disk."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the lock at once, so that none has to give up in mid-transaction."""
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))
