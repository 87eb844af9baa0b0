"""What the loop asks of the world, as Protocols. What stands behind each is put together in `connectors.wiring`."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from loop.answer import Answer
from loop.errors import TeacherError
from loop.records import (
    Item,
    Judgement,
    Prompt,
    Rationale,
    Reply,
    ReviewTask,
    Revision,
    RevisionReply,
    Trial,
    Verdict,
)


@dataclass(frozen=True)
class Request:
    """One chat request, complete: the same request always has the same prompt hash."""

    model: str
    messages: tuple[Mapping[str, str], ...]
    temperature: float
    max_completion_tokens: int
    schema: Mapping[str, object] | None = None
    """JSON schema of the reply, where structured output is asked for."""
    seed: int | None = None
    logprobs: bool = False
    """Whether the endpoint is asked how probable each token is."""
    item_key: str = ""
    sample: int = 0
    """Neither is sent in the messages; they go as request metadata headers only for tracing."""
    hidden: Mapping[str, str] = field(default_factory=dict)
    """What the placeholders in the last message stand for; it is not sent, and comes back in the reply."""


@dataclass(frozen=True)
class Completion:
    """What the endpoint gave back for one request."""

    text: str
    model: str
    finish_reason: str
    input_tokens: int | None
    output_tokens: int | None
    """None where the endpoint reported no usage."""
    tokens: tuple[tuple[str, float], ...] = ()
    """The text in tokens, each with its log-probability; empty where the endpoint does not say."""
    cached_tokens: int = 0
    """Of the input tokens those that the endpoint says it had in its prompt cache."""
    closed_for: float = 0.0
    """Seconds until the endpoint takes more requests, by its own account; 0: it does."""


@dataclass(frozen=True)
class Remembered:
    """A completion of an earlier request that was the same; `origin` is where and when it was paid for."""

    completion: Completion
    origin: str


@runtime_checkable
class Remembering(Protocol):
    """A teacher that remembers what it gave."""

    def recall(self, request: Request) -> Remembered | None:
        """What it gave for the same request, if it remembers."""
        ...

    def remember(self, request: Request, completion: Completion) -> None:
        """Remember a completion that came by another way than `complete`."""
        ...


class Teacher(Protocol):
    """A large model that answers one chat request."""

    async def complete(self, request: Request) -> Completion:
        """Send the request once, without retries.

        Raises:
            TeacherBusy: another attempt may succeed.
            TeacherRefused: it will not.
        """
        ...

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """Micro-dollars for that many tokens, rounded up; `cached_tokens` of the input may be cheaper.

        Raises:
            UnknownPrice: neither the config nor the price list knows the model.
        """
        ...


@dataclass(frozen=True)
class BatchState:
    """How far the endpoint is with a batch; with a `problem` it has refused the whole of it."""

    ended: bool
    done: int
    problem: str | None = None


class Batches(Protocol):
    """Where an endpoint takes many requests at once and answers them later, for less.

    Every method raises TeacherBusy where another attempt may succeed, and TeacherRefused where it will not.
    """

    async def find(self, name: str, since: datetime) -> str | None:
        """The id of the batch of that name made since then, if the endpoint has it."""
        ...

    async def create(self, name: str, requests: Mapping[str, Request]) -> str:
        """Hand over a batch of requests by their custom ids; its id."""
        ...

    async def state(self, remote_id: str) -> BatchState | None:
        """How far it is; None where the endpoint does not know it."""
        ...

    async def results(self, remote_id: str) -> Sequence[tuple[str, Completion | TeacherError]]:
        """Custom ids with what came of them, in any order; lines that cannot be read are left out."""
        ...


@dataclass(frozen=True)
class Wanted:
    """A request that is to go into a batch, and its worst-case price there."""

    item: Item
    request: Request
    prompt: Prompt
    prompt_type: str
    micro_usd: int


@dataclass(frozen=True)
class Line:
    """A request of a batch with its hold, for an item."""

    charge_id: int
    item: Item
    request: Request

    @property
    def custom_id(self) -> str:
        """By which its result is found."""
        return str(self.charge_id)


@dataclass(frozen=True)
class Job:
    """A batch whose results are not all stored, with the lines that lack theirs."""

    id: int
    name: str
    remote_id: str | None
    created_at: datetime
    lines: Sequence[Line]
    custom_ids: frozenset[str]
    """Of all its lines, also of those whose results are stored."""


@dataclass(frozen=True)
class Explanation:
    """A rationale by the student. `answer` is None where none could be parsed."""

    steps: tuple[str, ...]
    answer: Answer | None
    text: str = ""
    """As generated."""
    probabilities: tuple[float, ...] = ()
    """Of the allowed answers, in their order, where the student has them without being asked again."""


@dataclass(frozen=True)
class Example:
    """An item with its decided rationale, used for training."""

    item: Item
    steps: tuple[str, ...]
    answer: Answer
    weight: float = 1.0
    refused: tuple[tuple[str, ...], Answer] | None = None
    """Steps and answer that people corrected or rejected in its favour."""
    gold: bool = False
    """Whether people decided it, or it came with its answer."""
    risk: float = 0.0
    """How probably it is wrong, where nobody decided it."""
    repaired: frozenset[int] = frozenset()
    """Numbers of the steps that a person changed, from 0."""
    validates: bool | None = None
    """Whether it says how good the student is instead of teaching it; None where nobody has drawn that yet."""


@dataclass(frozen=True)
class Forced:
    """An answer forced after a part of an explanation; with the probabilities of the allowed answers where few are."""

    answer: Answer | None
    probabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class StudentPrediction:
    """The student's answer to an item with its explanation."""

    answer: Answer | None
    explanation: Explanation


@dataclass(frozen=True)
class Written:
    """A text as it grew, a token a piece; `ended` is false where it was cut at its longest."""

    pieces: tuple[str, ...]
    ended: bool


@dataclass(frozen=True)
class Trained:
    """What training left on disk and in figures (loss per epoch, tokens, seconds, device, library versions)."""

    folder: Path
    card: Mapping[str, object] = field(default_factory=dict)


class Student(Protocol):
    """A small model that explains and answers."""

    def explain(
        self, items: Sequence[Item], *, copies: Sequence[int], temperature: float, top_p: float, seed: int
    ) -> list[list[Explanation]]:
        """For each item its explanations of these numbers: 0 is the greedy one, every other one is a sample."""
        ...

    def go_on(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[Explanation]:
        """For each item the greedy explanation that begins with the given steps; those alone by students that write
        none.
        """
        ...

    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """For each item the answers forced after each of the given parts of an explanation."""
        ...

    def probabilities(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Of the allowed answers given the item alone, in their order; empty where any answer is allowed."""
        ...

    def step_likelihoods(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each item the mean log-probability of a token of each step, given the item and the steps before.

        Empty for students that write no steps.
        """
        ...

    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Each item as a vector of length 1, (items, dimensions)."""
        ...

    def doubt(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """How unsure the answer is that is given at once, from a single pass: 0 is sure; (items,)."""
        ...

    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        """Greedy answers, with the explanation where the student answers by one."""
        ...

    def write(self, item: Item, *, copies: Sequence[int], temperature: float, top_p: float, seed: int) -> list[Written]:
        """The texts of these numbers with which the student answers, numbered as in `explain`."""
        ...

    def reads(self, item: Item) -> tuple[int, int]:
        """How many tokens the item takes, and how many fit; what does not fit is cut off."""
        ...


@dataclass(frozen=True)
class Opening:
    """What a served student goes on from, and how: greedily at temperature 0."""

    prompt: Sequence[int] | str
    """Tokens; or the text that they spell, for a server that takes no tokens."""
    longest: int
    stops: Sequence[int]
    """Tokens that end what is written."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Continued:
    """What a server wrote."""

    tokens: Sequence[int] | None
    """None where the server names none."""
    text: str
    ended: bool
    """False where it was cut at its longest."""
    log_probability: float | None
    """Of the first token, where the server says it."""
    cached_tokens: int | None
    """How much of the prompt it had read before, where the server says it."""


class StudentHost(Protocol):
    """A server that runs the student's checkpoints.

    What goes wrong for good (no connection, a wrong key, an unknown model) is a `StudentError` that names the cure.
    """

    def load(self, folder: Path | None) -> str:
        """Have it hold a checkpoint, or the untrained student; the name under which it is asked."""
        ...

    def continued(self, model: str, groups: Sequence[Sequence[Opening]]) -> list[list[Continued]]:
        """What comes after each opening; those of a group begin alike, and find this read by the first of them."""
        ...

    def scored(self, model: str, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each sequence the log-probability of every token but the first."""
        ...


class Trainer(Protocol):
    """Makes students."""

    def student(self, folder: Path | None) -> Student:
        """The student of a checkpoint, whatever the settings are now; or the untrained one."""
        ...

    def train(
        self, examples: Sequence[Example], *, seed: int, folder: Path, progress: "Progress", start: Path | None = None
    ) -> Trained:
        """Train on the examples, from the base model or a checkpoint, and leave a complete checkpoint in `folder`.

        The folder appears whole or not at all (written beside its name, then renamed).
        """
        ...


Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Cluster(Protocol):
    """Where the student's work is done; what comes of it is stored by who asked for it."""

    def map(
        self, student: Student, work: Callable[[Student, Piece], Result], pieces: Sequence[Piece]
    ) -> Iterator[tuple[int, Result]]:
        """What comes of each piece, with its number, as soon as it is there, in any order.

        The work may be sent to another machine, and is done again where one is lost: it goes by its arguments alone,
        and writes nothing. No more pieces are under way than there are workers, those included that wait to be taken.
        """
        ...

    def side_by_side(self, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
        """What comes of each piece, in their order; the work runs here, what it asks of a student side by side."""
        ...


class InProcess:
    """All work is done here, one piece after the other."""

    def map(
        self, student: Student, work: Callable[[Student, Piece], Result], pieces: Sequence[Piece]
    ) -> Iterator[tuple[int, Result]]:
        """As `Cluster.map`, in order."""
        return ((number, work(student, piece)) for number, piece in enumerate(pieces))

    def side_by_side(self, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
        """As `Cluster.side_by_side`."""
        return [work(piece) for piece in pieces]


class Reviewers(Protocol):
    """The board behind the loop's REVIEW stage, idempotent throughout."""

    def worth(self, rows: Sequence[Rationale]) -> Mapping[int, float]:
        """What a minute of review is worth for each rationale, by its id."""
        ...

    def push(self, tasks: Sequence[tuple[ReviewTask, Rationale, Item]]) -> None:
        """Put what is not yet there on the board; each stored as soon as it stands there."""
        ...

    def pull(self) -> int:
        """Store all new verdicts, raw and interpreted, and note what was deleted; how many changed."""
        ...

    def address(self) -> str:
        """Where reviewers find the work."""
        ...


class Progress(Protocol):
    """Shows how far long work is."""

    def bar(self, title: str, total: int) -> AbstractContextManager["Bar"]:
        """A bar for the duration of the block."""
        ...

    def say(self, text: str) -> None:
        """A line for the user."""
        ...


class Bar(Protocol):
    """One progress bar."""

    def advance(self, steps: int = 1) -> None:
        """Move on."""
        ...


class Silent:
    """Progress that shows nothing, for work within work."""

    def bar(self, title: str, total: int) -> AbstractContextManager["Silent"]:  # noqa: ARG002 - the port's names
        """Nothing."""
        return nullcontext(self)

    def say(self, text: str) -> None:
        """Nothing."""

    def advance(self, steps: int = 1) -> None:
        """Nothing."""


SOON = 1.0
"""Seconds within which a turn at an endpoint is taken in advance, so that most requests look once."""


class Till(Protocol):
    """Where requests reserve their price before they are sent; every call is one transaction."""

    def reserve(self, purpose: str, micro_usd: int, *, item_key: str = "", prompt_type: str = "") -> int:
        """Hold the worst-case price of one attempt; the charge's id.

        Raises:
            BudgetSpent: it does not fit under the limit of the run, of the round or of the item's domain.
        """
        ...

    def settle(self, charge_id: int, micro_usd: int) -> None:
        """Pay for a reply that is not kept, because it was cut off and is asked for again."""
        ...

    def release(self, charge_id: int) -> None:
        """Give a hold back: the request certainly never reached the endpoint."""
        ...

    def assume(self, charge_id: int) -> None:
        """Charge a hold at worst case and mark it `assumed`: whether the request was served is unknown."""
        ...

    def lengths(self, prompt_type: str) -> list[int]:
        """How many tokens the latest whole replies to such prompts took."""
        ...

    def turn(self, tokens: int) -> float:
        """Seconds until a request of so many tokens may go: a turn taken if within `SOON`, else try again then."""
        ...

    def close(self, seconds: float) -> None:
        """Give nobody a turn for so long."""
        ...


@runtime_checkable
class Together(Protocol):
    """A till that can write many calls in one transaction."""

    def together(self) -> AbstractContextManager[None]:
        """Calls within the block are committed at its end, all of them; one that fails leaves nothing behind."""
        ...


class AskBook(Till, Protocol):
    """Where asking writes down what it spends and gets; every call is one transaction."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, reply: Reply, rationale: Rationale | None) -> None:
        """Settle the charge and store prompt, reply and rationale (its `reply_id` is set here), all or nothing."""
        ...

    def give_up(self, item_key: str, problem: str) -> None:
        """Note on the round's query why no readable reply will come."""
        ...

    def settle_on(self, rationales: Sequence[Rationale]) -> None:
        """Store the rationales of an item that was asked more than once; their `reply_id` names their replies."""
        ...


class BatchBook(AskBook, Protocol):
    """Where asking by batches writes down what it hands over; every call is one transaction."""

    def open_jobs(self) -> Sequence[Job]:
        """The round's batches whose results are not all stored."""
        ...

    def prepare(self, wanted: Sequence[Wanted]) -> None:
        """Reserve the prices of those requests that fit under all limits, and make a job of them, all or nothing."""
        ...

    def times_posted(self) -> Mapping[tuple[str, int], int]:
        """How often a request was in a batch of the round that the endpoint took, by item and sample."""
        ...

    def created(self, job_id: int, remote_id: str) -> None:
        """Store the endpoint's id of a batch."""
        ...

    def close_job(self, job_id: int, problem: str | None = None) -> None:
        """All that came of a batch is stored; with a problem, its holds are given back."""
        ...


class TrialBook(Till, Protocol):
    """Where trials of demonstrations write down what they spend and get; every call is one transaction."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, trial: Trial) -> None:
        """Settle the charge and store prompt and trial, all or nothing."""
        ...


class RevisionBook(Till, Protocol):
    """Where revising the student's explanations writes down what it spends and gets; every call is one transaction."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, reply: RevisionReply) -> None:
        """Settle the charge and store prompt and reply, all or nothing."""
        ...

    def settle_on(self, revision: Revision, student: Rationale, revised: Rationale | None) -> None:
        """Store what came of it: the student's own rationale, and the revised one where there is one."""
        ...


class JudgeBook(Till, Protocol):
    """Where judging writes down what it spends and gets; every call is one transaction."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, judgement: Judgement) -> None:
        """Settle the charge and store prompt and judgement, all or nothing."""
        ...


class ReviewBook(Protocol):
    """Where the desk writes down what stands on the board and what came back; every call is one transaction."""

    def mark_pushed(self, placed: Mapping[str, str], *, board: str, project: str) -> None:
        """Note under which ids tasks stand on the board, by uid."""
        ...

    def placed(self, board: str, project: str) -> set[str]:
        """The uids of the tasks that stand in a project as far as is known."""
        ...

    def mark_gone(self, uids: Collection[str]) -> None:
        """Note that tasks no longer stand on the board: those without a verdict are to be pushed again."""
        ...

    def listing_due(self, board: str, project: str) -> bool:
        """Whether the project is to be listed whole; one that never was is."""
        ...

    def mark_listed(self, board: str, project: str, *, again: datetime) -> None:
        """Note that the project was listed whole, and when it is to be the next time."""
        ...

    def doubt(self, board: str, project: str) -> None:
        """Have the project listed whole soon: a request may still be carried out."""
        ...

    def watermark(self, board: str, project: str) -> str | None:
        """The newest `updated_at` of the verdicts stored for this project (ISO 8601 with microseconds)."""
        ...

    def reviewed(self, uids: Collection[str]) -> Mapping[str, tuple[ReviewTask, Rationale, Item]]:
        """The tasks of those uids that are ours, with rationale and item, by their own uid, whichever copy is meant."""
        ...

    def forgotten(self, uids: Collection[str]) -> set[str]:
        """Those of the uids that begin as the uid of a task about an item that was forgotten does."""
        ...

    def queue(self, round_id: int, *, but: Set[str] = frozenset()) -> list[tuple[ReviewTask, Rationale]]:
        """The tasks of a round with their rationales, judged or not, but for those of some uids; by uid."""
        ...

    def given(self, round_id: int) -> Mapping[int, Sequence[Verdict]]:
        """Every readable verdict on the rationales of a round, by rationale."""
        ...

    def keep_queued(self, tasks: Sequence[ReviewTask]) -> None:
        """Store whose each task is, since when, and its place in the queue."""
        ...

    def slots(self) -> list[int]:
        """The slots in which the run ever opened a task."""
        ...

    def keep_verdicts(self, verdicts: Sequence[Verdict]) -> int:
        """Store verdicts and settle their tasks' minutes; how many were versions that were not stored yet.

        Those on rationales that are no longer there are left out.
        """
        ...

    def mark_deleted(
        self, board: str, project: str, standing: Mapping[str, Collection[str]], *, before: datetime
    ) -> int:
        """Note which annotations are gone from tasks that stand there, and which are back; how many changed."""
        ...
