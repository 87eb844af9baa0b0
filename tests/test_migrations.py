"""The models and the revisions agree, on SQLite and on PostgreSQL."""

import sqlite3
import subprocess
import sys
from collections.abc import Collection
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, DateTime, Engine, Enum, MetaData, Table, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine
from sqlmodel import select

from loop.records import Currency, Decision, Item
from loop.store.database import MIGRATIONS, Store
from loop.store.money import Purse

A_CAMPAIGN_BEFORE_SCOPES = (
    "INSERT INTO item (key, question, context, choices, domain, split, steps, text_hash, source) VALUES "
    "('a/b', '?', '', '[]', 'algebra', 'POOL', '[]', '1', ''), ('c', '?', '', '[]', 'sets', 'POOL', '[]', '2', '')",
    """INSERT INTO balance (run, currency, "limit", spent, reserved) VALUES ('old', 'USD', 100, 30, 12)""",
    "INSERT INTO charge (id, run, currency, purpose, reserved, settled, state, assumed, owner, created_at) VALUES "
    "(1, 'old', 'USD', 'ask/1/a/b/0/0', 25, 20, 'SETTLED', false, '', '2026-01-01 00:00:00'),"
    "(2, 'old', 'USD', 'judge/2/c/3/0', 15, 10, 'SETTLED', false, '', '2026-01-01 00:00:00'),"
    "(3, 'old', 'USD', 'ask/2/c/0/0', 12, 0, 'RESERVED', false, '', '2026-01-01 00:00:00'),"
    "(4, 'old', 'USD', 'ask/2/c/0/0', 9, 0, 'RELEASED', false, '', '2026-01-01 00:00:00'),"
    "(5, 'old', 'MINUTES', 'review/uid', 9, 0, 'RESERVED', false, '', '2026-01-01 00:00:00')",
)

A_DECISION = (
    "INSERT INTO item (key, question, context, choices, domain, split, steps, text_hash, source) VALUES "
    "('a', '?', '', '[]', '', 'POOL', '[]', '1', '')",
    "INSERT INTO configrow (hash, body) VALUES ('h', '{}')",
    "INSERT INTO round (id, run, number, stage, config_hash, opened_at, selection) VALUES "
    "(1, 'old', 1, 'CLOSED', 'h', '2026-01-01 00:00:00', '')",
    "INSERT INTO decision (id, run, item_key, round_id, kind, certified, reason, version, decided_at, planted) VALUES "
    "(7, 'old', 'a', 1, 'UNDECIDED', false, '', 1, '2026-01-01 00:00:00', '')",
)


def settings_for(url: str) -> tuple[Config, Engine]:
    settings, engine = Config(), create_engine(url)
    settings.set_main_option("script_location", str(MIGRATIONS))
    return settings, engine


def test_the_revisions_build_the_models(database: str) -> None:
    store = Store(database)
    store.migrate()
    store.close()
    engine = create_engine(database)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), Item.metadata)
    engine.dispose()
    assert difference == []


def test_there_is_one_head() -> None:
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS))
    assert len(ScriptDirectory.from_config(settings).get_heads()) == 1


def test_migrating_twice_changes_nothing(database: str) -> None:
    store = Store(database)
    store.migrate()
    store.migrate()
    store.close()


def test_charges_from_before_count_in_their_rounds_and_domains(database: str) -> None:
    settings, engine = settings_for(database)
    before = ScriptDirectory.from_config(settings).get_revision("0012").down_revision
    with engine.begin() as settings.attributes["connection"]:
        command.upgrade(settings, str(before))
        for statement in A_CAMPAIGN_BEFORE_SCOPES:
            settings.attributes["connection"].execute(text(statement))
    engine.dispose()
    store = Store(database)
    store.migrate()

    purse = Purse(store, "old")
    counters = {scope: (row.spent, row.reserved) for scope, row in purse.counters().items()}
    usd = purse.balances()[Currency.USD]
    assert (usd.limit, usd.spent, usd.reserved) == (100, 30, 12)
    assert counters == {"round/1": (20, 0), "round/2": (10, 12), "domain/algebra": (20, 0), "domain/sets": (10, 12)}
    purse.settle(3, 5)
    assert {scope: row.spent for scope, row in purse.counters().items()} == {
        "round/1": 20, "round/2": 15, "domain/algebra": 20, "domain/sets": 15
    }  # fmt: skip
    store.close()


@pytest.mark.sqlite("only there the table is made anew")
def test_decisions_from_before_keep_their_ids_and_the_database_still_refuses_planted_ones(tmp_path: Path) -> None:
    settings, engine = settings_for(f"sqlite:///{tmp_path / 'store.db'}")
    with engine.begin() as settings.attributes["connection"]:
        command.upgrade(settings, "0022")
        for statement in A_DECISION:
            settings.attributes["connection"].execute(text(statement))
    engine.dispose()
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    with store.writing() as session:
        assert session.exec(select(Decision.id)).all() == [7]
        session.execute(text("DELETE FROM decision"))
        session.execute(text(A_DECISION[-1].replace("(7,", "(NULL,")))
        assert session.exec(select(Decision.id)).all() == [8]
    with pytest.raises(IntegrityError, match="ck_decision_not_planted"), store.writing() as session:
        session.execute(text("UPDATE decision SET planted = 'sign'"))
    store.close()


def test_a_row_of_every_table_survives_every_revision_since_the_table_is_there(database: str) -> None:
    settings, engine = settings_for(database)
    kept: dict[str, dict[str, object]] = {}
    for revision in reversed(list(ScriptDirectory(str(MIGRATIONS)).walk_revisions())):
        with engine.begin() as settings.attributes["connection"]:
            command.upgrade(settings, revision.revision)
            kept |= new_rows(settings.attributes["connection"], known=kept)
    with engine.connect() as connection:
        at_head = MetaData()
        at_head.reflect(connection)
        for name, before in kept.items():
            after = connection.execute(select(*(at_head.tables[name].columns[column] for column in before))).mappings()
            assert before in [dict(row) for row in after], name
    engine.dispose()
    store = Store(database)
    with store.reading() as session:
        read = {each.class_ for each in Item._sa_registry.mappers if session.exec(select(each.class_)).all()}
    store.close()
    assert len(read) == len(kept)


def new_rows(connection: Connection, known: Collection[str]) -> dict[str, dict[str, object]]:
    """A row in each table that has none yet, after those that it refers to, by table; times apart."""
    new = {name for name in inspect(connection).get_table_names() if name not in known} - {"alembic_version"}
    there, made = MetaData(), {}
    there.reflect(connection, only=sorted(new))
    for table in there.sorted_tables:
        if table.name in new:
            connection.execute(table.insert().values(a_row(table, connection)))
            [row] = connection.execute(select(table)).mappings()
            made[table.name] = {
                column.name: row[column.name] for column in table.columns if not isinstance(column.type, DateTime)
            }
    return made


def a_row(table: Table, connection: Connection) -> dict[str, object]:
    """Any value for each column that must have one, and the parent's where it refers to another table."""
    values: dict[str, object] = {}
    for column in table.columns:
        if column.foreign_keys:
            parent = min(column.foreign_keys, key=str).column
            values[column.name] = connection.scalar(select(parent))
        elif not column.nullable and column.server_default is None and column is not table.autoincrement_column:
            model = Item.metadata.tables[table.name].columns.get(column.name)
            values[column.name] = any_value(
                model.type if model is not None and isinstance(model.type, Enum) else column.type
            )
    return values


def any_value(kind: TypeEngine[Any]) -> object:
    if isinstance(kind, Enum):
        return kind.enums[0]
    if isinstance(kind, DateTime):
        return datetime(2026, 1, 1, tzinfo=UTC)
    return {int: 1, float: 0.5, bool: False, dict: {}}.get(kind.python_type, "ask/1/a/0/0")


@pytest.mark.sqlite("on PostgreSQL copies are the team's own")
def test_a_file_is_copied_as_it_was_before_it_is_upgraded(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    settings, engine = settings_for(f"sqlite:///{file}")
    with engine.begin() as settings.attributes["connection"]:
        command.upgrade(settings, "0022")
        for statement in A_DECISION:
            settings.attributes["connection"].execute(text(statement))
    engine.dispose()
    for _ in range(2):
        store = Store(f"sqlite:///{file}")
        store.migrate()
        store.close()
    with closing(sqlite3.connect(tmp_path / "store.db.at-0022")) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [("0022",)]
        assert copy.execute("SELECT id, kind FROM decision").fetchall() == [(7, "UNDECIDED")]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["store.db", "store.db.at-0022"]


@pytest.mark.sqlite("as above")
def test_a_new_file_has_nothing_to_copy(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    store.close()
    assert [each.name for each in tmp_path.iterdir()] == ["store.db"]


def test_processes_that_start_at_once_build_one_new_database(database: str) -> None:
    script = "import sys; from loop.store.database import Store; Store(sys.argv[1]).migrate()"
    running = [subprocess.Popen([sys.executable, "-c", script, database], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=100)[1].decode() for process in running] == ["", ""]
