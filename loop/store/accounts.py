"""Accounts, who is logged in, and who did what."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlmodel import col, delete, select

from loop.errors import PreceptorError
from loop.records import Account, Deed, Role, Visit
from loop.store.database import Store, now


def add(store: Store, name: str, role: Role, password: str) -> None:
    """A new account; `password` is its hash.

    Raises:
        PreceptorError: there is one of this name.
    """
    with store.writing() as session:
        if session.get(Account, name) is not None:
            raise PreceptorError(f"{name} has an account already; `preceptor users remove {name}` removes it")
        session.add(Account(name=name, role=role, password=password, added_at=now()))


def change_password(store: Store, name: str, password: str) -> None:
    """Another hash for an account, which ends all its visits.

    Raises:
        PreceptorError: there is no such account.
    """
    with store.writing() as session:
        row = _there(session.get(Account, name, with_for_update=True), name)
        row.password = password
        session.add(row)
        session.exec(delete(Visit).where(col(Visit.name) == name))


def change_role(store: Store, name: str, role: Role) -> None:
    """Another role for an account, which counts from its next request on.

    Raises:
        PreceptorError: there is no such account.
    """
    with store.writing() as session:
        row = _there(session.get(Account, name, with_for_update=True), name)
        row.role = role
        session.add(row)


def remove(store: Store, name: str) -> None:
    """Remove an account, which ends all its visits.

    Raises:
        PreceptorError: there is no such account.
    """
    with store.writing() as session:
        row = _there(session.get(Account, name, with_for_update=True), name)
        session.exec(delete(Visit).where(col(Visit.name) == name))
        session.delete(row)


def _there(row: Account | None, name: str) -> Account:
    if row is None:
        raise PreceptorError(f"{name}: no such account; `preceptor users list` names them")
    return row


def every(store: Store) -> list[tuple[Account, int]]:
    """All accounts by name, each with how often it is logged in."""
    with store.reading() as session:
        visits = Counter(session.exec(select(Visit.name).where(col(Visit.ends_at) > now())))
        return [(each, visits[each.name]) for each in session.exec(select(Account).order_by(col(Account.name)))]


def are_there(store: Store) -> bool:
    """Whether anybody has an account."""
    with store.reading() as session:
        return session.exec(select(Account.name).limit(1)).first() is not None


def get(store: Store, name: str) -> Account | None:
    """The account of this name."""
    with store.reading() as session:
        return session.get(Account, name)


def let_in(store: Store, account: Account, digest: str, hours: float) -> bool:
    """Note a visit, unless the account was removed or got another password meanwhile; those that ended are deleted."""
    with store.writing() as session:
        session.exec(delete(Visit).where(col(Visit.ends_at) <= now()))
        # on PostgreSQL whoever changes it at the moment is waited for, or waits
        still = session.get(Account, account.name, with_for_update=True)
        if still is None or still.password != account.password:
            return False
        session.add(Visit(digest=digest, name=account.name, ends_at=now() + timedelta(hours=hours)))
        return True


def let_out(store: Store, digest: str) -> None:
    """End a visit, if there is one."""
    with store.writing() as session:
        session.exec(delete(Visit).where(col(Visit.digest) == digest))


def visiting(store: Store, digest: str, at: datetime) -> Account | None:
    """Whose visit this is, unless it ended before that moment."""
    query = select(Account).join(Visit).where(Visit.digest == digest, col(Visit.ends_at) > at)
    with store.reading() as session:
        return session.exec(query).first()


def note(store: Store, deed: Deed) -> None:
    """Add a deed."""
    with store.writing() as session:
        session.add(deed)


@contextmanager
def doing(store: Store, who: str, way: str, what: str, about: str = "") -> Iterator[None]:
    """Note a deed before the block does it, and that it failed where the block raises an error of ours."""
    note(store, Deed(at=now(), who=who, way=way, what=what, about=about))
    try:
        yield
    except PreceptorError:
        note(store, Deed(at=now(), who=who, way=way, what=what, about=about, failed=True))
        raise


def deeds(store: Store, newest: int | None) -> list[Deed]:
    """The newest so many deeds, or all; the newest first."""
    with store.reading() as session:
        return list(session.exec(select(Deed).order_by(col(Deed.id).desc()).limit(newest)))
