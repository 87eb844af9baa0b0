"""What verdicts on some rationales teach about others: a reader, where to look first, which checks to believe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loop.checks import first_error, reader
from loop.checks.doubt import Doubt, Doubtful
from loop.checks.first_error import FirstError
from loop.checks.reader import Background, Reader
from loop.checks.risk import PRIOR, Reviewed, RiskModel, evidence, fit


@dataclass(frozen=True)
class Judged:
    """A rationale that people judged, with the evidence that the checks gave when it was new.

    `weight` is 1 / its chance of being reviewed. `first_error` counts only where people judged the `steps` too.
    """

    case: Doubtful
    evidence: Mapping[str, float]
    wrong: bool
    weight: float = 1.0
    steps: bool = False
    first_error: int | None = None


@dataclass(frozen=True)
class Learned:
    """What there is to learn; a part is None where verdicts are too few."""

    risk: RiskModel = PRIOR
    reader: Reader | None = None
    first_error: FirstError | None = None

    def knows(self, case: Doubtful) -> Doubtful:
        """The case with what was learned, for the checks to use."""
        return replace(case, reader=self.reader, first_error=self.first_error)


def learn(judged: Sequence[Judged], unjudged: Sequence[Doubtful], *, seed: int) -> Learned:
    """Learn from verdicts; what the risk is told of a judged case comes from models that did not see its verdict."""
    cases, wrong = [each.case for each in judged], [each.wrong for each in judged]
    background = Background([*cases, *unjudged], seed=seed)
    read = reader.cross_fitted(cases, wrong, background, seed=seed)
    marked = [at for at, each in enumerate(judged) if each.steps]
    looking = first_error.fit([cases[at] for at in marked], [judged[at].first_error for at in marked], seed=seed)
    told: list[list[Doubt]] = [[] for _ in judged]
    for at, share in enumerate(() if read is None else read):
        told[at].append(Doubt("reader", None, "", float(share)))
    for at, share in zip(marked, () if looking is None else looking.unseen_wrong, strict=False):
        told[at].append(Doubt("first_error", None, "", share))
    seen = [
        Reviewed(_without(each.evidence) | evidence(doubts), each.wrong, each.weight)
        for each, doubts in zip(judged, told, strict=True)
    ]
    return Learned(fit(seen), reader.fit(cases, wrong, background, seed=seed), looking)


def _without(found: Mapping[str, float]) -> dict[str, float]:
    """The evidence of the checks that learn nothing."""
    return {name: value for name, value in found.items() if name not in ("reader", "first_error")}
