"""Who was told what of a round, so that nobody is told twice."""

from loop.records import Notice, Round
from loop.store.database import Store, now


def take(store: Store, current: Round, event: str) -> bool:
    """Note that people are told of an event of a round; False where they were before."""
    assert current.id is not None
    with store.writing() as session:
        if session.get(Notice, (current.id, event)) is not None:
            return False
        session.add(Notice(round_id=current.id, event=event, told_at=now()))
    return True
