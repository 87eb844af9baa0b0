"""One of several processes that train together, the second of which kills itself in mid-epoch, once.

How far the training is stands on the disk after every step but the last ones before the kill.
"""

import os
import signal
import sys
from pathlib import Path

from loop.student import fitting, launching, state

KILLED_AT, BEHIND = 5, 2
"""The last step that is on the disk, and how many follow it."""


def main() -> None:
    state.EVERY, state.SHARE = 0.0, 1e9
    once = Path(sys.argv[1]) / "killed"
    if not once.exists():
        step = fitting._Fit._step

        def counted(fit: fitting._Fit, batch: list[int]) -> None:
            done = len(fit.course.losses)
            if done == KILLED_AT:
                state.EVERY = 1e9
            if done == KILLED_AT + BEHIND and os.environ["RANK"] == "1":
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            step(fit, batch)

        fitting._Fit._step = counted  # type: ignore[method-assign,assignment]
    launching.main(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
