"""Processes that need not load everything anew: forked from one that has loaded it, and done nothing."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as for every test; the library reads it once, when it is loaded
FORK = get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "tests.whole_campaign",
        "connectors.cli",
        "loop.student.trainer",
        "transformers.models.llama.modeling_llama",
        "openai.resources.chat",
    ]
    + [f"connectors.{name}" for name in ("openai_teacher", "recorded_teacher", "label_studio")]
)
SECONDS = 240.0
"""Within which a command ends, on a machine with much else to do."""


def preceptor(*words: str, config: Path) -> subprocess.CompletedProcess[str]:
    """The command with these words, in a process of its own with this one's environment and folder."""
    command = [*words, "--config", str(config)]
    with tempfile.TemporaryDirectory(prefix="said-") as folder:
        process = FORK.Process(target=_begin, args=(command, Path(folder), dict(os.environ), str(Path.cwd())))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.terminate()
            process.join()
        out, err = ((Path(folder) / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess(["preceptor", *command], process.exitcode or 0, out, err)


def _begin(command: Sequence[str], folder: Path, environment: Mapping[str, str], home: str) -> None:
    """In the new process: be the command."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(home)
    sys.argv = ["preceptor", *command]
    from connectors.cli import main  # noqa: PLC0415 - a process that only starts others needs no command

    main()
