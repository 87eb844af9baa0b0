"""Does a judge, a second large model, find a step that does not hold?

It read the steps one after another and never the answer. What it says in favour of a step counts for nothing: a text
that talks a judge round has won no trust by that.
"""

from collections.abc import Mapping, Sequence

from loop.checks.doubt import Doubt, excerpt
from loop.records import Judgement, StepVerdict

WEIGHTS: Mapping[StepVerdict, float] = {StepVerdict.WRONG: 0.4, StepVerdict.UNSUPPORTED: 0.25}
"""Not measured. Models that are asked where reasoning goes wrong err often (arXiv 2311.08516), so before any verdict a
judge's word weighs no more than the student's dissent: enough for a person to look, no more."""
LONGEST_EVIDENCE = 200


def objections(judgements: Sequence[Judgement]) -> list[Doubt]:
    """A doubt for each step that the judge found wrong or unsupported."""
    return [
        Doubt("judge", each.step, _shown(each), WEIGHTS[each.verdict])
        for each in judgements
        if each.verdict is not None and each.verdict in WEIGHTS
    ]


def _shown(judgement: Judgement) -> str:
    """What the judge said: a model's text, so on one line, short, and without what nobody sees."""
    said = "".join(each for each in " ".join(judgement.evidence.split()) if each.isprintable())
    sure = "" if judgement.confidence is None else f" ({judgement.confidence:.0%} sure)"
    return f"the judge finds this step {judgement.verdict}{sure}: “{excerpt(said, LONGEST_EVIDENCE)}”"
