"""Lets a process die by SIGKILL at a boundary, named from outside: the product knows nothing of it.

Boundaries are commits of the database, requests to a server, and files that are written, renamed or removed. A site is
a boundary with the place in our code that passes it; the first run counts how often each is passed.
"""

import builtins
import io
import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import httpx
import httpx2
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

Side = Literal["before", "amid", "after"]
ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / folder) + os.sep for folder in ("loop", "review", "connectors"))
STORE = str(ROOT / "loop" / "store") + os.sep
DATABASE = str(ROOT / "loop" / "store" / "database.py")
WRITES = re.compile(r'\s*(insert into|update|delete from|create table|alter table)\s+"?(\w+)', re.IGNORECASE)
SENT = "send_request_body.complete"


@dataclass(frozen=True)
class Moment:
    """When to die: at the occurrence of that number (from 1) of a site, before it, after it, or amid a request: sent,
    and not answered.
    """

    site: str
    occurrence: int
    side: Side


class Boundaries:
    """Counts what is passed and dies at its moment; `home` is the folder whose files matter."""

    def __init__(self, home: Path, moment: Moment | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._home = str(home.resolve()) + os.sep
        self._moment = moment
        self._lock = threading.Lock()
        self._written = threading.local()

    @contextmanager
    def passing(self, kind: str, detail: str) -> Iterator[Callable[[], None]]:
        """Pass a boundary; the callable is called amid it."""
        site, here = f"{kind} {detail} at {_place()}", False
        with self._lock:
            self.counts[site] += 1
            if self._moment is not None:
                here = (site, self.counts[site]) == (self._moment.site, self._moment.occurrence)
        side = self._moment.side if here and self._moment is not None else None
        _die_if(side == "before")
        try:
            yield lambda: _die_if(side == "amid")
        finally:  # also after what failed, like removing a file that is not there
            _die_if(side == "after")

    def watch(self) -> None:
        """Stand at every boundary of this process, for good."""
        self._watch_commits()
        self._watch_requests()
        self._watch_files()

    def _watch_commits(self) -> None:
        """Commits that write, by the tables that they write to."""
        plain = DefaultDialect.do_commit

        def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if found := WRITES.match(statement):
                self._tables.append(found[2].lower())

        def commit(dialect: DefaultDialect, connection: Any) -> None:
            tables, self._written.tables = sorted({*self._tables} - {"claim", "balance"}) or self._tables[:1], []
            if not tables:
                plain(dialect, connection)
                return
            with self.passing("commit", ", ".join(tables) if len(tables) < 9 else "the whole schema"):
                plain(dialect, connection)

        event.listen(Engine, "before_cursor_execute", note)
        event.listen(Engine, "rollback", lambda _: setattr(self._written, "tables", []))
        DefaultDialect.do_commit = commit

    @property
    def _tables(self) -> list[str]:
        """Those that this thread's transaction has written to."""
        if not hasattr(self._written, "tables"):
            self._written.tables = []
        found: list[str] = self._written.tables
        return found

    def _watch_requests(self) -> None:
        """Requests of ours, the synchronous and the asynchronous ones."""
        plain, plain_async = httpx.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request

        def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
            with self.passing("request", _named(request)) as amid:
                request.extensions["trace"] = lambda name, _: amid() if name.endswith(SENT) else None
                return plain(transport, request)

        async def handle_async(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
            with self.passing("request", _named(request)) as amid:

                async def trace(name: str, _: Any) -> None:
                    if name.endswith(SENT):
                        amid()

                request.extensions["trace"] = trace
                return await plain_async(transport, request)

        httpx.HTTPTransport.handle_request = handle
        httpx2.AsyncHTTPTransport.handle_async_request = handle_async

    def _watch_files(self) -> None:
        """Files of the home that are opened for writing, written by safetensors, renamed or removed."""
        import safetensors.torch  # noqa: PLC0415 - torch takes seconds to load

        for module, name, kind in (
            (os, "rename", "rename"),
            (os, "replace", "rename"),
            (os, "unlink", "remove"),
            (shutil, "rmtree", "remove"),
        ):
            setattr(module, name, self._watched(getattr(module, name), kind, lambda path, *_, **__: path))
        safetensors.torch.serialize_file = self._watched(
            safetensors.torch.serialize_file, "write", lambda _, path, **__: path
        )
        opened = self._watched(io.open, "write", _written_path)
        builtins.open = io.open = opened

    def _watched(self, plain: Callable[..., Any], kind: str, path_of: Callable[..., Any]) -> Callable[..., Any]:
        """A function on files that is a boundary where it is about the home."""

        def watched(*words: Any, **more: Any) -> Any:
            path = path_of(*words, **more)
            inside = isinstance(path, str | Path) and str(path).startswith(self._home)
            if not inside or not _our_frames():
                return plain(*words, **more)
            with self.passing(kind, _without_numbers(Path(path).name)):
                return plain(*words, **more)

        return watched


def _written_path(path: Any, mode: str = "r", *_: Any, **__: Any) -> Any:
    return path if {*mode} & {*"wax+"} else None


def _named(request: httpx.Request | httpx2.Request) -> str:
    return f"{request.method} {_without_numbers(request.url.path)}"


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "#", text)


def _die_if(due: bool) -> None:
    if due:
        os.kill(os.getpid(), signal.SIGKILL)


def _our_frames() -> list[FrameType]:
    """The frames of our packages, the innermost first; how the store opens a transaction tells nothing."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(OURS) and file != DATABASE:
            found.append(frame)
        frame = frame.f_back
    return found


def _place() -> str:
    """The innermost function of ours; a function of the store with who called it."""
    frames = _our_frames()
    if not frames:
        return "?"
    caller = next((each for each in frames if not each.f_code.co_filename.startswith(STORE)), frames[0])
    return " < ".join(dict.fromkeys((_function(frames[0]), _function(caller))))


def _function(frame: FrameType) -> str:
    module = Path(frame.f_code.co_filename).stem
    return f"{module}.{frame.f_code.co_qualname.split('.<locals>')[0]}"
