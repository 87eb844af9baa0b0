"""The models and the revisions agree, on SQLite and on PostgreSQL."""

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError
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
