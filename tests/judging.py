"""Brings a round to CHECK and carries it on with a judge, or with none."""

from collections.abc import Sequence
from pathlib import Path

from loop import round as rounds_of
from loop.config import Config
from loop.ports import Example, Progress, Silent, Student, Teacher, Trained
from loop.records import Item, Rationale, ReviewTask, Round, Stage
from loop.stages.parts import Parts
from loop.store import decisions, items, judgements, rationales, reviews, rounds
from loop.store.database import Store
from loop.store.money import Purse
from tests.builders import RUN, a_reply, a_round, id_of, queried

COST = 1000
"""Micro-dollars of each reply of the teacher."""


class Lines(Silent):
    """Progress of which the lines and the steps of the bar are kept."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done = 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, steps: int = 1) -> None:
        self.done += steps


class NoStudent:
    """A trainer that trains nothing."""

    def student(self, folder: Path | None) -> Student:
        raise AssertionError("no student is there")

    def train(
        self, examples: Sequence[Example], *, seed: int, folder: Path, progress: Progress, start: Path | None = None
    ) -> Trained:
        folder.mkdir(parents=True)
        return Trained(folder)


class Nobody:
    """Reviewers that never answer."""

    def worth(self, rows: Sequence[Rationale]) -> dict[int, float]:
        return {}

    def push(self, tasks: Sequence[tuple[ReviewTask, Rationale, Item]]) -> None: ...

    def pull(self) -> int:
        return 0

    def address(self) -> str:
        return "nowhere"


def asked(store: Store, config: Config, replies: Sequence[tuple[Item, Sequence[str], str]], **fields: object) -> Round:
    """A round whose replies are there, about to be checked."""
    items.add(store, [item for item, _, _ in replies])
    opened = queried(store, a_round(store, config), [item.key for item, _, _ in replies], **fields)
    for item, steps, stated in replies:
        a_reply(store, opened, item.key, steps=steps, answer=stated.split()[0], stated=stated, cost=COST)
    Purse(store, RUN).open(usd=round(config.budget.usd * 1e6), minutes=10**12)
    return rounds.enter(store, opened, Stage.CHECK)


def carried_on(
    store: Store, current: Round, config: Config, judge: Teacher | None, folder: Path, lines: Lines | None = None
) -> Round:
    """The round as far as it comes."""
    parts = Parts(NoStudent(), _Unused(), Nobody(), lines or Lines(), folder / "checkpoints", judge)
    return rounds_of.advance(current, store, parts, config)


class _Unused:
    """A teacher that nobody asks any more."""

    async def complete(self, request: object) -> None:
        raise AssertionError("the teacher is asked")

    def price(self, request: object, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        raise AssertionError("the teacher is priced")


def risks(store: Store, current: Round) -> dict[str, float]:
    """The risk of each rationale by its item's key."""
    rows = {each.id or 0: each.item_key for each in rationales.of_round(store, id_of(current))}
    return {rows[number]: value for number, value in rationales.risks(store, list(rows)).items()}


def flagged(store: Store, current: Round) -> list[tuple[str, int | None, str]]:
    """The judge's flags: item, step and evidence."""
    rows = {each.id or 0: each.item_key for each in rationales.of_round(store, id_of(current))}
    found = rationales.flags(store, list(rows))
    return [
        (rows[number], flag.step, flag.evidence)
        for number, flags in found.items()
        for flag in flags
        if flag.check_name == "judge"
    ]


def said(store: Store, current: Round) -> list[tuple[str, int, str | None]]:
    """What the judge said: item, step and verdict, in the order of items and steps."""
    rows = {each.id or 0: each.item_key for each in rationales.of_round(store, id_of(current))}
    found = judgements.of_rationales(store, list(rows))
    return sorted(
        (rows[number], each.step, each.verdict and each.verdict.value) for number in found for each in found[number]
    )


def decided(store: Store) -> dict[str, str]:
    """What became of each item."""
    return {key: row.kind.value for key, row in decisions.newest(store, RUN).items()}


def in_review(store: Store, current: Round) -> set[str]:
    """Items whose rationale is sent to people."""
    rows = {each.id: each.item_key for each in rationales.of_round(store, id_of(current))}
    return {rows[task.rationale_id] for task in reviews.tasks(store, id_of(current))}
