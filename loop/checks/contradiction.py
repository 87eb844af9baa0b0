"""Does a step say of the item something else than the item says?

A clause of a step that repeats a clause of the item word by word, but with another number, without its `not`, or with
the opposite of one word. Looser ways of finding contradictions were measured and left out: see decision 0003.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from loop.answer import AnswerKind
from loop.checks.doubt import MOST_STEPS, Check, Doubt, Doubtful, excerpt
from loop.checks.words import OPPOSITES, word_set
from loop.config import ChecksConfig
from loop.plain import JAPANESE, plain
from loop.records import Item

WEIGHT = 0.15
MOST_DOUBTS = 10
LONGEST_STEP = 4_000
LONGEST_TEXT = 20_000
FEWEST_WORDS = 4
SAME_BEFORE = 2
"""Words that both clauses begin with."""
WORD = re.compile(rf"[0-9]+(?:[.,][0-9]+)*|[{JAPANESE}]|[^\W\d_]+|[.!?;:。、\n]")
ENDS = frozenset(".!?;:。、\n")
BETWEEN = word_set("and but so because since then if while when which that")
"""Words that begin another clause."""
LEADING = BETWEEN | word_set("now therefore thus we know given first also means of step start with says states")
ARTICLES = frozenset({"the", "a", "an"})
DENIALS = frozenset({"not", "never"})
Clause = tuple[str, ...]


def contradictions(doubtful: Doubtful, config: ChecksConfig) -> list[Doubt]:  # noqa: ARG001 - the checks' signature
    """A doubt for each clause of a step that turns a clause of the item round."""
    stated = _stated(doubtful.item, doubtful.task.answer)
    beginning: defaultdict[Clause, list[Clause]] = defaultdict(list)
    for clause in stated:
        beginning[clause[:SAME_BEFORE]].append(clause)
    found = [
        Doubt(
            "contradiction", at, f"“{excerpt(_written(said))}”, but the item says “{excerpt(_written(clause))}”", WEIGHT
        )
        for at, step in enumerate(doubtful.rationale.steps[:MOST_STEPS])
        for said in _clauses(step[:LONGEST_STEP])
        for clause in _turned(said, beginning)
    ]
    return found[:MOST_DOUBTS]


def _stated(item: Item, kind: AnswerKind) -> list[Clause]:
    """What the item holds for true: no question, and on label tasks without context not the line that is judged."""
    text = item.context or item.question
    if not item.context and kind is AnswerKind.LABEL:
        text = text.rpartition("\n")[0]
    return list(_clauses(text[:LONGEST_TEXT], asked=False))


def _clauses(text: str, *, asked: bool = True) -> Iterator[Clause]:
    """The clauses of a text without articles and leading words, those of questions only where `asked`."""
    folded = plain(text).casefold().replace("n't", " not").replace("cannot", "can not")
    clause: list[str] = []
    for word in [*WORD.findall(folded), "."]:
        if word in ENDS or word in BETWEEN:
            if len(clause) >= FEWEST_WORDS and (asked or word != "?"):
                yield tuple(clause)
            clause = []
        elif word not in ARTICLES and (clause or word not in LEADING):
            clause.append(word)


def _turned(said: Clause, beginning: Mapping[Clause, Sequence[Clause]]) -> Iterator[Clause]:
    """Clauses of the item that this one turns round; none where the item has it as it is."""
    alike = beginning.get(said[:SAME_BEFORE], ())
    if not any(clause[: len(said)] == said for clause in alike):
        yield from (clause for clause in alike if _is_turned(said, clause))


def _goes_on_alike(said: Clause, stated: Clause) -> bool:
    """Whether two clauses go on with the same words; what is said may leave off before, but not at once."""
    return len(said) > 0 and (said == stated or (len(said) > 1 and said == stated[: len(said)]))


def _is_turned(said: Clause, stated: Clause) -> bool:
    same = next((at for at, (one, other) in enumerate(zip(said, stated, strict=False)) if one != other), None)
    if same is None:
        return False
    one, other = said[same], stated[same]
    if one in DENIALS or other in DENIALS:
        return _goes_on_alike(said[same + (one in DENIALS) :], stated[same + (other in DENIALS) :])
    turned = other in OPPOSITES.get(one, ()) or (
        one[0].isdigit() and other[0].isdigit() and _value(one) != _value(other)
    )
    return turned and _goes_on_alike(said[same + 1 :], stated[same + 1 :])


def _written(clause: Clause) -> str:
    """The clause with blanks between words, none between Japanese characters."""
    return re.sub(rf"(?<=[{JAPANESE}]) (?=[{JAPANESE}0-9])|(?<=[0-9]) (?=[{JAPANESE}])", "", " ".join(clause))


def _value(number: str) -> str:
    """The number in one form: `15.00` is 15 and `06` is 6."""
    whole, _, part = number.replace(",", "").partition(".")
    return f"{whole.lstrip('0')}.{part.rstrip('0')}"


CHECK = Check("contradiction", contradictions, milliseconds=0.1)
