"""The models and the revisions agree."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from loop.records import Item
from loop.store.database import MIGRATIONS, Store


def test_the_revisions_build_the_models(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = Store(url)
    store.migrate()
    store.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), Item.metadata)
    engine.dispose()
    assert difference == []


def test_there_is_one_head() -> None:
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS))
    assert len(ScriptDirectory.from_config(settings).get_heads()) == 1


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    store.migrate()
    store.close()
