"""What verdicts on some rationales teach about others: a reader, and how much to believe each check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loop.checks import reader
from loop.checks.doubt import Doubt, Doubtful
from loop.checks.reader import Background, Reader
from loop.checks.risk import Reviewed, RiskModel, evidence, fit


@dataclass(frozen=True)
class Judged:
    """A rationale that people judged, with the evidence that the other checks gave.

    `weight` is 1 / its chance of being reviewed.
    """

    case: Doubtful
    evidence: Mapping[str, float]
    wrong: bool
    weight: float = 1.0


def learn(judged: Sequence[Judged], unjudged: Sequence[Doubtful], *, seed: int) -> tuple[RiskModel, Reader | None]:
    """A risk model, and a reader where verdicts suffice, which the model weighs by what it says of unseen cases."""
    cases, wrong = [each.case for each in judged], [each.wrong for each in judged]
    background = Background([*cases, *unjudged], seed=seed)
    read = reader.cross_fitted(cases, wrong, background, seed=seed)
    shares = [None] * len(judged) if read is None else map(float, read)
    seen = []
    for each, share in zip(judged, shares, strict=True):
        others = {name: value for name, value in each.evidence.items() if name != "reader"}
        own = {} if share is None else evidence([Doubt("reader", None, "", share)])
        seen.append(Reviewed(others | own, each.wrong, each.weight))
    return fit(seen), reader.fit(cases, wrong, background, seed=seed)
