"""Finds out what an endpoint really supports, by a handful of tiny requests and a look at what comes back.

Servers answer 200 and drop what they do not know, so a feature counts only where its effect shows in a reply. It is
missing only where a reply shows that, or where the endpoint refuses to be asked so; a failure that passes says nothing.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from connectors.endpoints import holds
from connectors.openai_teacher import Given, OpenAITeacher, endpoint_of
from loop.config import EndpointConfig
from loop.errors import BudgetSpent, TeacherBusy, TeacherRefused
from loop.ports import Completion, Request, Silent
from loop.records import Probe
from loop.store import probes
from loop.store.asking import RunTill
from loop.store.database import Store, now
from loop.store.money import Purse
from loop.teacher.send import Received, Sender

WORDS = "Write twelve random words."
SHORT, LONG = 24, 80
"""Longest replies, in tokens."""
REPEATS = {"seed 0 again": 0, "seed 1": 1, "seed 2": 2}
"""Seeds of the requests that follow the first one, which has seed 0."""
EMPTY = "the reply is empty or was cut off"
QUESTION = "Which is bigger, an ant or a cow, and how many legs has it?"
SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {"animal": {"type": "string", "enum": ["ant", "cow"]}, "legs": {"type": "integer"}},
    "required": ["animal", "legs"],
    "additionalProperties": False,
}
"""The question does not speak of a form, so that a reply has it only where the schema is held."""


def probe(teacher: OpenAITeacher, settings: EndpointConfig, store: Store, run: str) -> Probe:
    """Ask, look, and store what was seen; every request is reserved and settled like any other.

    Raises:
        TeacherError: the endpoint does not answer, or refuses the plainest request.
        BudgetSpent, UnknownPrice: as when asking.
    """
    return probes.keep(store, asyncio.run(_Prober(teacher, settings, store, run).look()))


@dataclass(frozen=True)
class _Tried:
    """All that came of a request, or why nothing did."""

    given: Given | None
    problem: str = ""
    refused: bool = False
    """Whether the endpoint refused what was asked; any other problem may pass."""

    @property
    def text(self) -> str:
        return "" if self.given is None else self.given.completion.text.strip()

    @property
    def whole(self) -> bool:
        """Whether there is text that was not cut off."""
        return self.given is not None and bool(self.text) and self.given.completion.finish_reason != "length"

    def says(self, has: bool, *, plainly: bool) -> bool | None:
        """Whether a feature is there: not where it was refused; unknown where the reply does not show it `plainly`."""
        return False if self.refused else has if plainly else None


@dataclass
class _Asked:
    """The endpoint as the sender sees it: one kind of request, with parameters that others do not have."""

    teacher: OpenAITeacher
    more: Mapping[str, object]
    given: Given | None = None

    async def complete(self, request: Request) -> Completion:
        self.given = await self.teacher.given(request, self.more)
        return self.given.completion

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        return self.teacher.price(
            request, input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens
        )


class _Prober:
    """Looks at one endpoint."""

    def __init__(self, teacher: OpenAITeacher, settings: EndpointConfig, store: Store, run: str) -> None:
        self._teacher, self._settings, self._store, self._run = teacher, settings, store, run
        self._started = now()
        self._purpose = f"probe/{settings.table}/{self._started:%Y%m%dT%H%M%S.%f}"

    async def look(self) -> Probe:
        """One feature after another; the first request must be answered."""
        first = await self._try("seed 0", self._request())
        if first.given is None:
            raise TeacherRefused(first.problem)
        features = {
            **await self._sampling(first.text),
            "choices": await self._choices(),
            "logprobs": await self._logprobs(),
            "json_schema": await self._schema(),
            "batches": await self._batches(),
        }
        return Probe(
            endpoint=endpoint_of(self._settings),
            model=self._settings.model,
            source="probe",
            purpose=self._purpose,
            **{name: value for name, (value, _) in features.items()},
            seen={name: text for name, (_, text) in features.items()},
            probed_at=self._started,
        )

    async def _sampling(self, first: str) -> dict[str, tuple[bool | None, str]]:
        """Whether samples differ by their seed, and whether the same seed repeats one."""
        tried = {name: await self._try(name, self._request(seed=seed)) for name, seed in REPEATS.items()}
        again, *others = (each.text for each in tried.values())
        if not all((first, again, *others)):
            nothing = (None, "some replies are empty")
            return {"sampling": nothing, "seed": nothing}
        if {first, again, *others} == {first}:
            off = (False, "samples at temperature 1 are equal, whatever their seed")
            return {"sampling": off, "seed": (None, "nothing is sampled")}
        same = again == first
        seed = f"the same seed gives {'the same' if same else 'another'} sample"
        return {"sampling": (True, "samples at temperature 1 differ"), "seed": (same, seed)}

    async def _choices(self) -> tuple[bool | None, str]:
        # Two choices are two replies to pay for.
        request = self._request(tokens=2 * SHORT)
        tried = await self._try_with("n", request, n=2, max_completion_tokens=SHORT)
        number = tried.given.choices if tried.given else 0
        has = tried.says(number == 2, plainly=number > 0)
        return has, tried.problem or f"n = 2 gives {number} choice{'' if number == 1 else 's'}"

    async def _logprobs(self) -> tuple[bool | None, str]:
        tried = await self._try_with("logprobs", self._request(), logprobs=True, top_logprobs=2)
        there = tried.given is not None and tried.given.logprobs
        has = tried.says(there, plainly=there or bool(tried.text))
        said = EMPTY if has is None else f"log-probabilities are {'given' if there else 'left out'}"
        return has, tried.problem or said

    async def _schema(self) -> tuple[bool | None, str]:
        request = replace(self._request(tokens=LONG), schema=SCHEMA, temperature=0.0)
        request = replace(request, messages=({"role": "user", "content": QUESTION},))
        tried = await self._try_with("schema", request)
        held = holds(tried.text, SCHEMA)
        has = tried.says(held, plainly=tried.whole)
        said = EMPTY if has is None else f"a JSON schema is {'held' if held else 'ignored'}"
        return has, tried.problem or said

    async def _batches(self) -> tuple[bool | None, str]:
        try:
            listed = await self._teacher.lists_batches()
        except TeacherBusy as busy:
            return None, str(busy)
        return listed, "batches are listed; none was sent" if listed else "no batches are listed"

    def _request(self, *, seed: int = 0, tokens: int = SHORT) -> Request:
        return Request(
            model=self._settings.model,
            messages=({"role": "user", "content": WORDS},),
            temperature=1.0,
            max_completion_tokens=tokens,
            seed=seed,
            item_key="probe",
        )

    async def _try_with(self, name: str, request: Request, **more: object) -> _Tried:
        """Try a feature: where it fails, and fails again after a plain request was answered, it is refused.

        Some servers answer 500 to what they do not know.
        """
        tried = await self._try(name, request, **more)
        if tried.given is not None or tried.refused or (await self._try(f"{name} left out", self._request())).problem:
            return tried
        again = await self._try(f"{name} again", request, **more)
        return again if again.given is not None else replace(again, refused=True)

    async def _try(self, name: str, request: Request, **more: object) -> _Tried:
        """Reserve, send, settle; a refusal is an answer too, save of the plainest request.

        Raises:
            TeacherDown: the endpoint cannot be reached, or takes no more requests now.
            BudgetSpent: nothing is left to pay with.
        """
        asked, problems, refusal = _Asked(self._teacher, more), list[str](), False
        purse = Purse(self._store, self._run)

        def keep(received: Received) -> None:
            purse.settle(received.charge_id, received.micro_usd)

        twice = self._settings.model_copy(update={"attempts": 2})
        till = RunTill(self._store, self._run, None)
        sender = Sender(asked, till, twice, asyncio.sleep, lambda _, problem: problems.append(problem))

        async def send(_: str) -> None:
            await sender.send(request, f"{self._purpose}/{name}", keep)

        try:
            await sender.work([name], send, Silent())
        except TeacherRefused as refused:
            problems.append(str(refused))
            refusal = True
        if sender.budget_spent:
            raise BudgetSpent("what is left of budget.usd does not pay for a look at the endpoint; raise it")
        return _Tried(None if problems else asked.given, "; ".join(problems), refusal)
