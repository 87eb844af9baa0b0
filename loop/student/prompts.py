"""The student's prompts and targets: the same text in training, explaining and forced answering.

Two tasks as in Distilling Step-by-Step (arXiv 2305.02301): answer directly, or explain and then answer.
"""

from collections.abc import Sequence

from loop.answer import TRIGGER, Answer, number_steps, shown
from loop.records import Item

ANSWER_TASK = "Answer directly."
RATIONALE_TASK = "Explain step by step."
CONTEXT, QUESTION = "Context: ", "Question: "


def answer_prompt(item: Item) -> str:
    """The prompt of the answer task; the target starts on the next line."""
    return f"{presented(item)}\n{ANSWER_TASK}\n"


def rationale_prompt(item: Item) -> str:
    """The prompt of the rationale task; the target starts on the next line."""
    return f"{presented(item)}\n{RATIONALE_TASK}\n"


def answer_target(item: Item, answer: Answer) -> str:
    """The target of the answer task."""
    return rationale_target(item, (), answer)


def rationale_target(item: Item, steps: Sequence[str], answer: Answer) -> str:
    """The target of the rationale task: numbered steps, then the answer."""
    return f"{forced(steps)} {shown(answer, item.choices)}"


def forced(steps: Sequence[str]) -> str:
    """The beginning of a target after which only the answer can come."""
    return f"{number_steps(steps)}\n{TRIGGER}" if steps else TRIGGER


def presented(item: Item) -> str:
    """The item as the student reads it."""
    parts = [f"{CONTEXT}{item.context}"] if item.context else []
    parts.append(f"{QUESTION}{item.question}")
    parts += [f"({chr(ord('A') + number)}) {choice}" for number, choice in enumerate(item.choices)]
    return "\n".join(parts)
