"""Accounts of people who use the pages: their names and passwords, and a note of what is done by whom."""

import getpass
import os
import pwd
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from loop.errors import PreceptorError, extra
from loop.records import Account, Deed, Role
from loop.store import accounts
from loop.store.database import Store

if TYPE_CHECKING:
    from argon2 import PasswordHasher

NAME = re.compile(r"[a-z0-9._@+-]{1,64}")
SHORTEST, LONGEST = 12, 1000
"""Characters of a password."""
TOKEN = "token"
"""What who shows the token is called, so nobody else is."""
COMMAND, PAGE = "command", "page"
"""The ways in which a deed is done."""


class Passwords:
    """Makes and checks hashes of passwords: argon2id with the parameters that argon2-cffi recommends (RFC 9106)."""

    @cached_property
    def _hasher(self) -> "PasswordHasher":
        with extra("users", "an account"):
            from argon2 import PasswordHasher  # noqa: PLC0415 - an extra

        return PasswordHasher()

    @cached_property
    def _nobodys(self) -> str:
        """A hash that no password fits, so that an unknown name takes as long as a known one."""
        return self._hasher.hash(os.urandom(32))

    def hashed(self, password: str) -> str:
        """The hash of a new password.

        Raises:
            PreceptorError: it is too short or too long.
        """
        examine(password)
        return self._hasher.hash(password)

    def fits(self, account: Account | None, password: str) -> bool:
        """Whether it is the account's password."""
        from argon2.exceptions import VerifyMismatchError  # noqa: PLC0415 - an extra, which `_hasher` looked for

        nobodys = self._nobodys
        try:
            self._hasher.verify(nobodys if account is None else account.password, password)
        except VerifyMismatchError:
            return False
        return account is not None


def examine(password: str) -> None:
    """Refuse a password that is too short or too long.

    Raises:
        PreceptorError: it is.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise PreceptorError(f"the password has {len(password)} characters; it needs {SHORTEST} to {LONGEST}")


def add(store: Store, name: str, role: Role, password: str) -> None:
    """Make an account.

    Raises:
        PreceptorError: the name is taken or cannot be one, or the password is too short or too long.
    """
    _examine_name(name)
    if name == TOKEN:
        raise PreceptorError(f"{TOKEN}: this is who shows the token; choose another name")
    hashed = Passwords().hashed(password)
    with noted(store, "users add", f"{name} as {role}"):
        accounts.add(store, name, role, hashed)


def change_password(store: Store, name: str, password: str, by: str | None = None) -> None:
    """Give an account another password; whoever is logged in with it no longer is. `by`: the account of who asks for it
    on a page.

    Raises:
        PreceptorError: there is no such account, or the password is too short or too long.
    """
    _examine_name(name)
    hashed = Passwords().hashed(password)
    with noted(store, "users password", name, by):
        accounts.change_password(store, name, hashed)


def change_role(store: Store, name: str, role: Role) -> None:
    """Give an account another role; who is logged in with it has it from the next page on.

    Raises:
        PreceptorError: there is no such account.
    """
    _examine_name(name)
    with noted(store, "users role", f"{name} as {role}"):
        accounts.change_role(store, name, role)


def remove(store: Store, name: str, by: str | None = None) -> None:
    """Remove an account; whoever is logged in with it no longer is. `by`: the account of who asks for it on a page.

    Raises:
        PreceptorError: there is no such account, or it is one's own.
    """
    _examine_name(name)
    if name == by:
        raise PreceptorError("nobody removes their own account on the page, so that an owner is left")
    with noted(store, "users remove", name, by):
        accounts.remove(store, name)


def _examine_name(name: str) -> None:
    """Refuse what is no name, before it is noted as one.

    Raises:
        PreceptorError: it is none.
    """
    if not NAME.fullmatch(name):
        raise PreceptorError(f"{name[:64]!r}: a name has 1 to 64 of the characters a-z 0-9 . _ @ + -")


@contextmanager
def noted(store: Store, what: str, about: str = "", by: str | None = None) -> Iterator[None]:
    """Note what the block does, and whether it failed. `by`: the account of who asks for it on a page."""
    who, way = (operator(), COMMAND) if by is None else (by, PAGE)
    with accounts.doing(store, who, way, what, about):
        yield


def operator() -> str:
    """Who calls a command, as the operating system names them."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name  # `getpass.getuser` believes LOGNAME and USER, which anybody sets
    except KeyError:
        return f"user {os.getuid()}"


def asked_password() -> str:
    """The password, typed twice unseen, or the first line of the standard input where that is no terminal.

    Raises:
        PreceptorError: the two differ.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise PreceptorError("the two passwords differ; nothing was changed")
    return password


def account_lines(store: Store) -> list[str]:
    """The accounts, a line each."""
    found = [
        f"{each.name}: {each.role}, since {each.added_at:%Y-%m-%d}, {visits or 'not'} logged in"
        for each, visits in accounts.every(store)
    ]
    return found or ["nobody has an account; `preceptor users add NAME --role owner` makes one"]


def deed_line(deed: Deed) -> str:
    """A deed in words."""
    about = f": {deed.about}" if deed.about else ""
    failed = " (failed)" if deed.failed else ""
    return f"{deed.at:%Y-%m-%d %H:%M:%S} {deed.who or 'somebody'} ({deed.way}) {deed.what}{about}{failed}"
