"""What requests of the next round may cost, in micro-dollars, shown what people decided so far."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from loop.config import Config
from loop.ledger import longest_reply
from loop.ports import Request, Teacher
from loop.records import Item
from loop.stages.demonstrating import Demonstrating
from loop.store import demonstrations, reading
from loop.store.database import Store
from loop.store.money import Purse
from loop.teacher.continuation import continuation_request
from loop.teacher.demonstrations import as_shown
from loop.teacher.judge_prompt import LONG_STEP, a_step_request
from loop.teacher.prompt import Price, most_input_tokens, request_for, worst_case
from loop.teacher.revision import Way
from loop.teacher.revision_prompt import check_request, whole_request
from loop.teacher.send import prompt_type


def further_request(store: Store, config: Config, item: Item, demonstrating: Demonstrating, price: Price) -> int:
    """What would be held for asking about an item now: shown what is in force, by the lengths learned.

    Raises:
        UnknownPrice: the teacher's price is not known.
    """
    request = request_for(item, config.task, config.teacher, as_shown(demonstrating.shown(item)), 0)
    lengths = Purse(store, config.run.name).lengths(prompt_type(request, "ask"))
    length = longest_reply(lengths, request.max_completion_tokens)
    return worst_case(replace(request, max_completion_tokens=length), price)


@dataclass(frozen=True)
class Prices:
    """What a round's requests cost by today's config; prompts are shown the longest demonstrations that there are.

    Every price raises UnknownPrice where that of a model is not known.
    """

    store: Store
    config: Config
    demonstrating: Demonstrating
    teacher: Teacher
    judge: Teacher | None
    stronger: Sequence[Teacher]

    def worst(self, item: Item) -> float:
        """What an item costs at the very most: revised, asked, asked again and of every stronger teacher, and judged
        in as many long steps as may be.
        """
        task, teacher = self.config.task, self.config.teacher
        asked = self._share * worst_case(self._request(item), self.teacher.price)
        if teacher.reprompt_below:
            more = as_shown(self.demonstrating.longest(2 * teacher.demonstrations))
            asked += worst_case(request_for(item, task, teacher, more, 0), self.teacher.price)
        if teacher.revise != "never" and task.max_steps > 1:
            asked += self._revised(item)
        shown = as_shown(self.demonstrating.longest(teacher.demonstrations))
        for each, endpoint in zip(teacher.stronger, self.stronger, strict=True):
            asked += worst_case(request_for(item, task, each, shown, 0), endpoint.price)
        return asked + self.judged(item)

    def judged(self, item: Item) -> int:
        """What the judge costs at most, where there is one."""
        if self.judge is None:
            return 0
        step = a_step_request(item, self.config.task, self.config.judge)
        return self.config.judge.max_steps * worst_case(step, self.judge.price)

    def learned(self, pool: Sequence[Item]) -> list[float]:
        """What items cost if replies are as long as those to the same prompt in any run; input at its bound.

        Empty where there are none yet.
        """
        lengths = self._lengths(self._request(pool[0]), "ask")
        drawn = np.random.default_rng(0).choice(lengths, len(pool)) if lengths else ()
        return [
            self._share * self._price(self._request(item), int(length))
            for item, length in zip(pool, drawn, strict=False)
        ]

    def trials(self) -> tuple[float, float]:
        """What trying demonstrations is expected to cost, and at most as far as is known: each explanation takes two
        requests, and so does each item that a set is measured on, save that the set in force mostly has its replies.
        """
        explained, measured = self.demonstrating.trials()
        paid = reading.trial_prices(self.store, self.config.run.name)
        often = 1 if demonstrations.sets(self.store, self.config.run.name) else 2
        mean = [np.mean(paid) if paid else self._price(each, self._mean(each)) for each in [*explained, *measured]]
        most = [max(paid) if paid else worst_case(each, self.teacher.price) for each in [*explained, *measured]]
        expected = 2 * sum(mean[: len(explained)]) + often * sum(mean[len(explained) :])
        return float(expected), float(2 * sum(most))

    @property
    def _share(self) -> float:
        """The price of an item's replies in prices of single requests: the first costs less in a batch."""
        teacher = self.config.teacher
        return teacher.samples - (teacher.batch_discount if teacher.batch else 0.0)

    def _request(self, item: Item) -> Request:
        teacher = self.config.teacher
        shown = as_shown(self.demonstrating.longest(teacher.demonstrations))
        return request_for(item, self.config.task, teacher, shown, 0)

    def _revised(self, item: Item) -> int:
        """What revising as many long steps as may be costs at most in the way that the config names, or in any."""
        task, teacher, price = self.config.task, self.config.teacher, self.teacher.price
        steps = ["x" * LONG_STEP] * (task.max_steps - 1)
        finished = worst_case(continuation_request(item, steps, task, teacher), price)
        at_once = worst_case(whole_request(item, steps, task, teacher), price) + finished
        checks = (check_request(item, steps[:at], step, task, teacher) for at, step in enumerate(steps))
        one_by_one = sum(worst_case(each, price) for each in checks) + 2 * finished
        ways = {Way.ONE_SHOT: at_once, Way.TEACHER_FINISH: one_by_one, Way.STUDENT_CONTINUE: one_by_one}
        return max(ways.values()) if teacher.revise == "auto" else ways[Way(teacher.revise)]

    def _price(self, request: Request, length: int) -> int:
        return self.teacher.price(request, input_tokens=most_input_tokens(request), output_tokens=length)

    def _lengths(self, request: Request, use: str) -> list[int]:
        return Purse(self.store, self.config.run.name).lengths(prompt_type(request, use))

    def _mean(self, request: Request) -> int:
        """Tokens of a mean reply to such a trial, or to such a question; the longest where none came yet."""
        lengths = self._lengths(request, reading.DEMONSTRATE) or self._lengths(request, "ask")
        return round(float(np.mean(lengths))) if lengths else request.max_completion_tokens
