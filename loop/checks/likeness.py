"""Does another sample have a step like this one, by the meaning that an embedder gives?

The embedding form of SelfCheckGPT (arXiv 2303.08896): the cosine of each step with the likest step of every other
sample, averaged over the samples.
"""

import numpy as np
from numpy.typing import NDArray

from loop.checks.doubt import Check, Doubt, Doubtful, Need, excerpt
from loop.config import ChecksConfig

WEIGHT = 0.1
LEAST_LIKE = 0.5
"""Mean cosine below which a step is doubted."""
MOST_STEPS = 32
MOST_SAMPLES = 4
LONGEST_STEP = 1_000


def lonely_step(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt at the step that is least like any step of the other samples, where it is unlike."""
    others = [_cut(each.steps) for each in doubtful.siblings if _cut(each.steps)][:MOST_SAMPLES]
    steps = _cut(doubtful.rationale.steps)
    if doubtful.embed is None or not steps or not others:
        return []
    vectors = doubtful.embed([*steps, *(step for some in others for step in some)])
    own, rest = vectors[: len(steps)], vectors[len(steps) :]
    ends = np.cumsum([len(some) for some in others])[:-1]
    like: NDArray[np.float32] = np.mean([(own @ part.T).max(axis=1) for part in np.split(rest, ends)], axis=0)
    step = int(like.argmin())
    if like[step] >= LEAST_LIKE:
        return []
    evidence = f"no step of the other samples is like “{excerpt(steps[step])}” (mean cosine {like[step]:.2f})"
    return [Doubt("likeness", step, evidence, WEIGHT)]


def _cut(steps: list[str]) -> list[str]:
    """What is compared of some steps; a blank one stands in its place."""
    return [step[:LONGEST_STEP] or " " for step in steps[:MOST_STEPS]]


CHECK = Check("likeness", lonely_step, milliseconds=200, needs=frozenset({Need.SAMPLES, Need.EMBEDDER}))
