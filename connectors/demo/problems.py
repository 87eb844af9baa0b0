"""Word problems of several domains with worked solutions, made from templates and a seed."""

import operator
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

LARGEST = 150
"""No number in a problem or its solution is larger; whole numbers are tokens of the demo's student."""
OPERATORS: Mapping[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
TRIES = 200
NAMED = {"+": "plus", "-": "minus", "*": "times"}
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Kira", "Leo")
THINGS = ("apples", "pencils", "stickers", "eggs", "tickets", "cookies", "marbles", "books", "flowers", "cups")


@dataclass(frozen=True)
class Step:
    """One step of a solution: `left sign right`, told by `text` in which {eq} stands for the equation."""

    left: str
    sign: str
    right: str
    text: str


@dataclass(frozen=True)
class Kind:
    """A kind of problem. Slots a..d are given numbers, r1, r2, ... the results of the steps."""

    domain: str
    question: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Problem:
    """A problem with its numbers filled in."""

    kind: Kind
    words: Mapping[str, str]
    numbers: Mapping[str, int]

    @property
    def question(self) -> str:
        """The text of the question."""
        return self.kind.question.format(**self.words, **self.numbers)

    @property
    def steps(self) -> list[str]:
        """The right solution, step by step."""
        return [told(step, self.numbers, place, self.words) for place, step in enumerate(self.kind.steps, start=1)]

    @property
    def answer(self) -> int:
        """The result of the last step."""
        return self.numbers[f"r{len(self.kind.steps)}"]


def told(step: Step, numbers: Mapping[str, int], place: int, words: Mapping[str, str]) -> str:
    """A step in words."""
    equation = f"{numbers[step.left]} {step.sign} {numbers[step.right]} = {numbers[f'r{place}']}"
    return step.text.format(eq=equation, **words)


def solved(kind: Kind, given: Mapping[str, int]) -> dict[str, int]:
    """The given numbers with the result of each step."""
    numbers = dict(given)
    for place, step in enumerate(kind.steps, start=1):
        numbers[f"r{place}"] = OPERATORS[step.sign](numbers[step.left], numbers[step.right])
    return numbers


def problems(kinds: tuple[Kind, ...], seed: str) -> Iterator[Problem]:
    """Problems without end, the kinds in turn; numbers stay within the range of the student."""
    chance = random.Random(seed)
    while True:
        yield from (made for kind in kinds if (made := _problem(kind, chance)) is not None)


def chains(seed: str) -> Iterator[Problem]:
    """Sums in words among words that mean nothing, without end: they teach to find numbers and to carry results."""
    chance = random.Random(seed)
    fillers = sorted({word for kind in CAMPAIGN for word in kind.question.split() if word.isalpha()} - {"each", "more"})
    while True:
        made = _problem(_chain(chance, fillers), chance)
        if made is not None:
            yield made


def _chain(chance: random.Random, fillers: list[str]) -> Kind:
    """One to three operations told by their names, each on the result of the one before."""
    first = chance.choice("ax")
    words, steps, left = [f"{{{first}}}"], [], first
    for place, right in enumerate(chance.sample("bcdy", chance.randint(1, 3)), start=1):
        sign = chance.choice("*+" if left == "a" and right != "y" else "+" if left == "a" else "+-")
        words += [*chance.choices(fillers, k=chance.randint(0, 4)), NAMED[sign], f"{{{right}}}"]
        steps.append(Step(left, sign, right, "There are {eq} ."))
        left = f"r{place}"
    return Kind("warm", " ".join([*chance.choices(fillers, k=chance.randint(0, 4)), *words, "?"]), tuple(steps))


def _problem(kind: Kind, chance: random.Random) -> Problem | None:
    """Numbers that fit the kind, or None where none were found."""
    for _ in range(TRIES):
        given = {slot: chance.randint(2, 9) for slot in "abcd" if f"{{{slot}}}" in kind.question}
        given |= {slot: chance.randint(15, 40) for slot in "xy" if f"{{{slot}}}" in kind.question}
        numbers = solved(kind, given)
        if all(0 < value <= LARGEST for value in numbers.values()):
            first, second = chance.sample(NAMES, 2)
            words = {"name": first, "other": second, "thing": chance.choice(THINGS)}
            return Problem(kind, words, numbers)
    return None


CAMPAIGN = (
    Kind(
        "shop",
        "{name} buys {a} bags with {b} {thing} in each bag . {name} sells {c} {thing} . "
        "How many {thing} does {name} keep ?",
        (Step("a", "*", "b", "The bags hold {eq} {thing} ."), Step("r1", "-", "c", "{name} keeps {eq} {thing} .")),
    ),
    Kind(
        "shop",
        "A shop has {x} {thing} . On Monday {a} people buy {b} {thing} each . Then {c} new {thing} arrive . "
        "How many {thing} are in the shop ?",
        (
            Step("a", "*", "b", "The people buy {eq} {thing} ."),
            Step("x", "-", "r1", "The shop has {eq} {thing} left ."),
            Step("r2", "+", "c", "With the new ones there are {eq} {thing} ."),
        ),
    ),
    Kind(
        "kitchen",
        "{name} bakes {a} trays of {b} {thing} and {c} trays of {d} {thing} . How many {thing} are baked in all ?",
        (
            Step("a", "*", "b", "The first trays give {eq} {thing} ."),
            Step("c", "*", "d", "The other trays give {eq} {thing} ."),
            Step("r1", "+", "r2", "In all there are {eq} {thing} ."),
        ),
    ),
    Kind(
        "kitchen",
        "{name} has {x} {thing} in the kitchen and cooks for {a} guests . Each guest eats {b} {thing} . "
        "How many {thing} remain ?",
        (Step("a", "*", "b", "The guests eat {eq} {thing} ."), Step("x", "-", "r1", "There remain {eq} {thing} .")),
    ),
    Kind(
        "travel",
        "A bus starts with {x} people . At the first stop {a} people leave and {b} people enter . "
        "At the second stop {c} people leave . How many people are on the bus ?",
        (
            Step("x", "-", "a", "After the leaving there are {eq} people ."),
            Step("r1", "+", "b", "After the entering there are {eq} people ."),
            Step("r2", "-", "c", "At the end there are {eq} people ."),
        ),
    ),
    Kind(
        "travel",
        "{name} walks {a} miles each day for {b} days . {other} walks {c} miles more than {name} . "
        "How many miles does {other} walk ?",
        (Step("a", "*", "b", "{name} walks {eq} miles ."), Step("r1", "+", "c", "{other} walks {eq} miles .")),
    ),
    Kind(
        "farm",
        "A farm has {a} rows of trees with {b} trees in each row . A storm breaks {c} trees and {d} more trees die . "
        "How many trees stand ?",
        (
            Step("a", "*", "b", "The rows have {eq} trees ."),
            Step("r1", "-", "c", "After the storm there are {eq} trees ."),
            Step("r2", "-", "d", "In the end there stand {eq} trees ."),
        ),
    ),
    Kind(
        "farm",
        "{name} has {a} hens and {other} has {b} hens more . Each hen gives {c} eggs . "
        "How many eggs do the hens of {other} give ?",
        (Step("a", "+", "b", "{other} has {eq} hens ."), Step("r1", "*", "c", "They give {eq} eggs .")),
    ),
    Kind(
        "school",
        "A class has {a} girls and {b} boys . Each child draws {c} pictures . The teacher takes {d} pictures home . "
        "How many pictures stay at school ?",
        (
            Step("a", "+", "b", "The class has {eq} children ."),
            Step("r1", "*", "c", "The children draw {eq} pictures ."),
            Step("r2", "-", "d", "At school stay {eq} pictures ."),
        ),
    ),
    Kind(
        "school",
        "{name} reads {a} pages every morning and {b} pages every evening . The book has {x} pages and {name} reads "
        "for one day . How many pages are left ?",
        (Step("a", "+", "b", "{name} reads {eq} pages ."), Step("x", "-", "r1", "There are {eq} pages left .")),
    ),
)
"""What the campaign asks: two and three steps, five domains."""

SUMS = tuple(
    Kind("warm", f"{{{left}}} {sign} {{{right}}} ?", (Step(left, sign, right, "{eq} ."),))
    for left, sign, right in (("x", "+", "a"), ("x", "-", "a"), ("a", "*", "b"), ("x", "+", "y"), ("x", "-", "y"))
)
"""Bare arithmetic, so that the student's base knows its sums."""

WARM = (
    Kind(
        "warm",
        "{name} has {x} {thing} and finds {a} more . How many {thing} does {name} have ?",
        (Step("x", "+", "a", "{name} has {eq} {thing} ."),),
    ),
    Kind(
        "warm",
        "{name} has {x} {thing} and loses {a} {thing} . How many {thing} does {name} have ?",
        (Step("x", "-", "a", "{name} has {eq} {thing} ."),),
    ),
    Kind(
        "warm",
        "{name} has {a} boxes with {b} {thing} in each box . How many {thing} does {name} have ?",
        (Step("a", "*", "b", "The boxes hold {eq} {thing} ."),),
    ),
    Kind(
        "warm",
        "{name} has {x} {thing} . {other} has {y} {thing} . How many {thing} do they have in all ?",
        (Step("x", "+", "y", "In all they have {eq} {thing} ."),),
    ),
    Kind(
        "warm",
        "{name} has {a} boxes with {b} {thing} in each box and finds {x} more {thing} . "
        "How many {thing} does {name} have ?",
        (Step("a", "*", "b", "The boxes hold {eq} {thing} ."), Step("r1", "+", "x", "{name} has {eq} {thing} .")),
    ),
    Kind(
        "warm",
        "{name} has {a} boxes with {b} {thing} in each box and loses {c} {thing} . How many {thing} does {name} have ?",
        (Step("a", "*", "b", "The boxes hold {eq} {thing} ."), Step("r1", "-", "c", "{name} has {eq} {thing} .")),
    ),
    Kind(
        "warm",
        "{name} has {x} {thing} , finds {a} more and loses {b} . How many {thing} does {name} have ?",
        (
            Step("x", "+", "a", "After finding there are {eq} {thing} ."),
            Step("r1", "-", "b", "{name} has {eq} {thing} ."),
        ),
    ),
    Kind(
        "warm",
        "There were {x} {thing} . {name} loses {a} , then {b} and then {c} . How many {thing} are left ?",
        (
            Step("x", "-", "a", "First there are {eq} {thing} ."),
            Step("r1", "-", "b", "Then there are {eq} {thing} ."),
            Step("r2", "-", "c", "At last there are {eq} {thing} ."),
        ),
    ),
    Kind(
        "warm",
        "{name} has {a} boxes with {b} {thing} and {c} boxes with {d} {thing} . How many {thing} are there ?",
        (
            Step("a", "*", "b", "The first boxes hold {eq} {thing} ."),
            Step("c", "*", "d", "The other boxes hold {eq} {thing} ."),
            Step("r1", "+", "r2", "There are {eq} {thing} ."),
        ),
    ),
    Kind(
        "warm",
        "{name} has {x} {thing} and gives {a} {thing} to each of {b} friends . How many {thing} are left ?",
        (
            Step("a", "*", "b", "The friends get {eq} {thing} ."),
            Step("x", "-", "r1", "There are {eq} {thing} left ."),
        ),
    ),
    Kind(
        "warm",
        "{name} has {a} red boxes and {b} blue boxes . Each box holds {c} {thing} . How many {thing} are there ?",
        (Step("a", "+", "b", "There are {eq} boxes ."), Step("r1", "*", "c", "They hold {eq} {thing} .")),
    ),
)
"""Easier problems that the student's base is trained on; none is of a kind that the campaign asks."""
