"""Remembers a teacher's replies in a file, so that the same request, by whichever campaign, is paid for once.

A file is an SQLite database with one row a reply, under the hash of everything that shaped it. Transactions make a
write whole or not at all, whoever else writes.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from connectors.openai_teacher import OpenAITeacher, Through, endpoint_of
from loop.config import EndpointConfig
from loop.errors import BadConfig
from loop.plain import storable
from loop.ports import Completion, Remembered, Request
from loop.teacher.prompt import prompt_of

BUSY_SECONDS = 60.0
TABLE = (
    "create table if not exists reply"
    " (hash text primary key, completion text not null, endpoint text not null, model text not null,"
    " sample integer not null, received_at text not null)"
)
COMPLETION = TypeAdapter(Completion)


def forget(file: Path, is_about: Callable[[str], bool]) -> int:
    """Delete the replies of a file whose text is about something, so that no byte of them is left; how many.

    Raises:
        BadConfig: the file is something else.
    """
    try:
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as database:
            known = database.execute("select hash, completion from reply").fetchall()
            about = [(key,) for key, stored in known if is_about(COMPLETION.validate_json(stored).text)]
            if about:
                with database:
                    database.executemany("delete from reply where hash = ?", about)
                database.execute("vacuum")
    except sqlite3.Error as error:
        raise BadConfig(f"{file}: {error}; is it a file of remembered replies, and does nobody write it?") from error
    return len(about)


class RememberingTeacher(OpenAITeacher):
    """A teacher that remembers its replies in the file that the config names.

    At temperature 0 a request has one reply. Otherwise the first, second, ... reply that a run gets to a request is
    remembered as such, so that whoever asks again gets another; `asked` tells how many replies to a prompt hash the run
    has.
    """

    def __init__(
        self,
        config: EndpointConfig,
        file: Path,
        *,
        asked: Callable[[str], int],
        say: Callable[[str], object],
        through: Through | None = None,
    ) -> None:
        """Open the file.

        Raises:
            BadConfig: the file cannot be made or is something else.
        """
        super().__init__(config, through)
        self._file, self._asked, self._say = file, asked, say
        with self._database() as database:
            database.execute(TABLE)

    def recall(self, request: Request) -> Remembered | None:
        """What came of the same request before.

        Raises:
            BadConfig: the file cannot be read.
        """
        key = self._hash(request)
        with self._database() as database:
            row = database.execute("select completion, endpoint, received_at from reply where hash = ?", [key])
            found = row.fetchone()
        return None if found is None else Remembered(COMPLETION.validate_json(found[0]), f"{found[1]}, {found[2]}")

    async def complete(self, request: Request) -> Completion:
        """Send the request once and remember what comes; raises as without a memory."""
        completion = await super().complete(request)
        cut = completion.finish_reason == "length"
        if not cut or request.max_completion_tokens == self._config.max_completion_tokens:
            self.remember(request, completion)
        return completion

    def remember(self, request: Request, completion: Completion) -> None:
        """Write a reply down. It was paid for, so that a memory that fails must not lose it."""
        row = (
            self._hash(request),
            storable(json.dumps(asdict(completion), ensure_ascii=False)),
            endpoint_of(self._config),
            request.model,
            request.sample,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            with self._database() as database:
                database.execute("insert or replace into reply values (?, ?, ?, ?, ?, ?)", row)
        except BadConfig as error:
            self._say(f"  a reply is not remembered: {error}")

    def _hash(self, request: Request) -> str:
        """The hash of everything that shapes a reply: endpoint, model, messages, settings, sample, how often asked."""
        # A learned length shortens what is asked for; a reply that ends before it is the same.
        whole = replace(request, item_key="", max_completion_tokens=self._config.max_completion_tokens)
        again = self._asked(prompt_of(whole).hash) if request.temperature > 0 else 0
        asked = {name: value for name, value in asdict(whole).items() if name != "hidden"}
        shaped = {"endpoint": endpoint_of(self._config), "request": asked, "again": again}
        return hashlib.sha256(json.dumps(shaped, sort_keys=True).encode()).hexdigest()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction."""
        try:
            with closing(sqlite3.connect(self._file, timeout=BUSY_SECONDS)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise BadConfig(
                f"{self._config.table}.replies: {self._file}: {error}; name a file that preceptor may make or has made"
            ) from error
