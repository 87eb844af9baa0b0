"""What was sent to the teacher and to the judge, and what came back."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger
from sqlmodel import JSON, Field, SQLModel, UniqueConstraint

AGAIN = -1
"""The sample number of the one reply to a second, longer prompt, sent where the first reply was unsure."""
STRONGER = -2
"""The sample number of the first stronger teacher's reply; that of the next one is one less, and so on."""


class ReplyState(StrEnum):
    """Whether a reply could be read."""

    READABLE = "readable"
    UNREADABLE = "unreadable"


class Prompt(SQLModel, table=True):
    """Everything that shaped a request, by its hash."""

    hash: str = Field(primary_key=True)
    body: dict[str, Any] = Field(sa_type=JSON)


class Reply(SQLModel, table=True):
    """A raw reply of the teacher, stored together with its settlement."""

    __table_args__ = (UniqueConstraint("round_id", "item_key", "sample", "version", name="uq_reply_version"),)

    id: int | None = Field(default=None, primary_key=True)
    round_id: int = Field(foreign_key="round.id", index=True)
    item_key: str = Field(foreign_key="item.key", index=True)
    sample: int = 0
    version: int = 1
    """Of the rationale that it gives: 1 answers the item alone, a later one goes on from a corrected prefix."""
    prompt_hash: str = Field(foreign_key="prompt.hash")
    charge_id: int | None = Field(default=None, foreign_key="charge.id")
    teacher: str = ""
    """Model name as it was asked for."""
    model: str
    """Model name as the endpoint gave it back."""
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """Of the input tokens those that the endpoint had in its prompt cache, by its own account."""
    state: ReplyState = ReplyState.READABLE
    problem: str | None = None
    confidence: float | None = None
    """How sure the teacher is, in [0, 1], as it came; None where nothing said so."""
    confidence_by: str = ""
    """Where that is from: `logprobs` (the probability of the answer's tokens) or `stated`."""
    remembered: str | None = None
    """Endpoint and time at which it was paid for, where it is an earlier reply that cost nothing now."""
    saved: int = Field(default=0, sa_type=BigInteger)
    """Micro-dollars that a remembered reply would have cost."""
    created_at: datetime


class RevisionReply(SQLModel, table=True):
    """A raw reply about the student's own explanation, stored together with its settlement."""

    __table_args__ = (UniqueConstraint("round_id", "item_key", "prompt_hash"),)

    id: int | None = Field(default=None, primary_key=True)
    round_id: int = Field(foreign_key="round.id", index=True)
    item_key: str = Field(foreign_key="item.key", index=True)
    prompt_hash: str = Field(foreign_key="prompt.hash")
    charge_id: int | None = Field(default=None, foreign_key="charge.id")
    model: str
    """Model name as the endpoint gave it back."""
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """As of a reply."""
    remembered: str | None = None
    """As of a reply."""
    saved: int = Field(default=0, sa_type=BigInteger)
    """As of a reply."""
    created_at: datetime


class Revision(SQLModel, table=True):
    """What came of having the teacher check and put right the student's own explanation of an item."""

    round_id: int = Field(foreign_key="round.id", primary_key=True)
    item_key: str = Field(foreign_key="item.key", primary_key=True)
    way: str
    """`one_shot`, `teacher_finish` or `student_continue`."""
    expected: dict[str, int] = Field(default_factory=dict, sa_type=JSON)
    """Micro-dollars that each way was expected to cost when one was chosen."""
    steps: int
    """Steps of the student's explanation, without those that only state the answer."""
    kept: int = 0
    """How many of them stand in the revised one."""
    first_wrong: int | None = None
    """The first step that the teacher found wrong, 0-based; None where it found none."""
    corrections: int = 0
    problem: str | None = None
    """Why nothing came of it, so that the item was explained anew."""
    student_id: int | None = Field(default=None, foreign_key="rationale.id")
    """The student's own rationale."""
    rationale_id: int | None = Field(default=None, foreign_key="rationale.id", index=True)
    """The revised one."""
    created_at: datetime


class BatchJob(SQLModel, table=True):
    """Requests that were handed to the endpoint together, to be answered within a day at a lower price."""

    id: int | None = Field(default=None, primary_key=True)
    run: str
    round_id: int = Field(foreign_key="round.id", index=True)
    name: str = Field(unique=True)
    """By which the endpoint's list of batches shows whether it has it: this is stored before anything is sent."""
    remote_id: str | None = None
    """The endpoint's own id; None until it is known to have the batch."""
    problem: str | None = None
    """Why no line of it was answered."""
    created_at: datetime
    closed_at: datetime | None = None
    """When all its results were stored."""


class BatchLine(SQLModel, table=True):
    """One request of a batch. Its charge's id is the `custom_id` by which its result is found."""

    charge_id: int = Field(foreign_key="charge.id", primary_key=True)
    job_id: int = Field(foreign_key="batchjob.id", index=True)
    item_key: str = Field(foreign_key="item.key")
    sample: int
    prompt_hash: str = Field(foreign_key="prompt.hash")
    hidden: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    """What the placeholders in the prompt stand for."""


class TrialKind(StrEnum):
    """What a request to the teacher is for that concerns its demonstrations."""

    EXPLAIN = "explain"
    """Why a known answer is right."""
    RECOVER = "recover"
    """What the answer is, by the steps of such an explanation alone."""
    DEV = "dev"
    """An item that people decided, to see what a set of demonstrations is worth."""


class Trial(SQLModel, table=True):
    """A raw reply about an item that people decided, stored together with its settlement. It is never trained on."""

    __table_args__ = (UniqueConstraint("run", "kind", "item_key", "prompt_hash"),)

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    round_id: int = Field(foreign_key="round.id")
    kind: TrialKind
    item_key: str = Field(foreign_key="item.key", index=True)
    prompt_hash: str = Field(foreign_key="prompt.hash")
    charge_id: int | None = Field(default=None, foreign_key="charge.id")
    model: str
    """Model name as the endpoint gave it back."""
    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """As of a reply."""
    steps: list[str] = Field(default_factory=list, sa_type=JSON)
    answer: str | None = None
    """Canonical JSON; None where the reply states none that is allowed."""
    problem: str | None = None
    created_at: datetime


class DemonstrationSet(SQLModel, table=True):
    """What may be shown in prompts from a round on, in groups that many items share. The newest one taken counts.

    Each member of a group is `{"key", "steps", "answer"}`, the answer as canonical JSON.
    """

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(index=True)
    round_id: int = Field(foreign_key="round.id", unique=True)
    hash: str
    groups: list[list[dict[str, Any]]] = Field(sa_type=JSON)
    dev_items: int = 0
    """Items that people decided and that are in no group, by which it was measured: those answered with it and with
    the set before. 0, and not taken: it was not measured, and is tried again."""
    dev_right: int = 0
    """How many of them the teacher answers as people did, shown this set."""
    dev_before: int = 0
    """The same, shown the set that was in force before, or nothing."""
    taken: bool
    reason: str
    created_at: datetime


class ConfidenceFit(SQLModel, table=True):
    """From the teacher's confidence to the chance that people find its rationale right, in a round (Platt scaling)."""

    round_id: int = Field(foreign_key="round.id", primary_key=True)
    source: str = Field(primary_key=True)
    """`logprobs`, `stated` or `votes`, as in `Rationale.confidence_by`."""
    slope: float
    intercept: float
    reviewed: int
    """Verdicts that it was fitted on."""
    ece: float
    """Expected calibration error of models that did not see the verdict (10 bins)."""


class Probe(SQLModel, table=True):
    """What an endpoint was seen to support; the newest row of an endpoint and model counts.

    A feature is None where nothing was seen of it.
    """

    id: int | None = Field(default=None, primary_key=True)
    endpoint: str = Field(index=True)
    model: str
    source: str
    """`probe` (requests made for it) or `replies` (seen in the replies of a run)."""
    purpose: str = ""
    """What the purposes of its charges begin with."""
    json_schema: bool | None = None
    """Whether a reply has the form that a schema asks for."""
    logprobs: bool | None = None
    """Whether it says how probable each token was."""
    choices: bool | None = None
    """Whether one request brings several choices (`n`)."""
    sampling: bool | None = None
    """Whether samples differ."""
    seed: bool | None = None
    """Whether a repeated seed repeats the sample."""
    batches: bool | None = None
    """Whether it lists batches; none was ever sent."""
    seen: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    """What was seen, by feature, in words."""
    probed_at: datetime


class StepVerdict(StrEnum):
    """What the judge says of one step."""

    OK = "ok"
    WRONG = "wrong"
    UNSUPPORTED = "unsupported"
    REDUNDANT = "redundant"


class Judgement(SQLModel, table=True):
    """What the judge said of one step of a rationale, stored together with its settlement."""

    __table_args__ = (UniqueConstraint("rationale_id", "step"),)

    id: int | None = Field(default=None, primary_key=True)
    rationale_id: int = Field(foreign_key="rationale.id", index=True)
    step: int
    """0-based."""
    prompt_hash: str = Field(foreign_key="prompt.hash")
    charge_id: int | None = Field(default=None, foreign_key="charge.id")
    model: str
    """Model name as the endpoint gave it back."""
    text: str
    """The raw reply."""
    finish_reason: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    """As of a reply."""
    verdict: StepVerdict | None = None
    """None where the reply could not be read."""
    evidence: str = ""
    confidence: float | None = None
    """How sure the judge says it is, in [0, 1]; kept and shown, nothing is computed from it."""
    problem: str | None = None
    """Why the reply could not be read."""
    remembered: str | None = None
    """As of a reply."""
    saved: int = Field(default=0, sa_type=BigInteger)
    """As of a reply."""
    created_at: datetime
