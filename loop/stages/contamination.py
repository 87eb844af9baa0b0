"""Which pool and seed items read like holdout items, looked up before anything is asked or learned."""

from collections.abc import Set
from datetime import UTC, datetime

from loop.config import QueryConfig
from loop.records import Contamination, Split
from loop.resemblance import alike
from loop.store import contamination, items
from loop.store.database import Store


def look(store: Store, config: QueryConfig, split: Split = Split.POOL) -> Contamination:
    """The look at a split and the holdout as they are, which is stored; only what came since the last one is looked at.

    All is looked at again where the holdout has grown. The split is streamed; the holdout is held in memory.
    """
    similarity = config.holdout_similarity
    known = contamination.look(store, similarity, split)
    ours, held = (contamination.newest(store, each) for each in (split, Split.HOLDOUT))
    if known is not None and max(ours, held) <= known.through:
        return known
    further = known is not None and held <= known.through
    before = known if further else None
    holdout = dict(items.texts(store, Split.HOLDOUT))
    new = items.texts(store, split, after=-1 if before is None else before.through)
    found = alike(new, holdout, similarity)
    made = Contamination(
        digest=contamination.digest(split, similarity),
        similarity=similarity,
        through=max(ours, held),
        pool=items.count(store).get(split, 0),
        holdout=len(holdout),
        pairs={**({} if before is None else before.pairs), **{key: list(pair) for key, pair in found.items()}},
        looked_at=datetime.now(UTC),
    )
    contamination.keep(store, made)
    return made


def seeds_left_out(store: Store, config: QueryConfig) -> Set[str]:
    """The keys of the seed items that are neither learned nor shown, because they read like holdout items."""
    if config.allow_holdout_duplicates or not items.of_split(store, Split.SEED):
        return set()
    return look(store, config, Split.SEED).pairs.keys()
