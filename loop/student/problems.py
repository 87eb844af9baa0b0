"""What can be wrong with an example that a student is to learn; it is counted on the card and said, never fatal."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from loop.answer import AnswerKind, spans_of
from loop.config import TaskConfig
from loop.errors import NothingToLearn
from loop.ports import Example

NAMED = 5
"""Keys that are named where many examples have the same problem."""


class Problem(StrEnum):
    """What is wrong, as it is said of some examples."""

    UNKNOWN = "have an answer that the task does not allow, and are left out"
    CROWDED = "are left out: what is to be written does not fit into the model beside the question"
    EMPTY = "have no steps, and are left out: only rationales are learned (student.rationale_weight = 1, or one target)"
    OVERLAPPING = "have marks that overlap, of which the first and longest is learned"
    SILENT = "have no steps, and teach the answer alone"
    CUT = "are longer than the student reads (student.max_prompt_tokens), and are cut"
    UNPAIRED = "teach no preference: what was corrected or rejected does not fit into the model beside the question"
    LONG = "have a longer rationale than the student may write (student.max_new_tokens), so it never gets to the answer"


LEFT_OUT = frozenset({Problem.UNKNOWN, Problem.CROWDED, Problem.EMPTY})
"""With these an example cannot be learned."""

Found = Mapping[Problem, Sequence[str]]
"""The keys of the items by what is wrong."""


def examined(
    examples: Sequence[Example], problems_of: Callable[[Example], Sequence[Problem]]
) -> tuple[list[Example], Found]:
    """The examples that can be learned, and what is wrong with these and the others.

    Raises:
        NothingToLearn: none teaches.
    """
    usable: list[Example] = []
    found: defaultdict[Problem, list[str]] = defaultdict(list)
    for each in examples:
        problems = problems_of(each)
        for problem in problems:
            found[problem].append(each.item.key)
        if LEFT_OUT.isdisjoint(problems):
            usable.append(each)
    if all(each.validates for each in usable):
        raise NothingToLearn("nothing can be learned: " + "; ".join(said(found, len(examples)) or ["all validates"]))
    return usable, found


def said(found: Found, total: int) -> list[str]:
    """A line for each problem."""
    return [
        f"{len(keys)} of {total} examples {problem}: {', '.join(keys[:NAMED])}{', ...' if len(keys) > NAMED else ''}"
        for problem, keys in found.items()
    ]


def is_allowed(example: Example, task: TaskConfig) -> bool:
    """Whether the task and the item know the answer."""
    answer = example.answer
    if task.answer is AnswerKind.LABEL:
        return answer.value in task.labels
    if task.answer is AnswerKind.SPANS and task.labels:
        return all(end <= len(example.item.passage) and label in task.labels for _, end, label in spans_of(answer))
    return answer.kind is not AnswerKind.CHOICE or ord(answer.value) - ord("A") in range(len(example.item.choices))


def about_steps(example: Example, rationale_weight: float) -> list[Problem]:
    """What is wrong where there are no steps."""
    if example.steps or rationale_weight == 0:
        return []
    return [Problem.EMPTY if rationale_weight == 1 else Problem.SILENT]


def unseen(examples: Sequence[Example], task: TaskConfig) -> list[str]:
    """Labels that no example has."""
    if task.answer is AnswerKind.SPANS:
        seen = {label for each in examples for _, _, label in spans_of(each.answer)}
    elif task.answer is AnswerKind.LABEL:
        seen = {each.answer.value for each in examples}
    else:
        return []
    return [label for label in task.labels if label not in seen]
