"""Does the text hold a mark for something hidden that stands for nothing in its item?

Where texts are redacted, a teacher may make up a mark, or take one from a worked item. Nothing can be put back in its
place, so the rationale is for people to look at.
"""

import re

from loop.checks.doubt import Doubt, Doubtful
from loop.redaction import PLACEHOLDER

MARK = re.compile(rf"{PLACEHOLDER.pattern}|\b(?:EMAIL|PHONE|IBAN|CARD|IP|NAME|TEXT)_\d{{1,6}}\b")
"""A mark, also one that lost its brackets."""
WEIGHT = 0.98
"""Not measured: as of other texts that nobody could have meant."""
MOST_DOUBTS = 10


def placeholders(doubtful: Doubtful) -> list[Doubt]:
    """A doubt for each mark in a step or the answer that the item itself does not hold."""
    texts = [*enumerate(doubtful.rationale.steps), (None, doubtful.rationale.stated)]
    return [
        Doubt(
            "placeholders",
            at,
            f"{found[0]} stands for nothing in this item",
            WEIGHT,
            None if at is None else found.span(),
        )
        for at, text in texts
        for found in MARK.finditer(text)
        if found[0] not in doubtful.item.text
    ][:MOST_DOUBTS]
