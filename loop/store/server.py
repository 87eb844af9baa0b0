"""Which database this is, and whether it does what the store relies on."""

from sqlalchemy import Connection

from loop.errors import StoreUnusable
from loop.store.database import Store

OLDEST = 14
"""PostgreSQL's makers mend no older version. The suite runs on 15."""


def described(store: Store) -> str:
    """The database in a phrase.

    Raises:
        StoreUnusable: it is too old, or set up so that writers could disturb each other; the cure is named.
    """
    with store.reading() as session:
        connection = session.connection()
        return _postgresql(connection) if store.file is None else _sqlite(connection)


def _sqlite(connection: Connection) -> str:
    version, mode = _asked(connection, "SELECT sqlite_version()"), _asked(connection, "PRAGMA journal_mode")
    if mode != "wal":
        raise StoreUnusable(
            f"SQLite keeps no write-ahead log here (journal_mode is {mode}), so that readers and writers wait for each "
            "other: put the file of run.database on a local disk"
        )
    return f"SQLite {version}"


def _postgresql(connection: Connection) -> str:
    number, version = int(_asked(connection, "SHOW server_version_num")), _asked(connection, "SHOW server_version")
    name = _asked(connection, "SELECT current_database()")
    if number < OLDEST * 10_000:
        raise StoreUnusable(f"PostgreSQL {version} is too old; upgrade the server to {OLDEST} or newer")
    if (encoding := _asked(connection, "SHOW server_encoding")) != "UTF8":
        raise StoreUnusable(
            f"the database {name} is in {encoding}, which cannot hold every text; make another one for run.database: "
            "CREATE DATABASE preceptor ENCODING 'UTF8' TEMPLATE template0"
        )
    if (level := _asked(connection, "SHOW transaction_isolation")) != "read committed":
        raise StoreUnusable(
            f"transactions of {name} are {level}, and writers at once would fail instead of waiting: "
            f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'read committed'"
        )
    if _asked(connection, "SHOW transaction_read_only") == "on":
        raise StoreUnusable(f"{name} can only be read: name the primary server in run.database, not a standby")
    return f"PostgreSQL {version}"


def _asked(connection: Connection, question: str) -> str:
    return str(connection.exec_driver_sql(question).scalar_one())
