"""Runs a campaign in a process that kills itself: `killed_run.py CONFIG STAGE STATEMENT`.

After the first commit that holds the statement, within the stage, the process ends by SIGKILL. Where none comes the
process ends by itself, which the test takes for a failure. `tests/crash_matrix.py` kills at every place of a plain
campaign; this kills at one place of any other.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from sqlalchemy import event
from sqlmodel import Session

from connectors import campaign
from connectors.progress import RichProgress
from connectors.wiring import Project
from loop.store import claims, rounds
from loop.store.database import Store


class KilledStore(Store):
    """A store that ends the process right after a commit of a certain kind."""

    stage = ""
    statement = ""

    @contextmanager
    def writing(self) -> Iterator[Session]:
        seen: list[str] = []

        def note(_conn, _cursor, statement, *_rest):  # noqa: ANN001, ANN002, ANN202
            seen.append(statement.lower())

        event.listen(self._engine, "before_cursor_execute", note)
        try:
            with super().writing() as session:
                yield session
        finally:
            event.remove(self._engine, "before_cursor_execute", note)
        if any(text.startswith(self.statement) for text in seen) and self._at_stage():
            os.kill(os.getpid(), signal.SIGKILL)

    def _at_stage(self) -> bool:
        current = rounds.current(self, "tiny")
        return current is not None and current.stage.name == self.stage


def main(config: Path, stage: str, statement: str) -> None:
    project = Project(config, RichProgress(Console()))
    if stage == "hold":
        with claims.holding(project.store, "tiny", "run", "tiny", lease_seconds=60):
            print("holding", flush=True)  # noqa: T201
            time.sleep(60)
    project.store.close()
    store = KilledStore(project.store.url)
    store.stage, store.statement = stage, statement
    project.__dict__["store"] = store
    campaign.run(project, rounds_wanted=2, wait=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
