"""Which pool and seed items read like holdout items, looked up before anything is asked or learned."""

from collections.abc import Iterable, Set
from datetime import UTC, datetime

from loop.config import QueryConfig
from loop.records import Contamination, Item, Split
from loop.resemblance import alike
from loop.store import contamination, items
from loop.store.database import Store


def look(store: Store, config: QueryConfig, split: Split = Split.POOL) -> Contamination:
    """The look at a split and the holdout as they are; made, and stored, where nobody looked yet."""
    known = contamination.look(store, config.holdout_similarity, split)
    if known is not None:
        return known
    looked_at, holdout = (items.of_split(store, each) for each in (split, Split.HOLDOUT))
    found = alike(_texts(looked_at), _texts(holdout), config.holdout_similarity)
    made = Contamination(
        digest=contamination.digest(config.holdout_similarity, looked_at, holdout),
        similarity=config.holdout_similarity,
        pool=len(looked_at),
        holdout=len(holdout),
        pairs={key: list(pair) for key, pair in found.items()},
        looked_at=datetime.now(UTC),
    )
    contamination.keep(store, made)
    return made


def seeds_left_out(store: Store, config: QueryConfig) -> Set[str]:
    """The keys of the seed items that are neither learned nor shown, because they read like holdout items."""
    if config.allow_holdout_duplicates or not items.of_split(store, Split.SEED):
        return set()
    return look(store, config, Split.SEED).pairs.keys()


def _texts(some: Iterable[Item]) -> dict[str, tuple[str, str]]:
    """All that each item says, and what it asks."""
    return {item.key: (item.text, "\n".join([item.question, *item.choices])) for item in some}
