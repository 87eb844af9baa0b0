"""Who listens to the events of `loop.events`: the terminal under `--verbose`, and a file of JSON lines."""

import logging
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from loop.errors import BadConfig
from loop.events import LOGGER

TERMINAL, FILE = "preceptor-terminal", "preceptor-file"


class _Terminal(logging.StreamHandler[TextIO]):
    """Standard error as it is when a line is written: progress bars put another one in its place."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        """It is looked up."""


def to_terminal() -> None:
    """Write events to standard error, for people."""
    _listen(_Terminal(), TERMINAL, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))


def to_file(file: Path | None) -> None:
    """Append events to a file, a JSON object a line; without one, to none. A file that is moved away is made anew.

    Raises:
        BadConfig: it cannot be written.
    """
    _forget(FILE)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = WatchedFileHandler(file, encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"run.log: {file}: cannot be written: {error.strerror}; name another file") from error
    _listen(handler, FILE, structlog.processors.JSONRenderer(ensure_ascii=False))


def _listen(handler: logging.Handler, name: str, renderer: Processor) -> None:
    _forget(name)
    handler.set_name(name)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
                structlog.contextvars.merge_contextvars,
                _with_facts,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)


def _forget(name: str) -> None:
    """Close the listener of that name, if there is one."""
    for handler in [each for each in LOGGER.handlers if each.get_name() == name]:
        LOGGER.removeHandler(handler)
        handler.close()


def _with_facts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The event with the facts that came with its record."""
    facts: EventDict = getattr(event["_record"], "facts", {})
    return {**event, **facts}
