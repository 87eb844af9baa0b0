"""Asks the teacher about items that people decided: why an answer is right, what steps say, what a set is worth."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loop.answer import Answer, number_steps, shown
from loop.config import TaskConfig, TeacherConfig
from loop.ports import Bar, Example, Request, Teacher, TrialBook
from loop.records import Item, Trial, TrialKind
from loop.redaction import Hider, with_hidden
from loop.teacher.conclusion import without_conclusion
from loop.teacher.prompt import fenced, presented_choices, prompt_of, request_for
from loop.teacher.reply import Draft, read
from loop.teacher.send import Received, Sender, Sleep, as_stored, nobody_is_told

EXPLAIN = "People settled on the answer below. Give the steps that lead to it, and then that answer."
RECOVER = "The question is hidden. Below is somebody's reasoning about it. Which answer does it lead to?"


@dataclass(frozen=True)
class Todo:
    """One request of a trial."""

    kind: TrialKind
    item: Item
    request: Request

    @property
    def prompt_hash(self) -> str:
        """The hash of what is asked."""
        return prompt_of(self.request).hash

    @property
    def key(self) -> tuple[str, str]:
        """What its reply is found by: where texts are hidden, items that differ may be asked the same."""
        return self.item.key, self.prompt_hash


def explain(worked: Example, task: TaskConfig, config: TeacherConfig) -> Todo:
    """Ask why the known answer is right."""
    bare = _request(worked.item, task, config)
    hider = Hider(config.redact, bare.hidden)
    known = fenced("Answer", hider.answer(shown(worked.answer, worked.item.choices), task.answer))
    asked = f"{bare.messages[-1]['content']}\n{known}\n{EXPLAIN}"
    return Todo(TrialKind.EXPLAIN, worked.item, _asking(bare, asked, hider))


def recover(item: Item, steps: Sequence[str], answer: Answer, task: TaskConfig, config: TeacherConfig) -> Todo | None:
    """Ask for the answer by the steps alone, without what only states it; None where nothing else is said."""
    reasons = [step for step in without_conclusion(steps, answer, answer.value, item.choices) if step]
    if not reasons:
        return None
    hider = Hider(config.redact)
    choices, said = presented_choices(hider.item(item)), number_steps([*map(hider.text, reasons)])
    asked = "\n".join(part for part in (RECOVER, fenced("Reasoning", said), choices) if part)
    return Todo(TrialKind.RECOVER, item, _asking(_request(item, task, config), asked, hider))


def next_of(
    worked: Example, trials: Mapping[tuple[str, str], Trial], task: TaskConfig, config: TeacherConfig
) -> "Example | Todo | None":
    """The worked item with steps, or what is to be asked for them next; None where no explanation holds.

    An explanation holds if it ends in the known answer and if its steps alone lead the teacher to it. `trials` are
    those so far by item and the hash of their prompts.
    """
    if worked.steps:
        return worked
    asked, known = explain(worked, task, config), worked.answer.canonical
    said = trials.get(asked.key)
    if said is None:
        return asked
    back = recover(worked.item, said.steps, worked.answer, task, config) if said.answer == known else None
    if back is None:
        return None
    found = trials.get(back.key)
    if found is None:
        return back
    return replace(worked, steps=tuple(said.steps)) if found.answer == known else None


async def try_out(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[Todo],
    teacher: Teacher,
    book: TrialBook,
    task: TaskConfig,
    config: TeacherConfig,
    *,
    run: str,
    round_id: int,
    bar: Bar,
    sleep: Sleep = asyncio.sleep,
) -> bool:
    """Send the requests and write down what comes back; whether the budget sufficed. What fails is left out.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    sender = Sender(teacher, book, config, sleep, nobody_is_told)

    async def ask_for(each: Todo) -> None:
        purpose = f"demonstrate/{round_id}/{each.item.key}/{each.kind}-{each.prompt_hash[:12]}"

        def keep(received: Received) -> None:
            trial = _trial(run, round_id, each, received, task)
            book.keep(received.charge_id, received.micro_usd, prompt_of(received.request), trial)

        await sender.send(each.request, purpose, keep)

    await sender.work(todo, ask_for, bar)
    return not sender.budget_spent


def _request(item: Item, task: TaskConfig, config: TeacherConfig) -> Request:
    """A request about the item without demonstrations, which nobody asks to be sure of."""
    return request_for(item, task, config.model_copy(update={"confidence": False, "logprobs": False}), (), 0)


def _asking(request: Request, text: str, hider: Hider) -> Request:
    asking = replace(request, messages=(request.messages[0], {"role": "user", "content": text}))
    return with_hidden(asking, hider)


def _trial(run: str, round_id: int, todo: Todo, received: Received, task: TaskConfig) -> Trial:
    completion = received.completion
    trial = Trial(
        run=run,
        round_id=round_id,
        kind=todo.kind,
        item_key=todo.item.key,
        **as_stored(received),
    )
    result = read(completion, todo.item, task)
    if isinstance(result, Draft):
        trial.steps, trial.answer = list(result.steps), None if result.answer is None else result.answer.canonical
    else:
        trial.problem = result.problem
    return trial
