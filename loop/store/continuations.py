"""Corrected prefixes in the store, what the teacher went on to, and why it did not."""

from collections.abc import Mapping, Sequence

from sqlmodel import Session, col, select

from loop.config import EndpointConfig
from loop.records import Author, Flag, Rationale, Reply
from loop.store.asking import RoundAskBook
from loop.store.database import Store

CHECK = "continuation"
"""Raises the flag that tells reviewers why a prefix comes back to them as it was."""


class ContinueBook(RoundAskBook):
    """The book of a round's continuations (`loop.ports.AskBook`); at most one prefix of an item is open."""

    def __init__(
        self, store: Store, run: str, round_id: int, prefixes: Mapping[str, Rationale], config: EndpointConfig
    ) -> None:
        super().__init__(store, run, round_id, config)
        self._prefixes = prefixes

    def give_up(self, item_key: str, problem: str) -> None:
        """Note with the prefix why nothing follows it."""
        hand_back(self._store, self._prefixes[item_key], problem)


def keep_prefix(store: Store, original: Rationale, steps: Sequence[str], problem: str | None) -> None:
    """Store the steps that a reviewer put right; with a problem they go back at once."""
    with store.writing() as session:
        prefix = Rationale(
            item_key=original.item_key,
            round_id=original.round_id,
            author=Author.HUMAN,
            steps=list(steps),
            version=original.version + 1,
            supersedes=original.id,
        )
        session.add(prefix)
        session.flush()
        if problem is not None:
            session.add(_flag(prefix, problem))


def hand_back(store: Store, prefix: Rationale, problem: str) -> None:
    """Note once why the teacher did not go on, for the reviewer who gets the prefix back."""
    with store.writing() as session:
        if not _flagged(session, [prefix]):
            session.add(_flag(prefix, problem))


def open_prefixes(store: Store, rows: Sequence[Rationale]) -> tuple[list[Rationale], list[tuple[Rationale, str]]]:
    """Of a round's rationales the prefixes for which the teacher is still to be asked, and those whose reply cannot be
    read, each with the problem.
    """
    superseded = {each.supersedes for each in rows}
    prefixes = [each for each in rows if each.is_prefix and each.id not in superseded]
    with store.reading() as session:
        back = _flagged(session, prefixes)
        keys = [each.item_key for each in prefixes]
        replies = session.exec(select(Reply).where(col(Reply.item_key).in_(keys), Reply.version > 1)).all()
    problems = {(each.round_id, each.item_key, each.version): each.problem or "" for each in replies}
    left = [(each, (each.round_id, each.item_key, each.version + 1)) for each in prefixes if each.id not in back]
    return (
        [each for each, key in left if key not in problems],
        [(each, problems[key]) for each, key in left if key in problems],
    )


def handed_back(store: Store, rows: Sequence[Rationale]) -> list[Rationale]:
    """The prefixes among a round's rationales that go back to a reviewer."""
    with store.reading() as session:
        back = _flagged(session, [each for each in rows if each.is_prefix])
    return [each for each in rows if each.id in back]


def _flagged(session: Session, prefixes: Sequence[Rationale]) -> set[int]:
    ids = [each.id for each in prefixes]
    query = select(Flag.rationale_id).where(Flag.check_name == CHECK, col(Flag.rationale_id).in_(ids))
    return set(session.exec(query))


def _flag(prefix: Rationale, problem: str) -> Flag:
    assert prefix.id is not None
    return Flag(rationale_id=prefix.id, check_name=CHECK, evidence=f"the teacher did not go on: {problem}", weight=1.0)
