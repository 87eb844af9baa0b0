"""How far a training is, kept on disk, so that one that was killed goes on instead of starting anew.

One safetensors file beside the checkpoint-to-be holds the tensors, and in its header everything else. It is written
beside its name and renamed, so a kill leaves the one before. It is not forced onto the disk: a power cut may damage it,
and the training then starts anew.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from loop.student import ranks

EVERY = 30.0
"""Seconds between two writings, at least."""
SHARE = 0.02
"""Share of the time that writing may take; where a writing takes long, the next one waits."""

Facts = dict[str, list[float]]
"""What is kept beside the tensors."""


class TrainingState:
    """The file in which a training keeps how far it is; one of other data or settings is not gone on from."""

    def __init__(self, checkpoint: Path, fingerprint: str, say: Callable[[str], None]) -> None:
        self.file = checkpoint.with_name(f".{checkpoint.name}.training")
        self._partial = self.file.with_name(f"{self.file.name}.partial")
        self._fingerprint = fingerprint
        self._say = say
        self._written = time.monotonic()
        self._took = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to write; of processes that train together the first one says so to all."""
        return ranks.of_first(time.monotonic() - self._written >= max(EVERY, self._took / SHARE))

    def write(self, tensors: Mapping[str, torch.Tensor], facts: Facts) -> None:
        """Replace what was written before; where that fails it is said, and the training goes on.

        Of processes that train together the first one writes.
        """
        if ranks.number():
            return
        started = time.monotonic()
        header = {"fingerprint": self._fingerprint, "facts": json.dumps(facts)}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_file(dict(tensors), self._partial, header)
            self._partial.replace(self.file)
        except (OSError, SafetensorError) as error:
            self._partial.unlink(missing_ok=True)
            self._say(f"  {self.file}: cannot be written ({error}); if the training is killed it starts anew")
        self._written = time.monotonic()
        self._took = self._written - started

    def read(self) -> tuple[dict[str, torch.Tensor], Facts] | None:
        """What was written last; None, with the reason said, where nothing can be gone on from."""
        if not self.file.exists():
            return None
        try:
            with safe_open(self.file, "pt") as opened:
                header = opened.metadata() or {}
                if header.get("fingerprint") != self._fingerprint:
                    self._say("  what was cut off had other examples, settings, versions or threads: it starts anew")
                    return None
                facts: Facts = json.loads(header["facts"])
                return {name: opened.get_tensor(name).clone() for name in opened.keys()}, facts  # noqa: SIM118 - no dict
        except (OSError, SafetensorError) as error:
            self._say(f"  {self.file}: is damaged ({error}): the training starts anew")
            return None

    def remove(self) -> None:
        """The training is over."""
        if ranks.number():
            return
        self.file.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)
