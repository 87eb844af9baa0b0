"""An endpoint on loopback that supports what it is told to, and drops the rest like many servers: with status 200."""

import json
import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ALL = frozenset({"json_schema", "logprobs", "choices", "sampling", "seed", "batches"})


@dataclass
class Endpoint:
    """What it supports, and the requests that came; `refusing` answers these parameters with an error status."""

    supports: frozenset[str] = ALL
    refusing: Mapping[str, int] = field(default_factory=dict)
    plain: str = "1. It is two.\nAnswer: 2"
    fails: Set[int] = frozenset()
    """Numbers of the requests that are answered with status 500."""
    thinks: bool = False
    """Whether all tokens go into thoughts that are not in the reply."""
    requests: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to a chat request."""
        self.requests.append(asked)
        if len(self.requests) in self.fails:
            return 500, {"error": {"message": "try again"}}
        refused = next((self.refusing[name] for name in self.refusing if name in asked), None)
        if refused:
            return refused, {"error": {"message": "not supported here"}}
        number = asked.get("n", 1) if "choices" in self.supports else 1
        choices = [self._choice(asked, place) for place in range(number)]
        usage = {"prompt_tokens": 20, "completion_tokens": 5 * number}
        return 200, {"model": asked["model"], "choices": choices, "usage": usage}

    def _choice(self, asked: dict[str, Any], place: int) -> dict[str, Any]:
        schema = (asked.get("response_format") or {}).get("json_schema", {}).get("schema")
        words = self.plain
        if schema and "json_schema" in self.supports:
            words = json.dumps({name: _value(kind) for name, kind in schema["properties"].items()})
        elif asked["temperature"] > 0 and "sampling" in self.supports:
            words += f" {asked.get('seed') if 'seed' in self.supports else len(self.requests)} {place}"
        if self.thinks:
            return {"index": place, "finish_reason": "length", "message": {"role": "assistant", "content": ""}}
        choice = {"index": place, "finish_reason": "stop", "message": {"role": "assistant", "content": words}}
        if asked.get("logprobs") and "logprobs" in self.supports:
            choice["logprobs"] = {"content": [{"token": "two", "logprob": -0.1, "top_logprobs": []}]}
        return choice


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[str]:
    """The base URL of an endpoint while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(*endpoint.answer(json.loads(body)))

        def do_GET(self) -> None:
            if "batches" in endpoint.refusing:
                self._send(endpoint.refusing["batches"], {"error": {"message": "not supported here"}})
                return
            found = self.path.startswith("/v1/batches") and "batches" in endpoint.supports
            self._send(*(200, {"object": "list", "data": []}) if found else (404, {"detail": "Not Found"}))

        def _send(self, status: int, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _value(kind: Mapping[str, Any]) -> object:
    """Something of the form that a property asks for."""
    if kind["type"] == "array":
        return ["It is two."]
    return kind["enum"][0] if "enum" in kind else {"string": "2", "integer": 4}[kind["type"]]
