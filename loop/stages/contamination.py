"""Which pool items read like holdout items, looked up before anything is asked."""

from collections.abc import Iterable
from datetime import UTC, datetime

from loop.config import QueryConfig
from loop.records import Contamination, Item, Split
from loop.resemblance import alike
from loop.store import contamination, items
from loop.store.database import Store


def look(store: Store, config: QueryConfig) -> Contamination:
    """The look at the pool and the holdout as they are; made, and stored, where nobody looked yet."""
    known = contamination.look(store, config.holdout_similarity)
    if known is not None:
        return known
    pool, holdout = (items.of_split(store, split) for split in (Split.POOL, Split.HOLDOUT))
    found = alike(_texts(pool), _texts(holdout), config.holdout_similarity)
    made = Contamination(
        digest=contamination.digest(store, config.holdout_similarity),
        similarity=config.holdout_similarity,
        pool=len(pool),
        holdout=len(holdout),
        pairs={key: list(pair) for key, pair in found.items()},
        looked_at=datetime.now(UTC),
    )
    contamination.keep(store, made)
    return made


def _texts(some: Iterable[Item]) -> dict[str, tuple[str, str]]:
    """All that each item says, and what it asks."""
    return {item.key: (item.text, "\n".join([item.question, *item.choices])) for item in some}
