"""A PostgreSQL server of one's own, for tests and benchmarks: Debian's, on a socket in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from sqlalchemy import create_engine, text

PACKAGE = "postgresql"
LIKE_A_TEAMS = "--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"
"""Text sorts as people sort it, and the clock is not UTC's: as on a team's server, and not as on SQLite."""


class NoServer(Exception):
    """There is no PostgreSQL to start; the text says what to do."""


def install() -> None:
    """Install Debian's server where it is missing and we may.

    Raises:
        NoServer: it is missing and we may not.
    """
    with FileLock(Path(tempfile.gettempdir()) / f"postgresql-{os.getuid()}.lock"):
        _install()


def _install() -> None:
    if _programs() is not None:
        return
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        raise NoServer("PostgreSQL is not here: install Debian's package postgresql")
    for command in ("update", f"install --yes --no-install-recommends {PACKAGE}"):
        subprocess.run(["apt-get", *command.split()], check=False, capture_output=True)
    if _programs() is None:
        raise NoServer("`apt-get install postgresql` did not bring a server")


@contextmanager
def cluster(*, durable: bool = True) -> Iterator[str]:
    """The address of an empty database, served while the block lasts; if not durable, it is lost with the server."""
    install()
    programs = _programs()
    assert programs is not None
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        make = [programs / "initdb", "--auth=trust", "--username=postgres", "--no-sync", *LIKE_A_TEAMS]
        _run([*make, "-D", folder / "data"], user)
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=200 -c timezone=Japan"
        if not durable:
            options += " -c fsync=off"
        control = [programs / "pg_ctl", "-D", folder / "data", "-w", "-t", "60"]
        _run([*control, "-l", folder / "log", "-o", options, "start"], user)
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            _run([*control, "-m", "immediate", "stop"], user)
    finally:
        shutil.rmtree(folder)


def new_database(address: str, name: str, options: str = "TEMPLATE template0") -> str:
    """The address of a new, empty database of the cluster."""
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" {options}'))
    engine.dispose()
    return address.replace("/postgres?", f"/{name}?")


def drop_database(address: str, name: str) -> None:
    """Remove a database of the cluster."""
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'DROP DATABASE "{name}"'))
    engine.dispose()


def _programs() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: float(file.parts[4]))
    return found[-1].parent if found else None


def _run(command: list[str | Path], user: str | None) -> None:
    subprocess.run(
        command, check=True, user=user, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120
    )
