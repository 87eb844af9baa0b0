"""The teacher, or the judge, behind any endpoint that speaks the OpenAI chat protocol."""

import asyncio
import ipaddress
import math
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import genai_prices
import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncOpenAI,
    DefaultAsyncHttpxClient,
)

from connectors import spans
from loop.config import EndpointConfig, without_secrets
from loop.errors import BadConfig, ItemRefused, PromptTooLong, TeacherBusy, TeacherError, TeacherRefused, UnknownPrice
from loop.ports import Completion, Request

PUBLIC_ADDRESS = "https://api.openai.com/v1"
NO_KEY = "no-key-needed"
"""Sent to an endpoint on loopback where no key is set."""
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""What went wrong before a byte of the request left."""
PASSING = frozenset({408, 409, 425, 429})
"""Statuses under 500 after which another attempt may succeed."""
OVERLOADED = frozenset({429, 503, 529})
"""Statuses of an endpoint that was sent too much at once."""
DURATION = re.compile(r"(?P<number>\d{1,9}(?:\.\d{1,9})?)(?P<unit>ms|s|m|h|d|)")
SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
TOO_LONG = ("context_length", "context length", "context size", "context window", "too long")
"""Found in refusals that concern one request by its length."""
LONGEST_SAID = 300
"""Characters of an endpoint's own words in an error."""
UNWANTED = ("content_filter", "content_policy", "content management policy")
"""Found in refusals that concern one request by its content."""


@dataclass(frozen=True)
class Given:
    """All that an endpoint gave for one request: the first choice, how many there were, whether with logprobs."""

    completion: Completion
    choices: int
    logprobs: bool


Through = Callable[[Request, Mapping[str, object]], Awaitable[httpx2.Response]]
"""What sends a request, with parameters beside it, from elsewhere; raises like `OpenAITeacher.answer`."""


class OpenAITeacher:
    """A teacher behind an OpenAI-compatible endpoint.

    Used as an async context it keeps one client with its connections; outside, each request opens and closes its own.
    """

    def __init__(self, config: EndpointConfig, through: Through | None = None) -> None:
        """Find the key; requests for completions go `through` something else where that is given.

        Raises:
            BadConfig: the environment variable that should hold the key is empty.
        """
        self._config, self._through = config, through
        self._url = address_of(config)
        self._address = shown_address(self._url)
        self._key = os.environ.get(config.api_key_env) or (NO_KEY if is_loopback(self._address) else "")
        self._client: AsyncOpenAI | None = None
        if not self._key:
            raise BadConfig(
                f"the environment variable {config.api_key_env} is empty; put the key for {self._address} there, "
                f"or name another variable in {config.table}.api_key_env"
            )

    async def __aenter__(self) -> Self:
        """Open the client that the requests of this block share."""
        self._client = self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client with its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def complete(self, request: Request) -> Completion:
        """Send the request once, for one choice.

        Raises:
            TeacherBusy: another attempt may succeed.
            TeacherRefused: it will not.
        """
        with spans.asked(request, self._config.table, self._address) as span:
            completion = self._completion(await self.answer(request, {}), request)
            spans.answered(span, completion)
            return completion

    async def given(self, request: Request, more: Mapping[str, object]) -> Given:
        """All that comes of a request with parameters beside those that requests have; raises like `complete`."""
        response = await self.answer(request, more)
        completion, choices = self._completion(response, request), at(response.json(), "choices")
        probable = at(choices, 0, "logprobs", "content")
        return Given(
            completion=completion,
            choices=len(choices) if isinstance(choices, list) else 0,
            logprobs=probable is not None and isinstance(at(probable, 0, "logprob"), int | float),
        )

    async def lists_batches(self) -> bool:
        """Whether the endpoint answers like one with a batch API; nothing is charged for asking.

        Raises:
            TeacherBusy: it did not answer, or is passing through trouble.
        """
        async with self.open() as client:
            try:
                raw = await client.batches.with_raw_response.list(limit=1)
                body = raw.http_response.json()
            except APIStatusError as error:
                if isinstance(said := self.refusal(error), TeacherBusy):
                    raise said from error
                return False
            except ValueError:
                return False
            except APIConnectionError as error:
                raise self.lost(error) from error
        return isinstance(at(body, "data"), list)

    def price(self, request: Request, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """Micro-dollars for that many tokens, rounded up: by the config's prices, else by `genai-prices`.

        Raises:
            UnknownPrice: neither knows the model's price.
        """
        table, prices = self._config.table, (self._config.input_price, self._config.output_price)
        if prices[0] is not None and prices[1] is not None:
            cached = prices[0] if self._config.cached_input_price is None else self._config.cached_input_price
            counts = (input_tokens - cached_tokens, output_tokens, cached_tokens)
            # A dollar per million tokens is a micro-dollar per token.
            return math.ceil(sum(Decimal(str(each)) * n for each, n in zip((*prices, cached), counts, strict=True)))
        if prices != (None, None):
            raise UnknownPrice(f"set both {table}.input_price and {table}.output_price, or neither")
        usage = genai_prices.Usage(
            input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached_tokens
        )
        try:
            found = genai_prices.calc_price(usage, request.model, provider_api_url=self._address)
        except LookupError as error:
            raise UnknownPrice(
                f"the price of {request.model} at {self._address} is not known; set {table}.input_price and "
                f"{table}.output_price (US dollars per million tokens; 0 for a model of your own)"
            ) from error
        micro: int = math.ceil(found.total_price * 1_000_000)
        return micro

    def open(self) -> AsyncOpenAI:
        """A client for the endpoint, to be closed by who asks for it."""
        timeout = httpx2.Timeout(self._config.timeout, connect=min(10.0, self._config.timeout))
        return AsyncOpenAI(
            api_key=self._key,
            base_url=self._url,
            max_retries=0,
            timeout=timeout,
            # Requests to this machine must not go through a proxy that the environment names.
            http_client=DefaultAsyncHttpxClient(
                base_url=self._url,
                timeout=timeout,
                trust_env=not is_loopback(self._address),
                # Where the endpoint points elsewhere, prompts and key stay here.
                follow_redirects=False,
            ),
        )

    async def answer(self, request: Request, more: Mapping[str, object]) -> httpx2.Response:
        """The answer to a request, through the client that is open or through one of its own.

        Raises:
            TeacherBusy: another attempt may succeed.
            TeacherRefused: it will not.
        """
        if self._through is not None:
            return await self._through(request, more)
        if self._client is not None:
            return await self._send(self._client, request, more)
        async with self.open() as client:
            return await self._send(client, request, more)

    async def _send(self, client: AsyncOpenAI, request: Request, more: Mapping[str, object]) -> httpx2.Response:
        """The answer, or what went wrong in the loop's words."""
        body = body_of(request) | ({} if self._config.redact.on else headers_of(request)) | dict(more)
        try:
            async with asyncio.timeout(self._config.timeout):
                raw = await client.chat.completions.with_raw_response.create(**body)
        except APIStatusError as error:
            raise self.refusal(error) from error
        except (APIConnectionError, TimeoutError) as error:
            raise self.lost(error) from error
        except APIError as error:
            raise TeacherBusy(f"{self._address}: {self._masked(error.message)}") from error
        response: httpx2.Response = raw.http_response
        return response

    def _completion(self, response: httpx2.Response, request: Request) -> Completion:
        """The first choice; a part that is missing or of another type is empty, never made up.

        The SDK does not validate what it parses, so the body is read by hand.
        """
        is_json = "json" in response.headers.get("content-type", "")
        try:
            body = response.json() if is_json else None
        except (ValueError, RecursionError) as error:
            raise TeacherBusy(f"{self._address} sent an answer that is not JSON") from error
        if not isinstance(body, Mapping):
            raise TeacherRefused(
                f"{self._address} does not answer as a chat endpoint; check {self._config.table}.base_url"
            )
        closed = _closed_for(response.headers, _count(at(body, "usage", "total_tokens")) or 0) or 0.0
        return replace(completion_of(body, request.model), closed_for=closed)

    def lost(self, error: Exception) -> TeacherError:
        """No answer came: by a refused connection nothing was sent, by anything else it may have been."""
        cause, table = error.__cause__, self._config.table
        distrusted = _distrusted(cause)
        if distrusted is not None:
            return TeacherRefused(
                f"the certificate of {self._address} is not trusted ({distrusted.verify_message}); see that "
                f"{table}.base_url is right and that this machine's clock is, or name the certificates of your own "
                "authority in the environment variable SSL_CERT_FILE"
            )
        if isinstance(cause, NOT_SENT):
            return TeacherBusy(f"{self._address} cannot be reached: {cause}; is the {table} running?", sent=False)
        if isinstance(error, TimeoutError) or isinstance(cause, httpx2.TimeoutException):
            said = f"{self._address} did not answer within {self._config.timeout:g} s ({table}.timeout)"
            return TeacherBusy(said, overloaded=True)
        return TeacherBusy(f"the connection to {self._address} was lost: {cause or error}")

    def refusal(self, error: APIStatusError) -> TeacherError:
        """An HTTP error status in the loop's words, with the cure where it is known."""
        status, code = error.status_code, str(error.code or "")
        said = f"{self._address} answered {status}: {self._masked(_said(error))}"
        if 300 <= status < 400:
            where = self._masked(error.response.headers.get("location", "nowhere"))
            return TeacherRefused(
                f"{self._address} answered {status} and points to {where}; nothing was sent there: "
                f"set {self._config.table}.base_url to that address if you trust it"
            )
        if code in NO_CREDIT:
            return TeacherRefused(f"{said}; the account has no credit left")
        if status in PASSING or status >= 500:
            headers = error.response.headers
            pause = _retry_after(headers) or _closed_for(headers, 0)
            return TeacherBusy(said, retry_after=pause, sent=status != 429, overloaded=status in OVERLOADED)
        about = f"{code} {said}".lower() if status in {400, 413, 422} else ""
        if any(mark in about for mark in TOO_LONG):
            return PromptTooLong(said)
        if any(mark in about for mark in UNWANTED):
            return ItemRefused(said)
        return TeacherRefused(f"{said}; {self._cure(status, said)}")

    def _masked(self, said: str) -> str:
        """What an endpoint said, short and without our key, which some send back."""
        return said.replace(self._key, "[the key]")[:LONGEST_SAID]

    def _cure(self, status: int, said: str) -> str:
        """What the user can do about a refusal."""
        table = self._config.table
        if status in {401, 403}:
            return f"check the key in the environment variable {self._config.api_key_env} ({table}.api_key_env)"
        if status == 404:
            return f'check {table}.model = "{self._config.model}" and {table}.base_url'
        if "response_format" in said or "json_schema" in said:
            return f'the endpoint has no structured output: set {table}.format = "plain"'
        if "logprobs" in said:
            return f"the endpoint gives no log-probabilities: set {table}.logprobs = false"
        return f"check the settings in [{table}]"


def _distrusted(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What was wrong with a certificate, if that is why a connection failed."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def address_of(config: EndpointConfig) -> str:
    """The address that requests go to."""
    return config.base_url or os.environ.get("OPENAI_BASE_URL") or PUBLIC_ADDRESS


def endpoint_of(config: EndpointConfig) -> str:
    """The endpoint as it is written down: its address, or the file of recordings."""
    return shown_address(address_of(config)) if config.recorded is None else f"recorded: {config.recorded}"


def shown_address(address: str) -> str:
    """The address as it is said and written down."""
    return without_secrets(address).rstrip("/")


def is_loopback(address: str) -> bool:
    """Whether the address is on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def completion_of(body: Mapping[str, Any], model: str = "") -> Completion:
    """The first choice of an answer; a part that is missing or of another type is empty, never made up."""
    message = at(body, "choices", 0, "message")
    return Completion(
        text=_text(at(message, "content")) or _text(at(message, "refusal")),
        model=_text(body.get("model")) or model,
        finish_reason=_text(at(body, "choices", 0, "finish_reason")),
        input_tokens=_count(at(body, "usage", "prompt_tokens")),
        output_tokens=_count(at(body, "usage", "completion_tokens")),
        tokens=_tokens(at(body, "choices", 0, "logprobs", "content")),
        cached_tokens=_count(at(body, "usage", "prompt_tokens_details", "cached_tokens")) or 0,
    )


def headers_of(request: Request) -> dict[str, Any]:
    """The item's key goes along as a request id only; where anything is redacted, it stays here."""
    return {"extra_headers": {"X-Client-Request-Id": quote(f"{request.item_key}/{request.sample}")[:500]}}


def body_of(request: Request) -> dict[str, Any]:
    """The request as the protocol has it."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [dict(message) for message in request.messages],
        "temperature": request.temperature,
        "max_completion_tokens": request.max_completion_tokens,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.logprobs:
        body["logprobs"] = True
    if request.schema is not None:
        form = {"name": "reply", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def _said(error: APIStatusError) -> str:
    """What the endpoint said, in one line."""
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return " ".join(str(message or error.message).split())


def at(value: object, *path: str | int) -> object:
    """What stands at the path, if anything does."""
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(reported: object) -> int | None:
    """A number of tokens, if it is one; servers send all kinds of things."""
    return reported if isinstance(reported, int) and not isinstance(reported, bool) and reported >= 0 else None


def _tokens(reported: object) -> tuple[tuple[str, float], ...]:
    """Tokens with their log-probabilities; none where any of them is something else."""
    found = []
    for each in reported if isinstance(reported, list) else ():
        token, value = at(each, "token"), at(each, "logprob")
        if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
            return ()
        if not value <= 0:
            return ()
        found.append((token, float(value)))
    return tuple(found)


def _closed_for(headers: Mapping[str, str], needed: int) -> float | None:
    """Seconds until the endpoint takes more, where its headers say that it has nothing, or too few tokens, left.

    Headers that are missing or make no sense say nothing.
    """
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
        for kind, least in (("requests", 1), ("tokens", max(1, needed)))
        if (left := headers.get(f"x-ratelimit-remaining-{kind}", "")).isdecimal() and int(left[:18]) < least
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def _duration(text: str) -> float | None:
    """Seconds in `1m30.5s`, `20ms`, `7`; None where it is no duration."""
    parts = [(each["number"], each["unit"]) for each in DURATION.finditer(text)]
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks us to wait, given as a number or as a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value, headers.get("date", ""))
    return seconds if 0 <= seconds < math.inf else None


def _seconds_until(date: str, now: str) -> float | None:
    """Seconds between two HTTP dates of the same server."""
    try:
        return max(0.0, (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds())
    except (TypeError, ValueError):
        return None
