"""Guards for every test: no network beyond loopback, no state outside a temporary folder."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_socket import _remove_restrictions, socket_allow_hosts

from benchmarks import postgres
from connectors import studio_server
from connectors.wiring import cache_folder
from tests import databases

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def only_loopback() -> Iterator[None]:
    """A test that reaches for the network fails."""
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)
    yield
    _remove_restrictions()


@pytest.fixture(autouse=True)
def no_real_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test can never reach a paid model."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LABEL_STUDIO_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[studio_server.Studio]:
    """A real Label Studio on a free port of loopback."""
    folder = tmp_path_factory.mktemp("studio") / "data"
    server = studio_server.start(folder, cache=cache_folder(), port=0, say=lambda _: None)
    yield server
    studio_server.stop(server)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a real PostgreSQL in a temporary folder. Where it must not be missing, it is not skipped."""
    try:
        postgres.install()
    except postgres.NoServer as missing:
        if os.environ.get("CI"):
            pytest.fail(f"the budget is not tested on PostgreSQL: {missing}")
        pytest.skip(str(missing))
    with postgres.cluster(durable=False) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        if databases.WANTED in os.environ:
            pytest.skip("SQLite: the same test runs on PostgreSQL")
        return f"sqlite:///{tmp_path / 'store.db'}"
    return postgres.new_database(request.getfixturevalue("postgresql"), uuid.uuid4().hex)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On PostgreSQL, tests about SQLite itself are left out, with their reason."""
    if databases.WANTED in os.environ:
        for each in items:
            if (about := each.get_closest_marker("sqlite")) is not None:
                each.add_marker(pytest.mark.skip(reason=f"SQLite: {about.args[0]}"))


@pytest.fixture(scope="session", autouse=True)
def server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where `PRECEPTOR_TEST_DATABASE` asks for it, stores of tests are on PostgreSQL (`tests/databases.py`)."""
    databases.note_stores()
    wanted = os.environ.get(databases.WANTED)
    if wanted is None:
        yield
        return
    with databases.on_postgresql(request.getfixturevalue("postgresql") if wanted == "postgresql" else wanted):
        yield


@pytest.fixture(autouse=True)
def own_databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test leaves open is closed, and its databases on PostgreSQL are dropped."""
    wanted = databases.WANTED in os.environ and "tmp_path" in request.fixturenames
    folder: Path | None = request.getfixturevalue("tmp_path") if wanted else None
    yield
    databases.close_stores()
    if folder is not None:
        databases.drop(folder)


@pytest.fixture
def shared_data() -> Path:
    """The folder with real questions and rationales, where it is present."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder with real data is not beside this checkout")
    return folder
