"""The server that holds the student's checkpoints: vLLM, or another one of the OpenAI completions protocol."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, DefaultHttpxClient, OpenAI

from connectors.openai_teacher import NO_KEY, at, is_loopback, shown_address
from loop.config import ServedConfig
from loop.errors import StudentError
from loop.ports import Continued, Opening
from loop.student.reading import TOP_K

ENGINE_CURE = 'or set student.engine = "torch"'
WEIGHTS = "adapter_model.safetensors"
"""Of adapters, in the folder of a checkpoint."""
LORA_ROUTE_CURE = "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
LORA_CURE = (
    "see that the server finds the checkpoint there (student.served.checkpoints names its folder as the server has it) "
    "and takes adapters of this rank (--max-lora-rank)"
)
CURES = {
    300: "it points elsewhere, where nothing was sent: set student.served.base_url to that address if you trust it",
    400: "see that it loads what it is asked for by name (student.served.load)",
    404: (
        "see that student.served.model is its name for the untrained model; a server that was started anew is told of "
        "the checkpoint again by `preceptor run`"
    ),
}
LONGEST_SAID = 300
"""Characters of a server's own words in an error."""


class ServedStudent:
    """A server that is asked for what the student writes (`loop.ports.StudentHost`)."""

    def __init__(self, config: ServedConfig) -> None:
        self._config = config
        self._address = shown_address(config.base_url)
        self._key = os.environ.get(config.api_key_env) or NO_KEY

    def load(self, folder: Path | None) -> str:
        """Have the server hold a checkpoint; the name under which it is asked.

        The name of adapters changes with their bytes, so that none are taken for others that lay there before.

        Raises:
            StudentError: the server cannot be reached, or cannot load it; or it is loaded in the other way.
        """
        if folder is None:
            return self._config.model
        fitting = "lora" if (folder / WEIGHTS).exists() else "folder"
        if self._config.load != fitting:
            what = "adapters alone" if fitting == "lora" else "a whole model"
            raise StudentError(f'{folder}: is {what}; set student.served.load = "{fitting}", {ENGINE_CURE}')
        path = str(Path(self._config.checkpoints) / folder.name) if self._config.checkpoints else str(folder.resolve())
        if self._config.load == "folder":
            return path
        name = f"preceptor-{_digest(folder)}"
        with self._open() as client:
            if name not in self._names(client):
                self._post(client, "/load_lora_adapter", {"lora_name": name, "lora_path": path})
        return name

    def continued(self, model: str, groups: Sequence[Sequence[Opening]]) -> list[list[Continued]]:
        """As the port has it; the first of each group is asked before the others of it, and groups side by side.

        Raises:
            StudentError: the server does not answer, or refuses.
        """

        firsts = self._continued(model, [group[0] for group in groups])
        others = iter(self._continued(model, [each for group in groups for each in group[1:]]))
        return [[first, *(next(others) for _ in group[1:])] for first, group in zip(firsts, groups, strict=True)]

    def scored(self, model: str, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """As the port has it.

        Raises:
            StudentError: the server does not answer, refuses, or says no log-probabilities of prompts.
        """

        wanted = [
            {"prompt": list(tokens), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1} for tokens in sequences
        ]
        bodies = self._completions(model, wanted)
        return [self._prompt_scores(body, tokens) for body, tokens in zip(bodies, sequences, strict=True)]

    def _continued(self, model: str, openings: Sequence[Opening]) -> list[Continued]:
        return [_continued(body) for body in self._completions(model, [_body(opening) for opening in openings])]

    def _completions(self, model: str, wanted: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The answers to requests that are sent side by side; after an error none is sent any more."""
        with self._open() as client, ThreadPoolExecutor(self._config.concurrency) as pool:
            try:
                return list(pool.map(lambda each: self._completion(client, {"model": model, **each}), wanted))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _open(self) -> OpenAI:
        """A client for the server, to be closed by who asks for it; it pauses longer before each further attempt."""
        return OpenAI(
            api_key=self._key,
            base_url=self._config.base_url,
            max_retries=self._config.attempts - 1,
            http_client=DefaultHttpxClient(
                base_url=self._config.base_url,
                timeout=httpx2.Timeout(self._config.timeout, connect=min(10.0, self._config.timeout)),
                limits=httpx2.Limits(max_connections=self._config.concurrency),
                trust_env=not is_loopback(self._address),  # what is on this machine is not asked through a proxy
                follow_redirects=False,  # where the server points elsewhere, items and key stay here
            ),
        )

    def _completion(self, client: OpenAI, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._completed(self._json(self._post(client, "/completions", wanted)), str(wanted["model"]))

    def _completed(self, body: object, model: str) -> Mapping[str, Any]:
        """What a server sent, if it is a completion by the model that was asked."""
        said = at(body, "model")
        if not isinstance(at(body, "choices", 0, "text"), str):
            raise StudentError(f"{self._address} sent no completion; check student.served.base_url, {ENGINE_CURE}")
        if isinstance(said, str) and model not in said:
            raise StudentError(
                f"{self._address} was asked for {model} and answers as {said[:LONGEST_SAID]!r}; have it refuse names "
                f"that it does not hold, {ENGINE_CURE}"
            )
        assert isinstance(body, Mapping)
        return body

    def _prompt_scores(self, body: Mapping[str, Any], tokens: Sequence[int]) -> list[float]:
        """The log-probabilities that vLLM says of a prompt: for each place some tokens, among them the one there."""
        said = at(body, "choices", 0, "prompt_logprobs")
        places = said if isinstance(said, list) and len(said) == len(tokens) else [None] * len(tokens)
        found = [at(place, str(token), "logprob") for place, token in zip(places[1:], tokens[1:], strict=True)]
        if not all(type(each) in {int, float} for each in found):
            raise StudentError(
                f"{self._address} does not say how probable the tokens of a prompt are (`prompt_logprobs`, as vLLM "
                f'does); set student.served.prompts = "text", and only explanations are asked of it, {ENGINE_CURE}'
            )
        return [float(str(each)) for each in found]

    def _names(self, client: OpenAI) -> set[object]:
        listed = at(self._json(self._told(lambda: client.get("/models", cast_to=httpx2.Response), "/models")), "data")
        return {at(each, "id") for each in listed} if isinstance(listed, list) else set()

    def _post(self, client: OpenAI, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        return self._told(lambda: client.post(path, cast_to=httpx2.Response, body=body), path)

    def _json(self, response: httpx2.Response) -> Any:
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise StudentError(
                f"{self._address} sent an answer that is not JSON; check student.served.base_url, {ENGINE_CURE}"
            ) from error

    def _told(self, send: Callable[[], httpx2.Response], path: str) -> httpx2.Response:
        """The answer to a request, or what went wrong with the cure."""
        try:
            return send()
        except APIConnectionError as error:
            raise StudentError(
                f"{self._address} cannot be reached ({error.__cause__ or error}); start the server of [student.served] "
                f"and call `preceptor run` again, {ENGINE_CURE}"
            ) from error
        except APIStatusError as error:
            words = str(at(error.body, "message") or error.response.text or error.message)
            said = " ".join(words.replace(self._key, "[the key]").split())[:LONGEST_SAID]
            raise StudentError(
                f"{self._address}{path} answered {error.status_code}: {said}; {self._cure(error.status_code, path)}, "
                f"{ENGINE_CURE}"
            ) from error

    def _cure(self, status: int, path: str) -> str:
        """What the user can do about a refusal."""
        if path == "/load_lora_adapter" and status not in {401, 403}:
            return LORA_ROUTE_CURE if status == 404 else LORA_CURE
        if status in {400, 422} and self._config.prompts == "tokens":
            return 'where it takes no token ids set student.served.prompts = "text"'
        if status in {401, 403}:
            return f"check the key in the environment variable {self._config.api_key_env} (student.served.api_key_env)"
        return CURES.get(status // 100 * 100 if status < 400 else status, "see what its log says")


def _body(opening: Opening) -> dict[str, Any]:
    """What is asked for an opening; a server that is sent texts is asked for nothing beyond OpenAI's protocol."""
    body: dict[str, Any] = {"max_tokens": opening.longest, "temperature": opening.temperature}
    if opening.temperature:
        body |= {"top_p": opening.top_p, "seed": opening.seed}
    if isinstance(opening.prompt, str):
        return {"prompt": opening.prompt, **body}
    told = {"stop_token_ids": list(opening.stops), "return_token_ids": True, "logprobs": 1}
    plain = {"top_k": TOP_K, "min_p": 0.0, "repetition_penalty": 1.0}  # whatever the model's own defaults are
    return {"prompt": list(opening.prompt), **body, **told, **plain}


def _continued(body: Mapping[str, Any]) -> Continued:
    choice = body["choices"][0]
    ids, first = choice.get("token_ids"), at(choice, "logprobs", "token_logprobs", 0)
    cached = at(body, "usage", "prompt_tokens_details", "cached_tokens")
    return Continued(
        tokens=ids if isinstance(ids, list) and all(type(each) is int for each in ids) else None,
        text=choice["text"],
        ended=choice.get("finish_reason") == "stop",
        log_probability=float(str(first)) if type(first) in {int, float} else None,
        cached_tokens=cached if type(cached) is int else None,
    )


def _digest(folder: Path) -> str:
    """Changes with the weights of the adapters."""
    with (folder / WEIGHTS).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
