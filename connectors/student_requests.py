"""What may be asked of a student behind the OpenAI protocol, and how the rest is refused."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from loop.ports import Written

MOST_CHOICES = 64
"""Texts that one request may ask for."""
NEUTRAL: Mapping[str, object] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "presence_penalty": 0,
}
"""Values that change nothing, of what is not supported with any other one."""
NEUTRAL_IN_CHAT: Mapping[str, object] = {
    **NEUTRAL,
    "logprobs": False,
    "metadata": {},
    "response_format": {"type": "text"},
    "store": False,
    "tool_choice": "none",
    "tools": [],
}

Stops = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(max_length=4),
    BeforeValidator(lambda said: [said] if isinstance(said, str) else said),
]
"""Texts that end an answer; one may be said alone."""


class Refused(Exception):
    """A request that gets an error instead of an answer."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class Asked(BaseModel):
    """A body, or a part of one; what is null, or neutral, is as if it were left out."""

    model_config = ConfigDict(extra="forbid")
    neutral: ClassVar[Mapping[str, object]] = {}

    @model_validator(mode="before")
    @classmethod
    def _told(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        return {name: each for name, each in said.items() if not cls._says_nothing(name, each)}

    @classmethod
    def _says_nothing(cls, name: str, value: object) -> bool:
        if value is None:
            return name in cls.model_fields or name in cls.neutral
        return name in cls.neutral and value == cls.neutral[name]


AnyAsked = TypeVar("AnyAsked", bound=Asked)


class _Part(Asked):
    """A piece of a message; pictures and sound are refused."""

    type: Literal["text"]
    text: str


class _Message(Asked):
    """The question; a system message or an earlier turn is nothing that the student was trained with."""

    role: Literal["user"]
    content: str | list[_Part]
    name: str = ""

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class _StreamOptions(Asked):
    """What a stream tells beside the text."""

    neutral = {"include_obfuscation": False}

    include_usage: bool = False


class ChatRequest(Asked):
    """What is read of a request; `temperature` is 0 where it is left out, and `user` changes nothing anywhere."""

    neutral = NEUTRAL_IN_CHAT

    model: str
    messages: Annotated[list[_Message], Field(min_length=1, max_length=1)]
    n: int = Field(default=1, ge=1, le=MOST_CHOICES)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    stop: Stops = Field(default=[])
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    user: str = ""

    @property
    def longest(self) -> int | None:
        """How many tokens an answer may have, by the name of today or by the older one.

        Raises:
            Refused: the two names say two things.
        """
        both = {self.max_completion_tokens, self.max_tokens} - {None}
        if len(both) > 1:
            said = "`max_tokens` is the older name of `max_completion_tokens`, and they differ; send one of them"
            raise Refused(400, said, "invalid_value", "max_tokens")
        return next(iter(both), None)


class LoadRequest(Asked):
    """A checkpoint, and the name by which it will be asked."""

    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str


def parsed(raw: bytes, kind: type[AnyAsked]) -> AnyAsked:
    """The request.

    Raises:
        Refused: it asks for what it cannot have, which is named.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            place = ".".join(str(part) for part in first["loc"])
            said = f"`{place}` is not supported; leave it out"
        elif place == "messages":
            said = (
                "`messages`: the student answers one question: send one user message of text, without system message "
                "or history"
            )
        elif first["type"] == "literal_error":
            said = f"`{place}` is not supported; leave it out"
        else:
            said = f"`{place}`: {first['msg']}" if place else f"the body is no such request: {first['msg']}"
        raise Refused(400, said, "invalid_value", place or None) from error


def cut(written: Written, longest: int | None, stops: Sequence[str]) -> tuple[str, int, str]:
    """The text up to its longest or to a stop text, how many tokens were written for it, and why it ends."""
    pieces = written.pieces if longest is None else written.pieces[:longest]
    for number, piece in enumerate(pieces, start=1):
        found = [piece.index(stop) for stop in stops if stop in piece]
        if found:
            return piece[: min(found)], number, "stop"
    ended = written.ended and len(pieces) == len(written.pieces)
    return pieces[-1] if pieces else "", len(pieces), "stop" if ended else "length"
