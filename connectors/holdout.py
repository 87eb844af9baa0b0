"""A holdout made by people: random pool items, question only, whose answers become gold."""

import random
from collections.abc import Set

from connectors.wiring import Project
from loop.answer import Answer, parse_answer
from loop.records import Item, Part, Split
from loop.store import items
from review.board import Board, BoardTask, RawVerdict
from review.task import with_choices
from review.verdict import values_of


def label(project: Project, count: int) -> str:
    """Send random pool items that no round has asked about; take answers that came meanwhile as holdout items."""
    board = project.holdout_board
    there = [each for version in board.projects() for each in version]
    taken = sum(_take(project, raw) for each in there for raw in board.changed(None, each))
    waiting = _send(project, board, count - items.count(project.store).get(Split.HOLDOUT, 0))
    holdout = items.count(project.store).get(Split.HOLDOUT, 0)
    lines = [f"{taken} answers taken; the holdout has {holdout} items"]
    if waiting:
        lines.append(f"{waiting} questions wait for answers at {board.address()}; call this again when they are done")
    return "\n".join(lines)


def _send(project: Project, board: Board, missing: int) -> int:
    """Put as many questions on the board as the holdout lacks; how many wait there."""
    if missing <= 0:
        return 0
    waiting = len(board.open_tasks())
    there = {task.data["item_key"] for task in board.open_tasks()}
    chosen = _draw(project, missing - waiting, there)
    board.put([_task(item) for item in chosen])
    return waiting + len(chosen)


def _draw(project: Project, wanted: int, there: Set[str]) -> list[Item]:
    """As many of the items that can be sent, at random; the pool's keys pass by twice, and few are in memory."""
    total = sum(key not in there for key in items.unasked(project.store))
    chance = random.Random(f"holdout/{project.config.run.seed}/{total}")
    places = chance.sample(range(total), min(max(0, wanted), total))
    fresh, drawn = (key for key in items.unasked(project.store) if key not in there), set(places)
    keys = {place: key for place, key in enumerate(fresh) if place in drawn}
    found = items.existing(project.store, keys.values())
    return [found[keys[place]] for place in places if place in keys]


def _task(item: Item) -> BoardTask:
    uid = f"holdout/{item.key}"
    data = {"uid": uid, "item_key": item.key, "question": with_choices(item), "context": item.context}
    return BoardTask(uid=uid, data=data)


def _take(project: Project, raw: RawVerdict) -> bool:
    """Move an answered item from the pool to the holdout; False where the answer is not allowed or it moved before."""
    item = items.get(project.store, raw.uid.removeprefix("holdout/"))
    answer = None if item is None else _answer(project, item, raw)
    if item is None or answer is None or item.split is not Split.POOL:
        return False
    dev = random.Random(f"dev/{item.key}").random() < project.config.pool.dev_share
    return items.make_holdout(project.store, item.key, answer, Part.DEV if dev else Part.TEST)


def _answer(project: Project, item: Item, raw: RawVerdict) -> Answer | None:
    task = project.config.task
    stated = str(values_of(raw.result).get("answer", ""))
    return parse_answer(stated, task.answer, choices=item.choices, labels=tuple(task.labels))
