"""Projects with a trained tiny student, made without a campaign: items, a round, decisions, a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.ports import Example
from loop.records import DecisionKind, Item, Split
from loop.store import items
from tests.builders import a_holdout, a_reply, a_round, decided, queried, trained
from tests.test_student import sums

QUIET = RichProgress(Console(quiet=True))

CONFIG = """\
[run]
name = "tiny"
[task]
{task}
[student]
model = "model"
dtype = "float32"
max_new_tokens = 16
max_prompt_tokens = 40
{student}
[teacher]
recorded = "recorded.jsonl"
model = "tiny-teacher"
"""


def a_trained_project(
    folder: Path, *, task: str = 'answer = "number"', student: str = "lora_rank = 0", examples: Sequence[Example] = ()
) -> Project:
    """A project whose first round trained a student on some sums or the given examples, gold and silver by turns."""
    examples = examples or sums(8)
    (folder / "config.toml").write_text(CONFIG.format(task=task, student=student), encoding="utf-8")
    project = Project(folder / "config.toml", QUIET)
    store = project.store
    keys = [each.item.key for each in examples]
    items.add(store, [Item(**each.item.model_dump()) for each in examples])
    items.add(store, a_holdout(20))
    opened = queried(store, a_round(store, project.config, run="tiny"), keys)
    for place, each in enumerate(examples):
        rationale = a_reply(store, opened, each.item.key, steps=each.steps, answer=each.answer.value)
        decided(store, opened, each.item.key, DecisionKind.SILVER if place % 2 else DecisionKind.GOLD, rationale)
    project.trainer().train(examples, seed=1, folder=project.folder / "checkpoints" / "round-1", progress=QUIET)
    trained(store, opened, examples=len(examples), right=7)
    return project


def pool_item(question: str, **fields: object) -> Item:
    """An item that no campaign has seen."""
    return Item(key=f"new {question}", question=question, split=Split.POOL, text_hash=question, **fields)
