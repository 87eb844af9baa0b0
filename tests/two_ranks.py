"""Students of several kinds that two processes train together, which add up their gradients by gloo."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch
from torch import distributed

from loop.ports import Example, Trainer
from loop.student import one_pass
from tests import test_dpo, test_encoder, test_tagger
from tests.test_encoder import a_trainer as an_encoder_trainer
from tests.test_student import QUIET, a_trainer, sums
from tests.test_training import many

HOW = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 3, "dtype": "float32", "validation_share": 0.5}
"""40 examples of which some validate; the last batch of an epoch may have one row, so that a process has none."""


PATIENCE = timedelta(minutes=1)
"""With a process that has ended."""


def a_tagger_trainer(folder: Path, **changes: object) -> Trainer:
    return test_tagger.a_trainer(folder, **changes)


KINDS: dict[str, tuple[Callable[..., Trainer], dict[str, object], Callable[[], list[Example]]]] = {
    "decoder": (a_trainer, {}, lambda: sums(10)),
    "adapters": (a_trainer, {"lora_rank": 8}, lambda: sums(10)),
    "preferences": (a_trainer, {"preference_weight": 0.5}, lambda: test_dpo.corrected(10)),
    "encoder": (an_encoder_trainer, {}, test_encoder.examples),
    "tagger": (a_tagger_trainer, {}, test_tagger.examples),
}


def trained(kind: str, model: Path, folder: Path) -> None:
    """Train a student of a kind, as one of the processes that there are."""
    make, changes, examples = KINDS[kind]
    with patch.object(one_pass, "computes_bfloat16", lambda: False):  # whose roundings depend on the rows beside one
        make(model, **{**HOW, **changes}).train(many(examples(), 40), seed=1, folder=folder, progress=QUIET)


def take_part(models: Mapping[str, Path], folder: Path, rank: int) -> None:
    """Be one of the two processes, and leave a student of each kind in the folder."""
    torch.set_num_threads(1)
    for kind, model in models.items():
        store = f"file://{folder}/{kind}.store"
        distributed.init_process_group("gloo", store, rank=rank, world_size=2, timeout=PATIENCE)
        trained(kind, model, folder / kind)
        distributed.barrier()
        distributed.destroy_process_group()
