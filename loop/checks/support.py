"""Do the teacher's other samples say what a step says?

SelfCheckGPT's n-gram idea (arXiv 2303.08896) for each step: its words, and pairs of words, of which neither the item
nor another sample has any. It names the step to look at; of the risk it says little that the samples' answers do not.
"""

from collections.abc import Sequence, Set
from itertools import pairwise

from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful, Need, excerpt
from loop.checks.words import pieces
from loop.config import ChecksConfig

WEIGHT = 0.1
LEAST_NEW = 0.7
"""Share of a step's pairs of words that nobody else has, from which on it is doubted."""
FEWEST_WORDS = 4
MOST_SAMPLES = 10
LONGEST_STEP = 4_000
LONGEST_TEXT = 20_000


def unsupported_step(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt at the step that item and other samples support least, where that is little."""
    samples = ["\n".join(each.steps) for each in doubtful.siblings if each.steps][:MOST_SAMPLES]
    if not samples:
        return []
    texts = [doubtful.item.text, *samples]
    told = [pieces(text[:LONGEST_TEXT]) for text in texts]
    words = {word for text in told for word in text}
    pairs = {pair for text in told for pair in pairwise(text)}
    steps = [pieces(step[:LONGEST_STEP]) for step in doubtful.rationale.steps[:MOST_STEPS]]
    new = [_new(step, words, pairs) for step in steps]
    step = max(range(len(steps)), key=lambda at: sum(new[at]), default=0)
    if not steps or new[step][1] < LEAST_NEW:
        return []
    unheard = [word for word in dict.fromkeys(steps[step]) if word not in words]
    evidence = f"{new[step][1]:.0%} of its pairs of words stand in no other sample and not in the item"
    evidence += f", nor do the words “{excerpt(' '.join(unheard))}”" if unheard else ""
    return [Doubt("support", step, evidence, WEIGHT)]


def _new(step: Sequence[str], words: Set[str], pairs: Set[tuple[str, str]]) -> tuple[float, float]:
    """Shares of a step's words and pairs of words that stand nowhere else; short steps say too little."""
    if len(step) < FEWEST_WORDS:
        return 0.0, 0.0
    both = list(pairwise(step))
    return sum(word not in words for word in step) / len(step), sum(pair not in pairs for pair in both) / len(both)


CHECK = Check("support", unsupported_step, milliseconds=0.2, needs=frozenset({Need.SAMPLES}))
