"""Makes a round's set of demonstrations, tries it, and says what is shown with each item."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import numpy as np

from loop import certification
from loop.config import Config
from loop.ports import Example, Request, Student
from loop.records import DemonstrationSet, Item, Round, TrialKind
from loop.stages.contamination import seeds_left_out
from loop.stages.parts import Parts, id_of
from loop.store import demonstrations
from loop.store.database import Store
from loop.teacher.demonstrations import (
    MOST_GROUPS,
    Embed,
    Floats,
    Groups,
    as_shown,
    by_words,
    dev_slice,
    grouped,
    is_no_worse,
    may_be_shown,
    nearest,
    nearest_group,
    set_hash,
)
from loop.teacher.prompt import request_for
from loop.teacher.trial import Todo, next_of, try_out

TURNS = 4
"""How often explanations are asked for that members lack; those that still lack one are left out then."""


class Demonstrating:
    """What people decided, as it is shown in prompts. Nothing is spent before `prepare`."""

    def __init__(self, store: Store, run: str, untrained: Callable[[], Student], config: Config) -> None:
        self._store, self._run, self._config = store, run, config
        self._k, self._in_groups = config.teacher.demonstrations, config.teacher.demonstrations_by == "group"
        out = seeds_left_out(store, config.query) if self._k else set[str]()
        decided = demonstrations.people_decided(store, run) if self._k else []
        self._known = [each for each in decided if each.item.key not in out]
        self._embed = _embedder(untrained, config, [each.item for each in self._known])
        self._look()

    def shown(self, item: Item) -> list[Example]:
        """Those members of the set in force that go with the item, never the item itself."""
        return self._shown(item, self._groups)

    def more(self, item: Item) -> list[Example]:
        """The same, and as many of those nearest to the item: before the nearest, behind a group."""
        first = self.shown(item)
        further = nearest(item, [each for each in self._worked if each not in first], self._embed, self._k)
        return [*first, *further] if self._in_groups else [*further, *first]

    def has_more(self, item: Item) -> bool:
        """Whether asking again would show more than the first prompt."""
        return len(self.more(item)) > len(self.shown(item))

    def prepare(self, current: Round, parts: Parts) -> None:
        """Make the round's set from what people decided so far, and take it if it does not lower the teacher.

        A certified threshold speaks of the teacher as it was: while one is in force, the set stays.
        """
        done = any(row.round_id == current.id for row in demonstrations.sets(self._store, self._run))
        if done or not self._known or certification.threshold_in_force(self._store, current, self._config):
            return
        trying = _Trying(current, self._store, parts, self._config)
        for _ in range(TURNS):
            if not trying(self._lacking(), "demonstrations are explained"):
                break
            self._look()
        self._try(current, trying)

    def longest(self, count: int) -> list[Example]:
        """So many of all that may be shown, those with the most text: what a prompt shows is no longer."""
        return sorted(self._worked, key=lambda each: -len(each.item.text) - sum(map(len, each.steps)))[:count]

    def trials(self) -> tuple[list[Request], list[Request]]:
        """What `prepare` may have to send: a request for each explanation that is lacking, as far as groups have room,
        and one for each item that a set is measured on, shown the longest.
        """
        dev, rest = dev_slice(self._known, self._config.teacher.dev_items)
        keys = {each.item.key for each in rest}
        lacking = [each.request for each in self._next if isinstance(each, Todo) and each.item.key in keys]
        task, teacher, shown = self._config.task, self._config.teacher, as_shown(self.longest(self._k))
        measured = [request_for(each.item, task, teacher, shown, 0) for each in dev if self._worked or lacking]
        return lacking[: MOST_GROUPS * self._k], measured

    @property
    def to_be_tried(self) -> str | None:
        """The hash of the set that `prepare` would try; None where it would leave things as they are."""
        groups = self._draft()
        # A set that was not taken although nothing measured it is as good as new.
        past = [row for row in demonstrations.sets(self._store, self._run) if row.taken or row.dev_items]
        return set_hash(groups) if groups and (not past or past[-1].hash != set_hash(groups)) else None

    def _look(self) -> None:
        """Read what the store knows now."""
        self._trials = demonstrations.trials(self._store, self._run)
        task, teacher = self._config.task, self._config.teacher
        self._next = [next_of(each, self._trials, task, teacher) for each in self._known]
        self._worked = [each for each in self._next if isinstance(each, Example)]
        self._groups = self._stored()

    def _stored(self) -> Groups:
        """The newest set that was taken, less the members whom people no longer decide so."""
        rows = [row for row in demonstrations.sets(self._store, self._run) if row.taken]
        known = {(each.item.key, each.answer.canonical): each for each in self._known}
        groups = [
            [
                replace(known[each["key"], each["answer"]], steps=tuple(each["steps"]))
                for each in group
                if (each["key"], each["answer"]) in known
            ]
            for group in (rows[-1].groups if rows else ())
        ]
        return [group for group in groups if group]

    def _draft(self) -> Groups:
        """The members that have steps, those left out by which a set is measured: in groups, or in one."""
        usable = self._without_dev(self._worked)
        return self._grouped(usable) if self._in_groups or not usable else [usable]

    def _without_dev(self, worked: Sequence[Example]) -> list[Example]:
        _, rest = dev_slice(self._known, self._config.teacher.dev_items)
        keys = {each.item.key for each in rest}
        return [each for each in worked if each.item.key in keys]

    def _grouped(self, usable: Sequence[Example]) -> list[list[Example]]:
        vectors: Floats = np.asarray(self._embed([each.item for each in usable]), dtype=np.float64)
        margins = demonstrations.margins(self._store, self._run)
        return grouped(usable, vectors, margins, self._k, seed=self._config.run.seed)

    def _lacking(self) -> list[Todo]:
        """What is to be asked so that the middle ones of what is known have steps, never more than groups need."""
        pairs = [(each, todo) for each, todo in zip(self._known, self._next, strict=True) if todo is not None]
        open_ = {each.item.key: todo for each, todo in pairs if isinstance(todo, Todo)}
        if not open_:
            return []
        groups = self._grouped(self._without_dev([each if isinstance(todo, Todo) else todo for each, todo in pairs]))
        wanted = dict.fromkeys(each.item.key for group in groups for each in group)
        return [open_[key] for key in wanted if key in open_]

    def _try(self, current: Round, trying: "_Trying") -> None:
        """Compare the new set with the one in force on items that are in none, and store it with what was found."""
        groups, new = self._draft(), self.to_be_tried
        if new is None:
            return
        dev, _ = dev_slice(self._known, self._config.teacher.dev_items)
        before, after = [self._dev(dev, self._groups), self._dev(dev, groups)]
        paid = not dev or trying([*before, *after], "demonstrations are tried")
        self._look()
        pairs = self._compared(dev, before, after) if paid else []
        was, right = [old for old, _ in pairs], [new for _, new in pairs]
        taken = bool(pairs or not dev) and is_no_worse(right, was)
        demonstrations.keep_set(
            self._store,
            DemonstrationSet(
                run=self._run,
                round_id=id_of(current),
                hash=new,
                groups=[[_stored_member(each) for each in group] for group in groups],
                dev_items=len(pairs),
                dev_right=sum(right),
                dev_before=sum(was),
                taken=taken,
                reason=_reason(len(pairs), sum(right), sum(was), paid=paid, tried=bool(dev)),
                created_at=datetime.now(UTC),
            ),
        )
        self._look()

    def _dev(self, dev: Sequence[Example], groups: Groups) -> list[Todo]:
        task, teacher = self._config.task, self._config.teacher
        shown = [as_shown(self._shown(each.item, groups)) for each in dev]
        return [
            Todo(TrialKind.DEV, each.item, request_for(each.item, task, teacher, some, 0))
            for each, some in zip(dev, shown, strict=True)
        ]

    def _compared(
        self, dev: Sequence[Example], before: Sequence[Todo], after: Sequence[Todo]
    ) -> list[tuple[bool, bool]]:
        """Whether each item is answered as people did, before and after; only those that were answered both times."""
        replies = [[self._trials.get(each.key) for each in todo] for todo in (before, after)]
        return [
            (old.answer == worked.answer.canonical, new.answer == worked.answer.canonical)
            for worked, old, new in zip(dev, *replies, strict=True)
            if old is not None and new is not None
        ]

    def _shown(self, item: Item, groups: Groups) -> list[Example]:
        if self._in_groups:
            return may_be_shown(nearest_group(item, groups, self._embed), item)
        return nearest(item, [each for group in groups for each in group], self._embed, self._k)


class _Trying:
    """Sends the trials that the store lacks; false where there is nothing to send or not enough money."""

    def __init__(self, current: Round, store: Store, parts: Parts, config: Config) -> None:
        self._current, self._store, self._parts, self._config = current, store, parts, config

    def __call__(self, todo: Sequence[Todo], title: str) -> bool:
        stored = demonstrations.trials(self._store, self._current.run)
        missing = [each for key, each in {each.key: each for each in todo}.items() if key not in stored]
        if not missing:
            return bool(todo)
        book = demonstrations.RunTrialBook(self._store, self._current.run, id_of(self._current), self._config.teacher)
        with self._parts.progress.bar(title, len(missing)) as bar:
            return asyncio.run(
                try_out(
                    missing,
                    self._parts.teacher,
                    book,
                    self._config.task,
                    self._config.teacher,
                    run=self._current.run,
                    round_id=id_of(self._current),
                    bar=bar,
                )
            )


def _embedder(untrained: Callable[[], Student], config: Config, known: Sequence[Item]) -> Embed:
    """Vectors by the untrained encoder, else by words: those of an untrained causal model tell less than words do.

    Each item is embedded once.
    """

    @cache
    def embed() -> Embed:
        if config.student.kind == "encoder":
            return untrained().embed
        return by_words(known)

    vectors: dict[str, Floats] = {}

    def remembered(items: Sequence[Item]) -> Floats:
        new = list({item.key: item for item in items if item.key not in vectors}.values())
        if new:
            vectors.update(zip([item.key for item in new], np.asarray(embed()(new), dtype=np.float64), strict=True))
        return np.array([vectors[item.key] for item in items])

    return remembered


def _stored_member(each: Example) -> dict[str, object]:
    return {"key": each.item.key, "steps": list(each.steps), "answer": each.answer.canonical}


def _reason(compared: int, right: int, before: int, *, paid: bool, tried: bool) -> str:
    """Why a set was taken or not, in a sentence."""
    if not paid:
        return "not taken: the dollar budget does not suffice to try it"
    if not tried:
        return "taken untried: too few items are decided, or teacher.dev_items is 0"
    if not compared:
        return "not taken: no item was answered both with it and with the set before it"
    which = "taken" if right >= before else "not taken"
    return f"{which}: with it the teacher answers {right} of {compared} items as people did, before it {before}"
