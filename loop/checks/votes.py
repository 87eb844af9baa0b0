"""Which answer several voters make likely when some of them are right more often than others.

The one-coin model of Dawid and Skene (Applied Statistics 28, 1979): each voter is right with a probability of its own
and otherwise picks one of the other answers evenly. The probabilities are found by expectation maximisation, without
any verdict.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logsumexp

Votes = Mapping[int, str | None]
"""What each voter answered on one item, by the voter's number; None where it cannot be read."""

TURNS = 30
FEWEST_ANSWERS = 4
"""The wrong answers are taken to be at least so many: where voters are free to err, they seldom err alike."""
START, LEAST, MOST = 0.7, 0.02, 0.99


def reliabilities(items: Sequence[Votes]) -> dict[int, float]:
    """How often each voter is right, (0, 1), found from how the voters agree; 0.7 is believed of one never heard."""
    right = {voter: START for votes in items for voter in votes}
    for _ in range(TURNS):
        heard: defaultdict[int, float] = defaultdict(lambda: 2 / START)
        agreed: defaultdict[int, float] = defaultdict(lambda: 2.0)
        for votes in items:
            likely = posterior(votes, right)
            for voter, answer in votes.items():
                heard[voter] += 1
                agreed[voter] += likely.get(answer, 0.0)
        right = {voter: float(np.clip(agreed[voter] / heard[voter], LEAST, MOST)) for voter in right}
    return right


def posterior(votes: Votes, right: Mapping[int, float]) -> dict[str | None, float]:
    """The probability of each answer that was given; what is missing to 1 is that of none of them."""
    given = sorted({answer for answer in votes.values() if answer is not None})
    others = max(FEWEST_ANSWERS, len(given))
    missed = {voter: np.log((1 - right.get(voter, START)) / others) for voter in votes}
    nobody = sum(missed.values())
    gains = [
        sum(np.log(right.get(voter, START)) - missed[voter] for voter, answer in votes.items() if answer == each)
        for each in given
    ]
    odds = np.array([nobody + np.log(0.5), *(nobody + gain for gain in gains)])
    return dict(zip(given, map(float, np.exp(odds - logsumexp(odds))[1:]), strict=True))
