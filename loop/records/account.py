"""Who may use the pages of `preceptor serve`, and who did what there or on the command line."""

from datetime import datetime
from enum import StrEnum

from sqlmodel import Field, SQLModel


class Role(StrEnum):
    """What a person may do on the pages; who may more may also do what comes before."""

    VIEWER = "viewer"
    """See the pages."""
    LEAD = "lead"
    """Hand reviews out, take verdicts in, take back what a reviewer said."""
    OWNER = "owner"
    """See who has an account and who did what, and remove an account."""

    def may(self, needed: "Role") -> bool:
        """Whether this role includes another one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Account(SQLModel, table=True):
    """A person's account. `password` is an argon2id hash with its salt and parameters."""

    name: str = Field(primary_key=True)
    role: Role
    password: str
    added_at: datetime


class Visit(SQLModel, table=True):
    """Somebody who is logged in. The browser holds a random word, of which only the SHA-256 is stored."""

    digest: str = Field(primary_key=True)
    name: str = Field(foreign_key="account.name", index=True)
    ends_at: datetime


class Deed(SQLModel, table=True):
    """Something that somebody did. Rows are only ever added: the database refuses to change or delete one.

    `who` is an account's name, or that of the user of the operating system; empty where nobody knows. `way` is `page`
    or `command`. A deed is noted before it is done, and a second time, as `failed`, if that came to nothing.
    """

    id: int | None = Field(default=None, primary_key=True)
    at: datetime
    who: str
    way: str
    what: str
    about: str = ""
    failed: bool = False
