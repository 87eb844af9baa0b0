"""What asking about an item is expected to use up of both budgets: the teacher's dollars and the reviewers' minutes."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from loop.config import BudgetConfig
from loop.records import Item


def review_chances(items: Sequence[Item], past: Iterable[tuple[str, bool]], audit_share: float) -> list[float]:
    """The chance that reviewers get to see the rationale of each item.

    `past` has the domain of each rationale so far, and whether it was risky enough for a review; one risky and one
    harmless rationale are added to each domain.
    """
    rows = list(past)
    seen, risky = Counter(domain for domain, _ in rows), Counter(domain for domain, was in rows if was)
    shares = {item.domain: (risky[item.domain] + 1) / (seen[item.domain] + 2) for item in items}
    return [audit_share + (1 - audit_share) * shares[item.domain] for item in items]


def relative_costs(usd: Sequence[float], minutes: Sequence[float], budget: BudgetConfig) -> NDArray[np.float64]:
    """The share of both budgets that each of n items uses up, divided by the mean over items; (n,).

    Where the config prices an hour of review, the share is that of all dollars. A budget of nothing buys nothing, so it
    is left out.
    """
    shares = np.zeros(len(usd))
    if budget.usd_per_review_hour is not None:
        shares += np.asarray(usd) + np.asarray(minutes) / 60 * budget.usd_per_review_hour
        return shares / shares.mean() if shares.any() else np.ones(len(usd))
    for used, limit in ((usd, budget.usd), (minutes, budget.minutes)):
        if limit > 0:
            shares += np.asarray(used, dtype=np.float64) / limit
    return shares / shares.mean() if shares.any() else np.ones(len(usd))
