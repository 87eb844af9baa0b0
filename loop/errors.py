"""What can go wrong, as one tree.

PreceptorError
├── BadConfig            the config file is missing, unreadable or wrong
├── MissingExtra         a part is used whose packages are not installed
├── BadRow               a row of an input file cannot be used
│   └── ItemTooLong      the student would see only a part of it
├── StoreUnusable        the database cannot be opened or written
├── StageMoved           another process carried the round on meanwhile
├── PoolEmpty            no item may be asked any more
├── AlreadyWorking       another process holds the run
├── BudgetSpent          the next request does not fit under the limit
├── UnknownPrice         the teacher's price is not known, so nothing can be reserved
├── TeacherError
│   ├── TeacherBusy      429, 5xx, time-out or no connection: worth another attempt
│   └── TeacherRefused   wrong key, unknown model, bad request: not worth another attempt
│       └── ItemRefused  this one request is refused (content filter); others may pass
│           └── PromptTooLong  it is longer than the model reads
├── BoardError
│   ├── BoardDown        the review server does not answer
│   └── BoardRefused     the review server refuses the token or the request
├── ClusterDown          the cluster cannot be reached, or has no worker left
├── TrackerDown          the tracker does not take the figures of a round
└── StudentError         the student's model cannot be loaded, trained or saved
    ├── NothingToLearn   no example can be learned
    └── Diverged         the loss is no number any more
"""

from collections.abc import Iterator
from contextlib import contextmanager


class PreceptorError(Exception):
    """Something the user can act on; the text says what happened and the cure."""


class BadConfig(PreceptorError):
    """The config file is missing, unreadable or wrong."""


class MissingExtra(PreceptorError):
    """A part is used whose packages are not installed."""


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Imports of packages that come with an extra; `what` is the part that needs them.

    Raises:
        MissingExtra: one is not installed, and the extra is named.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(f'{what} needs the package {error.name}: pip install "preceptor[{name}]"') from error


class BadRow(PreceptorError):
    """A row of an input file cannot be used."""


class ItemTooLong(BadRow):
    """The student would see only a part of the item."""


class StoreUnusable(PreceptorError):
    """The database cannot be opened or written."""


class StageMoved(PreceptorError):
    """Another process carried the round on meanwhile."""


class PoolEmpty(PreceptorError):
    """No item may be asked any more."""


class AlreadyWorking(PreceptorError):
    """Another process holds the run."""


class BudgetSpent(PreceptorError):
    """The next request does not fit under the limit of `scope`: the run (empty), or a round or domain of it.

    `where` names the scope as people do: a round by its number.
    """

    def __init__(self, message: str, scope: str = "", where: str = "") -> None:
        super().__init__(message)
        self.scope = scope
        self.where = where or scope.replace("/", " ", 1)


class UnknownPrice(PreceptorError):
    """The teacher's price is not known, so nothing can be reserved."""


class TeacherError(PreceptorError):
    """The teacher did not give a reply."""


class TeacherBusy(TeacherError):
    """The attempt failed in a way that may pass; `retry_after` seconds when the server said so.

    `sent` is false only when the request certainly never reached the server, so that nothing can have been charged.
    `overloaded` is true where fewer requests at once would have passed.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, sent: bool = True, overloaded: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.sent = sent
        self.overloaded = overloaded


class TeacherDown(TeacherError):
    """The teacher gives no reply to anything; what it gave before is stored.

    `free` is true only where asking again and again until it is back costs nothing.
    """

    def __init__(self, message: str, *, free: bool = False) -> None:
        super().__init__(message)
        self.free = free


class TeacherRefused(TeacherError):
    """The endpoint refuses this request; trying again will not help."""


class ItemRefused(TeacherRefused):
    """The endpoint refuses this one request, by its length or its content; requests for other items may pass."""


class PromptTooLong(ItemRefused):
    """The request is longer than the model reads; a shorter one may pass."""


class BoardError(PreceptorError):
    """The review server cannot be used."""


class BoardDown(BoardError):
    """The review server does not answer."""


class BoardRefused(BoardError):
    """The review server refuses the token or the request."""


class ClusterDown(PreceptorError):
    """The cluster cannot be reached, has no room for the workers, or has none left."""


class TrackerDown(PreceptorError):
    """The tracker does not take the figures of a round."""


class StudentError(PreceptorError):
    """The student's model cannot be loaded, trained or saved."""


class NothingToLearn(StudentError):
    """No example can be learned."""


class Diverged(StudentError):
    """The loss is no number any more."""
