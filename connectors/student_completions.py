"""Completions of tokens or raw texts by a causal student, as vLLM answers `/v1/completions`.

What an engine needs that samples at scale: token ids in and out, `top_k`, `stop_token_ids`, log-probabilities of what
was written and of the prompt.
"""

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from connectors.student_requests import MOST_CHOICES, NEUTRAL, Asked, Stops, cut
from loop.ports import Written
from loop.student.decoder import Decoder
from loop.student.reading import Reading, Sampling, continuations

Token = Annotated[int, Field(ge=0, lt=1 << 31)]


class CompletionRequest(Asked):
    """What is read of a request. `temperature` is 0 where it is left out; sampling looks at the 50 likeliest tokens."""

    neutral = NEUTRAL

    model: str
    prompt: Annotated[str, Field(min_length=1)] | Annotated[list[Token], Field(min_length=1)]
    n: int = Field(default=1, ge=1, le=MOST_CHOICES)
    max_tokens: int = Field(default=16, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: Literal[50] = 50
    min_p: Literal[0] = 0
    repetition_penalty: Literal[1] = 1
    seed: int | None = None
    stop: Stops = Field(default=[])
    stop_token_ids: list[Token] = Field(default=[], max_length=16)
    logprobs: int | None = Field(default=None, ge=0, le=1)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=1)
    return_token_ids: bool = False
    stream: Literal[False] = False
    user: str = ""


def prompt_of(student: Decoder, request: CompletionRequest) -> list[int]:
    """The prompt as token ids, with what the tokenizer puts before a text.

    Raises:
        ValueError: the model has no such token, or too few positions for it and what is to be written.
    """
    if isinstance(request.prompt, str):
        ids: list[int] = student.tokenizer(request.prompt)["input_ids"]
    else:
        ids = request.prompt
    size = student.model.get_input_embeddings().num_embeddings
    if max(ids) >= size:
        raise ValueError(f"`prompt` holds the token {max(ids)}, and the model has {size}")
    if student.crowded(len(ids), request.max_tokens):
        raise ValueError(f"`prompt` and `max_tokens` are more than the {student.positions} tokens that the model reads")
    return ids


def completed(student: Decoder, prompt: list[int], request: CompletionRequest, seed: int) -> dict[str, Any]:
    """The completion as the protocol has it."""
    rows = [_ended(student, ids, request) for ids in _written(student, prompt, request, seed)]
    made = sum(len(ids) for ids, _, _ in rows)
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [
            {
                "index": number,
                "text": text,
                "finish_reason": reason,
                "logprobs": None,
                **_details(student, prompt, ids, request),
            }
            for number, (ids, text, reason) in enumerate(rows)
        ],
        "usage": {"prompt_tokens": len(prompt), "completion_tokens": made, "total_tokens": len(prompt) + made},
    }


def _ended(student: Decoder, ids: list[int], request: CompletionRequest) -> tuple[list[int], str, str]:
    """What was written up to a stop text, as tokens and as a text, and why it ends."""
    ended = ids[-1] in {student.end, *request.stop_token_ids}
    shown = ids[:-1] if ended else ids
    grown = [shown[:length] for length in range(1, len(shown) + 1)] if request.stop else [shown]
    text, pieces, reason = cut(Written(tuple(student.decoded(grown)), ended), None, request.stop)
    return ids if pieces == len(grown) else ids[:pieces], text, reason


def _written(student: Decoder, prompt: list[int], request: CompletionRequest, seed: int) -> list[list[int]]:
    """As many texts as are asked for, with the token that ended them; at temperature 0 all are the same one."""
    copies = request.n if request.temperature else 1
    draws = torch.zeros(copies, request.max_tokens)
    for number in range(copies if request.temperature else 0):
        chance = random.Random(f"{seed}/{number}")
        draws[number] = torch.tensor([chance.random() for _ in range(request.max_tokens)])
    with torch.inference_mode():
        reading = Reading(student.model, [prompt], student.pad)
        reading.take(torch.zeros(copies, dtype=torch.long))
        rows = continuations(
            [reading],
            longest=request.max_tokens,
            stops=[student.end, *request.stop_token_ids],
            sampling=Sampling(request.temperature or 1.0, request.top_p, draws),
        )
    return rows if request.temperature else rows * request.n


def _details(student: Decoder, prompt: list[int], ids: list[int], request: CompletionRequest) -> dict[str, Any]:
    """What is said of a text only where it is asked for."""
    found: dict[str, Any] = {}
    if request.return_token_ids:
        found["token_ids"] = ids
    if request.logprobs is not None or request.prompt_logprobs is not None:
        places = _places(student, [*prompt, *ids])
        if request.prompt_logprobs is not None:
            found["prompt_logprobs"] = [None, *places[: len(prompt) - 1]]
        if request.logprobs is not None:
            found["logprobs"] = _said(ids, places[len(prompt) - 1 :])
    return found


def _said(ids: Sequence[int], places: Sequence[Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    own = [place[each] for place, each in zip(places, ids, strict=True)]
    return {
        "tokens": [each["decoded_token"] for each in own],
        "token_logprobs": [each["logprob"] for each in own],
        "top_logprobs": [{each["decoded_token"]: each["logprob"] for each in place.values()} for place in places],
    }


@torch.inference_mode()
def _places(student: Decoder, ids: list[int]) -> list[dict[int, dict[str, Any]]]:
    """At every place but the first: the log-probabilities of the token there and of the likeliest one."""
    read = torch.tensor([ids], device=student.model.device)
    scores = student.model(input_ids=read, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1).cpu()
    best = scores.argmax(dim=-1).tolist()
    return [
        {
            token: {"logprob": float(row[token]), "decoded_token": student.tokenizer.decode([token])}
            for token in {own, likeliest}
        }
        for row, own, likeliest in zip(scores, ids[1:], best, strict=True)
    ]
