"""Does the text speak to whoever grades it, or hide something from them?

A rationale explains an item. One that asks to be accepted, that holds markup or code to be run, or characters that
nobody sees, is for people to look at, whatever else is said of it. So is one about an item that does: the teacher and
the judge have read it.
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
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    r"\u2066-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
"""Control characters, those that take no room, tags, and those that turn the direction of writing."""
MARKUP = re.compile(
    r"<\s{0,5}/?\s{0,5}(?:script|iframe|object|embed|style|svg|img|link|meta|form|body|html)\b|<!--"
    r"|!\[[^\]\n]{0,200}\]\(|\b(?:javascript|vbscript)\s{0,3}:|\bdata:text/html|\bon(?:error|load|click)\s{0,3}=",
    re.IGNORECASE,
)
TURNS = re.compile(
    r"<\s{0,5}/?\s{0,5}(?:system|assistant|user|im_start)\b|<[|\uff5c][^|<>\n\uff5c]{1,30}[|\uff5c]>|</?s>"
    r"|<(?:bos|eos|pad|unk|mask)>|<(?:start|end)_of_turn>|<extra_id_\d|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)
"""What tells the turns of a chat apart, or ends a text, to some model."""
FORGED = re.compile(
    r"[\"'](?:verdict|decision|confidence|risk|flags?|grade)[\"']\s{0,3}:"
    r"|\b(?:step_under_review|accepted_steps)\b"
    r"|\bverdict\b\s{0,3}(?:[:=]|is|of|should\sbe|must\sbe)\s{0,3}[\"'`]?(?:ok|accept|correct|gold|right)\b",
    re.IGNORECASE,
)
"""What only a judge's reply, or the message to it, is made of."""
ADDRESSED = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^.\n]{0,30}\b(?:above|previous|prior|earlier|instructions?|prompts?|rules?)\b"
    r"|\b(?:mark|grade|rate|label|score|judge|flag|treat|accept|approve)\b\s(?:this|it|me|my|the\s(?:answer|rationale|"
    r"explanation|solution|response|step))\b[^.\n]{0,30}\b(?:correct|right|ok|okay|accept(?:ed|able)?|valid|true|approved|"
    r"pass(?:ed)?)\b"
    r"|\b(?:as\s(?:a|an|the)|dear|hey|attention|note\sto)\s{1,3}(?:the\s)?(?:grader|reviewer|judge|annotator|verifier|"
    r"checker|evaluator)s?\b"
    r"|\byou\s(?:must|should|have\sto|are\sto|will)\s(?:accept|approve|mark|say|answer|output|reply|respond)\b"
    r"|\b(?:system|developer)\s(?:prompt|message|instruction|override)s?\b|\bnew\sinstructions?\s{0,3}:"
    r"|\b(?:reply|respond|answer|output|say)\s(?:only|nothing\sbut|with)\b[^.\n]{0,30}\b(?:ok|correct|accept|approved|json)\b"
    r"|\b(?:verified|approved|reviewed|validated|confirmed)\sby\s(?:a|an|the|two|three|our)?\s?(?:human|expert|reviewer|"
    r"judge|grader)s?\b"
    r"|(?:上記|以前|これまで)の?(?:指示|命令|ルール)を?(?:すべて)?(?:無視|忘れ)|(?:正解|正しい|合格)(?:と|に)(?:マーク|採点|判定|評価)"
    r"|(?:採点者|審査員|レビュアー|評価者)(?:へ|の方|に告ぐ|さん)",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(
    r"\b(?:ignore[zr]?|oublie[zr]?)\b[^.\n]{0,40}\b(?:consignes?|précèd\w{0,4}|précédent\w{0,3}|règles?)\b"
    r"|\b(?:ignorier|vergiss|missacht)\w{0,4}\b[^.\n]{0,40}\b(?:anweisung\w{0,3}|regeln?|vorherig\w{0,3}|obig\w{0,3})\b"
    r"|\b(?:ignor|olvid|esqueç|desconsider)\w{0,4}\b[^.\n]{0,40}\b(?:instruc\w{0,6}|instruç\w{0,6}|anterior\w{0,3}|regl?as?|regras?)\b"
    r"|\b(?:ignora|dimentica)\w{0,3}\b[^.\n]{0,40}\b(?:istruzion\w{0,2}|precedent\w{0,2}|regol\w{0,2})\b"
    r"|(?:игнориру|забуд)\w{0,5}\b[^.\n]{0,40}(?:инструкци|правил|предыдущ|указани)"
    r"|(?:忽略|无视|無視|忘记|忘記)[^。\n]{0,12}(?:指令|指示|规则|規則|提示)|(?:判定|标记|標記|评|評)(?:为|為)(?:正确|正確|通过|通過)"
    r"|(?:지시|명령|규칙)[^.\n]{0,12}(?:무시|잊)|(?:تجاهل|انس)[^.\n]{0,40}(?:التعليمات|الأوامر|القواعد|سبق)",
    re.IGNORECASE,
)
"""The same in French, German, Spanish, Portuguese, Italian, Russian, Chinese, Korean and Arabic."""
OF_ITEMS = (
    ("holds marks of a model's turns", TURNS),
    ("holds a verdict of its own", FORGED),
    ("speaks to whoever grades it", ADDRESSED),
    ("speaks to whoever grades it", ELSEWHERE),
)
"""What no item is about. Markup and unseen characters stand in many an honest one."""
KINDS = (("holds characters that nobody sees", HIDDEN), ("holds markup or code", MARKUP), *OF_ITEMS)


def instructions(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each step, answer or item that speaks to its graders or hides something, or is too long to check."""
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
    asked = "\n".join((doubtful.item.question, doubtful.item.context, *doubtful.item.choices))
    found += [
        Doubt("instructions", None, f"the item {says}: {_shown(asked, match.span())}", WEIGHT)
        for says, pattern in OF_ITEMS
        if (match := pattern.search(asked, 0, LONGEST))
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
