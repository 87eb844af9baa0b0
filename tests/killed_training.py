"""Trains tiny students in processes that kill themselves: `killed_training.py FOLDER KIND=MODEL...`.

Each ends by SIGKILL some steps after it wrote how far it is. A training that ends by itself is a failure.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loop.ports import Silent
from loop.student import state
from tests.test_training import TRAINERS, VALIDATING, examples_for


class Killed(Silent):
    """Progress that ends the process in mid-epoch, behind a written state."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.steps = 0

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["Killed"]:
        yield self

    def advance(self, steps: int = 1) -> None:
        self.steps += steps
        if self.steps == 6:
            assert self.file.exists()
            state.EVERY = 1e9  # what follows is lost
        if self.steps == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, wanted: dict[str, Path]) -> None:
    state.EVERY, state.SHARE = 0.0, 1e9
    for kind, model in wanted.items():
        if os.fork() == 0:
            trainer = TRAINERS[kind](model, **VALIDATING)
            progress = Killed(folder / f".{kind}.training")
            trainer.train(examples_for(kind), seed=1, folder=folder / kind, progress=progress)
            os._exit(1)
        assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL


if __name__ == "__main__":
    main(Path(sys.argv[1]), {kind: Path(model) for kind, model in (each.split("=") for each in sys.argv[2:])})
