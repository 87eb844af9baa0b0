"""Asks the teacher about the rows of a file of which the student is not sure, the least sure first.

Replies stand in a file beside the answers. Each is written there before it is settled, so that none is paid for twice:
where the process dies between the two, the reply stays and its hold is charged at worst case.
"""

import asyncio
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from connectors.wiring import Project
from loop.config import TaskConfig
from loop.ledger import MICRO
from loop.plain import storable
from loop.ports import Request
from loop.records import NOT_SENT, Currency, Item
from loop.stages.demonstrating import Demonstrating
from loop.store import probes
from loop.store.asking import RunTill
from loop.store.money import Purse
from loop.teacher.demonstrations import as_shown, with_one_less
from loop.teacher.prompt import prompt_of, request_for, worst_case
from loop.teacher.reply import Draft, read
from loop.teacher.send import Received, Sender


@dataclass(frozen=True)
class Unsure:
    """A row that the student answers with less confidence than was asked for."""

    row: int
    """Its place in the file, from 0."""
    item: Item
    probability: float
    """That the student's answer is right; 0 where none could be read."""


@dataclass
class Asked:
    """What the teacher said, by row, and why nothing came of the others."""

    replies: dict[int, dict[str, Any]]
    problems: dict[int, str]
    out_of_money: list[Unsure]
    """Rows that were not asked about because the budget is spent."""
    micro_usd: dict[int, int]
    """What each row cost, all its attempts together."""


def ask_about(project: Project, task: TaskConfig, unsure: Sequence[Unsure], kept: Path, threshold: float) -> Asked:
    """Ask about the rows below the threshold of which there is no reply yet, within what is left of the run's budget.

    `kept` holds the name under which all is paid, then the replies, a JSON object a line. A reply counts for the prompt
    that it came to.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`; the replies that came are kept.
    """
    config, store = project.config, project.store
    run, teacher = config.run.name, config.teacher
    shown = Demonstrating(store, run, lambda: project.trainer().student(None), config).shown
    requests = {each.row: request_for(each.item, task, teacher, as_shown(shown(each.item)), 0) for each in unsure}
    found, purpose = Asked(_kept(kept, requests), {}, [], {}), f"predict/{_paid_as(kept)}"
    open_ = (each for each in unsure if each.row not in found.replies and each.probability < threshold)
    todo = sorted(open_, key=lambda each: each.probability)
    if todo:
        _ask(project, task, todo, requests, kept, found, purpose=purpose)
    for name, micro_usd in probes.paid_by_purpose(store, f"{purpose}/").items():
        row = int(name.split("/")[2].removesuffix("-"))
        found.micro_usd[row] = found.micro_usd.get(row, 0) + micro_usd
    return found


def _ask(  # noqa: PLR0913 - what the requests rest on
    project: Project,
    task: TaskConfig,
    todo: Sequence[Unsure],
    requests: Mapping[int, Request],
    kept: Path,
    found: Asked,
    *,
    purpose: str,
) -> None:
    """Ask about these rows, the first ones first."""
    store, run, teacher = project.store, project.config.run.name, project.config.teacher
    purse = Purse(store, run)
    purse.open(project.usd_limit, project.minutes_limit)
    purse.close_dead_holds()
    with project.teacher() as endpoint, kept.open("ab") as sink:
        most = sum(worst_case(requests[each.row], endpoint.price) for each in todo)
        left = purse.balances()[Currency.USD]
        project.progress.say(
            f"  {len(todo)} rows go to {teacher.model}, for at most ${most / MICRO:.4f}; the run has "
            f"${max(0, left.limit - left.spent - left.reserved) / MICRO:.4f} left"
        )
        asking = _Asking(task, RunTill(store, run, None, teacher), sink, found, purpose)
        sender = Sender(endpoint, asking.till, teacher, asyncio.sleep, asking.give_up)

        async def ask_for(each: Unsure) -> None:
            await asking.ask_for(sender, each, requests[each.row])

        async def work() -> None:
            with project.progress.bar("teacher is asked", len(todo)) as bar:
                await sender.work(todo, ask_for, bar)

        asyncio.run(work())
    if sender.budget_spent:
        found.out_of_money = [each for each in todo if found.problems.get(each.row, "").startswith(NOT_SENT)]


@dataclass
class _Asking:
    """What the requests share."""

    task: TaskConfig
    till: RunTill
    sink: BinaryIO
    found: Asked
    purpose: str

    async def ask_for(self, sender: Sender, unsure: Unsure, request: Request) -> None:
        """Ask for one reply."""

        def keep(received: Received) -> None:
            said = {"row": unsure.row, "prompt": prompt_of(request).hash} | _said(received, unsure.item, self.task)
            self.sink.write((storable(json.dumps(said, ensure_ascii=False)) + "\n").encode())
            self.sink.flush()
            os.fsync(self.sink.fileno())
            self.found.replies[unsure.row] = said
            self.till.settle(received.charge_id, received.micro_usd)

        # Rows are told apart by their place: keys of a file may repeat, and may be those of pool items.
        name = f"{self.purpose}/{unsure.row}"
        await sender.send(replace(request, item_key=name), name, keep, with_one_less)

    def give_up(self, request: Request, problem: str) -> None:
        """No reply will come."""
        self.found.problems[int(request.item_key.rpartition("/")[2])] = problem


def _said(received: Received, item: Item, task: TaskConfig) -> dict[str, Any]:
    """What a reply says of the item, and what it cost."""
    by = {"by": received.request.model}
    draft = read(received.completion, item, task)
    if not isinstance(draft, Draft):
        return by | {"problem": draft.problem}
    if draft.answer is None:
        return by | {"problem": f"the answer {draft.stated!r} is not an allowed one"}
    return by | {"answer": draft.answer.value, "steps": list(draft.steps)}


def rows_of(kept: Path) -> set[int]:
    """The rows of which there is a reply."""
    return {each["row"] for each in _whole_lines(kept)[1:]}


def _paid_as(kept: Path) -> str:
    """Names what is paid for this file of replies, and for no other that the same rows are asked for."""
    lines = _whole_lines(kept)
    name: str = lines[0]["paid_as"] if lines else uuid.uuid4().hex
    if not lines:
        kept.write_text(json.dumps({"paid_as": name}) + "\n", encoding="utf-8")
    return name


def _kept(kept: Path, requests: dict[int, Request]) -> dict[int, dict[str, Any]]:
    """The replies to these requests that came before."""
    prompts = {row: prompt_of(request).hash for row, request in requests.items()}
    return {each["row"]: each for each in _whole_lines(kept)[1:] if prompts.get(each["row"]) == each["prompt"]}


def _whole_lines(kept: Path) -> list[dict[str, Any]]:
    """What a file of replies holds; a line that was cut off is dropped from it."""
    with kept.open("ab+") as file:
        file.seek(0)
        lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        file.truncate(sum(map(len, whole)))
    return [json.loads(line) for line in whole]
