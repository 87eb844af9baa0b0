"""Does the text speak to whoever grades it, or hide something from them?

A rationale explains an item. One that asks to be accepted, that holds markup or code to be run, or characters that
nobody sees, is for people to look at, whatever else is said of it.
"""

import re

from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful
from loop.config import ChecksConfig

WEIGHT = 0.98
"""Heavier than anything that such a text could hide from the other checks."""
MOST_DOUBTS = 10
LONGEST = 2_000_000
"""Characters of a rationale that are searched; a longer one is doubted for that."""
HIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]"
)
"""Control characters, zero-width ones, and those that turn the direction of writing."""
MARKUP = re.compile(
    r"<\s{0,5}/?\s{0,5}(?:script|iframe|object|embed|style|svg|img|link|meta|form|body|html|system|assistant|user|im_start)\b"
    r"|<\|[a-z_]{2,20}\|>|\bjavascript\s{0,3}:|\bon(?:error|load|click)\s{0,3}=",
    re.IGNORECASE,
)
ADDRESSED = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^.\n]{0,30}\b(?:above|previous|prior|earlier|instructions?|prompts?)\b"
    r"|\b(?:mark|grade|rate|label|score|judge|flag|treat|accept|approve)\b\s(?:this|it|me|my|the\s(?:answer|rationale|"
    r"explanation|solution|response|step))\b[^.\n]{0,30}\b(?:correct|right|ok|okay|accept(?:ed|able)?|valid|true|approved|"
    r"pass(?:ed)?)\b"
    r"|\b(?:as\s(?:a|an|the)|dear|hey|attention|note\sto)\s{1,3}(?:the\s)?(?:grader|reviewer|judge|annotator|verifier|"
    r"checker|evaluator)s?\b"
    r"|\byou\s(?:must|should|have\sto|are\sto|will)\s(?:accept|approve|mark|say|answer|output|reply|respond)\b"
    r"|\b(?:system|developer)\s(?:prompt|message|instruction)s?\b"
    r"|(?:上記|以前|これまで)の?(?:指示|命令|ルール)を?(?:すべて)?(?:無視|忘れ)|(?:正解|正しい|合格)(?:と|に)(?:マーク|採点|判定|評価)"
    r"|(?:採点者|審査員|レビュアー|評価者)(?:へ|の方|に告ぐ|さん)",
    re.IGNORECASE,
)
KINDS = (
    ("holds characters that nobody sees", HIDDEN),
    ("holds markup or code", MARKUP),
    ("speaks to whoever grades it", ADDRESSED),
)


def instructions(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each step that speaks to its graders or hides something, and for a text too long to be checked."""
    steps, stated = doubtful.rationale.steps, doubtful.rationale.stated
    found = [
        Doubt("instructions", at, f"this step {says}: {_shown(step, match.span())}", WEIGHT, match.span())
        for at, step in enumerate(steps)
        for says, pattern in KINDS
        if (match := pattern.search(step, 0, LONGEST))
    ][:MOST_DOUBTS]
    found += [
        Doubt("instructions", None, f"the answer {says}: {_shown(stated, match.span())}", WEIGHT)
        for says, pattern in KINDS
        if (match := pattern.search(stated, 0, LONGEST))
    ]
    if len(steps) > MOST_STEPS or sum(map(len, steps)) > LONGEST or len(stated) > LONGEST:
        size = f"{len(steps)} steps and {sum(map(len, steps))} characters are more than can be checked"
        found.append(Doubt("instructions", None, size, WEIGHT))
    return found


def _shown(text: str, span: tuple[int, int]) -> str:
    """What was found, with a little around it, and what cannot be seen spelled out."""
    start, end = max(0, span[0] - 10), min(span[1] + 10, span[0] + 60)
    return "“" + text[start:end].encode("unicode_escape").decode("ascii")[:150] + "”"


CHECK = Check("instructions", instructions, milliseconds=0.1)
