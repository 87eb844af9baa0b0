"""What reviewers together hold to be true, and how each of them errs (Dawid and Skene, 1979). Pure."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from review.agreement import Unit

ITERATIONS = 100
SEEN = 0.5
"""Items with a true label that a reviewer probably judged, for the reviewer's errors on that label to say anything."""


@dataclass(frozen=True)
class Consensus:
    """The likeliest truth of each item with its probability, and for each reviewer how often a truth is called what.

    Truth is only what the reviewers' agreement makes likely: where most of them err alike, so does this.
    """

    truth: Mapping[str, str]
    probability: Mapping[str, float]
    confusion: Mapping[str, Mapping[str, Mapping[str, float]]]
    """By reviewer, true label and given label; a truth that a reviewer was probably never shown is left out."""
    n: int
    """Items with two verdicts or more, on which it rests."""


def consensus(units: Sequence[Unit]) -> Consensus | None:
    """Dawid and Skene's model over what at least two reviewers judged; None where there is nothing to tell apart."""
    twice = [unit for unit in units if len(unit.said) > 1]
    if len({label for unit in twice for label in unit.said.values()}) < 2:
        return None
    import pandas as pd  # noqa: PLC0415 - as below
    from crowdkit.aggregation.classification.dawid_skene import DawidSkene  # noqa: PLC0415 - takes seconds to load

    rows = [(unit.item, who, label) for unit in twice for who, label in sorted(unit.said.items())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # crowd-kit 1.4 calls what pandas 3 deprecates
        model = DawidSkene(n_iter=ITERATIONS).fit(pd.DataFrame(rows, columns=["task", "worker", "label"]))
    assert model.errors_ is not None
    assert model.labels_ is not None
    assert model.probas_ is not None
    errors, likely = model.errors_, model.probas_  # a column a true label, a row a reviewer and a given label
    return Consensus(
        truth={str(item): str(label) for item, label in model.labels_.items()},
        probability={str(item): float(best) for item, best in likely.max(axis=1).items()},
        confusion={
            who: {
                str(true): {str(said): round(float(p), 9) for said, p in sorted(errors.loc[who][true].items())}
                for true in errors.columns
                if likely.loc[[unit.item for unit in twice if who in unit.said], true].sum() > SEEN
            }
            for who in sorted({who for unit in twice for who in unit.said})
        },
        n=len(twice),
    )
