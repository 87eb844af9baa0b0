"""Training by several processes that `accelerate launch` starts; `python -m loop.student.launching JOB` is one of them.

The job is a folder beside the checkpoint-to-be with the settings and the examples; the processes read it, train as one
process would, and the first of them leaves the checkpoint. Where one is killed the launcher ends the others; all are
started again and go on from the last state on the disk. The launcher's own restarts are not used: the new processes
would look for each other at the addresses of the old ones.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from pydantic import TypeAdapter

from loop import errors
from loop.config import StudentConfig, TaskConfig
from loop.errors import PreceptorError, StudentError
from loop.ports import Example, Progress, Trained

RESTARTS = 3
"""So many times the processes are started again, at most."""
MODULE = "loop.student.launching"
"""What each process runs."""
SAID = "preceptor: "
"""Begins a line in which the first process says how far it is."""
REFUSED = 70
"""Exit code of a process that found what another attempt would find again, or whose parent has ended."""


@dataclass(frozen=True)
class Job:
    """A training, as the processes read it."""

    student: StudentConfig
    task: TaskConfig
    cache: Path
    seed: int
    folder: Path
    start: Path | None
    examples: list[Example]


FORM = TypeAdapter(Job)


def train(job: Job, progress: Progress) -> Trained:
    """As `Training.train`, by as many processes as the settings say.

    Raises:
        StudentError: as there, or the processes ended again and again.
    """
    place = job.folder.with_name(f".{job.folder.name}.job")
    place.mkdir(parents=True, exist_ok=True)
    for old in ("error.json", "log"):
        (place / old).unlink(missing_ok=True)
    try:
        (place / "job.json").write_bytes(FORM.dump_json(job))
        _carried_out(job, place, progress)
    finally:
        (place / "job.json").unlink(missing_ok=True)  # it holds texts of items
    for file in place.iterdir():
        file.unlink()
    place.rmdir()
    return Trained(job.folder, json.loads((job.folder / "card.json").read_text(encoding="utf-8")))


def _carried_out(job: Job, place: Path, progress: Progress) -> None:
    """Start the processes, again where they ended, until the checkpoint is there.

    Raises:
        StudentError: as `train`.
    """
    for again in range(1, RESTARTS + 2):
        code = _launched(job.student, place, progress)
        _raise_what_was_raised(place)
        if code == 0 or job.folder.exists():  # which is there whole or not at all
            break
        if again > RESTARTS:
            raise StudentError(
                f"the processes of the training ended {again} times before it was done; what they said stands in "
                f"{place / 'log'}. With student.processes = 1 it needs none; `preceptor run` goes on from there"
            )
        progress.say(f"  a process of the training ended: all start again ({again} of at most {RESTARTS} times)")


def command(config: StudentConfig, place: Path) -> list[str]:
    """What starts the processes."""
    words = [sys.executable, "-m", "accelerate.commands.launch"]
    words += ["--num_processes", str(config.processes), "--num_machines", "1", "--mixed_precision", "no"]
    words += ["--multi_gpu", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [*words, "-m", MODULE, str(place)]


def _launched(config: StudentConfig, place: Path, progress: Progress) -> int:
    """The exit code of the launcher; what the first process says is passed on."""
    here = {"ACCELERATE_USE_CPU": "false" if torch.cuda.is_available() else "true"}
    with (place / "log").open("ab") as log:
        process = subprocess.Popen(
            command(config, place), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=os.environ | here
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            _passed_on(process.stdout, log, progress)
            return process.wait()
        finally:
            process.stdin.close()  # which ends the processes too
            process.stdout.close()
            if process.poll() is None:
                process.terminate()
                process.wait()


def _passed_on(output: IO[bytes], log: IO[bytes], progress: Progress) -> None:
    """Say what the first process says, and keep the rest."""
    lines = (line.decode("utf-8", "replace") for line in output)
    told = _messages(lines, log)
    for message in told:
        if "bar" not in message:
            progress.say(message["say"])
            continue
        with progress.bar(message["bar"], message["total"]) as bar:
            for each in told:
                if "end" in each:
                    break
                if "say" in each:
                    progress.say(each["say"])
                else:
                    bar.advance(each["steps"])


def _messages(lines: Iterator[str], log: IO[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if line.startswith(SAID):
            yield json.loads(line.removeprefix(SAID))
        else:
            log.write(line.encode())


def _raise_what_was_raised(place: Path) -> None:
    """Raise what a process raised, as if it had been raised here.

    Raises:
        StudentError: of the kind that was raised.
    """
    if (place / "error.json").exists():
        said = json.loads((place / "error.json").read_text(encoding="utf-8"))
        raise getattr(errors, said["kind"])(said["text"])


class _Told:
    """Progress that is told to the process which started this one."""

    def __init__(self, *, speaks: bool) -> None:
        self._speaks = speaks

    def _tell(self, **message: object) -> None:
        if self._speaks:
            sys.stdout.write(f"{SAID}{json.dumps(message)}\n")
            sys.stdout.flush()

    def say(self, text: str) -> None:
        self._tell(say=text)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["_Told"]:
        self._tell(bar=title, total=total)
        yield self
        self._tell(end=True)

    def advance(self, steps: int = 1) -> None:
        self._tell(steps=steps)


def take_part(place: Path) -> None:
    """Train as one of the processes."""
    from accelerate import PartialState  # type: ignore[import-untyped]  # noqa: PLC0415 - the process that starts the others needs none of it

    from loop.student.trainer import trainer  # noqa: PLC0415 - which starts this

    state = PartialState(cpu=not torch.cuda.is_available())
    progress = _Told(speaks=state.is_main_process)
    job = FORM.validate_json((place / "job.json").read_bytes())
    trainer(job.student, job.task, job.cache).train(
        job.examples, seed=job.seed, folder=job.folder, progress=progress, start=job.start
    )
    state.wait_for_everyone()
    state.destroy_process_group()


def _end_with_parent() -> None:
    """End when the process that started the launcher has ended: it holds the other end of the standard input."""
    while os.read(0, 1):
        pass
    os._exit(REFUSED)


def main(place: Path) -> None:
    """Train, and leave word of an error that another attempt would not cure."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        take_part(place)
    except PreceptorError as error:
        (place / "error.json").write_text(
            json.dumps({"kind": type(error).__name__, "text": str(error)}), encoding="utf-8"
        )
        os._exit(REFUSED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
