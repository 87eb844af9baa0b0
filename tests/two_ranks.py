"""Students of several kinds that two processes train together over gloo, each with the whole of them or a slice."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch
from torch import distributed

from loop.ports import Bar, Example, Trainer
from loop.student import fitting, one_pass, ranks, sharding, state
from loop.student.state import TrainingState
from loop.student.trainer import Seq2SeqTrainer
from tests import test_dpo, test_encoder, test_tagger
from tests.test_encoder import a_trainer as an_encoder_trainer
from tests.test_student import NUMBERS, QUIET, a_trainer, settings, sums
from tests.test_training import many

HOW = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 3, "dtype": "float32", "validation_share": 0.5}
"""40 examples of which some validate; the last batch of an epoch may have one row, so that a process has none."""


CUT_AT = 10
"""Steps, of 14, after which a training is cut off: in the second epoch."""
PATIENCE = timedelta(minutes=5)
"""With a process that has ended."""


def a_tagger_trainer(folder: Path, **changes: object) -> Trainer:
    return test_tagger.a_trainer(folder, **changes)


def a_seq2seq_trainer(folder: Path, **changes: object) -> Trainer:
    return Seq2SeqTrainer(settings(folder, kind="seq2seq", **changes), NUMBERS, folder.parent / "cache")


Kind = tuple[Callable[..., Trainer], dict[str, object], Callable[[], list[Example]]]
KINDS: dict[str, Kind] = {
    "decoder": (a_trainer, {}, lambda: sums(10)),
    "adapters": (a_trainer, {"lora_rank": 8}, lambda: sums(10)),
    "preferences": (a_trainer, {"preference_weight": 0.5}, lambda: test_dpo.corrected(10)),
    "encoder": (an_encoder_trainer, {}, test_encoder.examples),
    "tagger": (a_tagger_trainer, {}, test_tagger.examples),
}

FAMILIES: dict[str, Kind] = {
    **{name: (a_trainer, {}, lambda: sums(10)) for name in ("qwen2", "gpt2", "llama")},
    **{name: (a_seq2seq_trainer, {}, lambda: sums(10)) for name in ("t5", "bart")},
}
"""Other models; they are trained in slices alone."""
GONE_ON = "preferences"
"""The kind whose training in slices is also cut off and gone on with; its reference passes through the model before."""
SHARDED = {"processes": 2, "sharded": True}
"""Each process holds a slice of the student."""


def trained(kind: str, model: Path, folder: Path, **more: object) -> None:
    """Train a student of a kind, as one of the processes that there are; the gradients' norms are left beside it."""
    make, changes, examples = (KINDS | FAMILIES)[kind]
    clip, norms = torch.nn.utils.clip_grad_norm_, []

    def clipped(weights: list[torch.Tensor], longest: float) -> torch.Tensor:
        norm = clip(weights, longest)
        norms.append(sharding.together(norm).item())
        return norm

    with (
        patch.object(one_pass, "computes_bfloat16", lambda: False),  # whose roundings depend on the rows beside one
        patch.object(torch.nn.utils, "clip_grad_norm_", clipped),
    ):
        make(model, **{**HOW, **changes, **more}).train(many(examples(), 40), seed=1, folder=folder, progress=QUIET)
    if ranks.number() == 0:
        folder.with_name(f"{folder.name}.norms.json").write_text(json.dumps(norms))


def trained_in_slices(kind: str, model: Path, folder: Path) -> None:
    """As `trained`, each process with its slice; how much it holds at the end is left beside the student."""
    run = fitting._Fit.run

    def counted(fit: fitting._Fit, bar: Bar, state: TrainingState) -> None:
        run(fit, bar, state)
        moments = [each for some in fit._optimiser.state.values() for name, each in some.items() if name != "step"]
        held = {"weights": list(fit.lesson.model.parameters()), "moments": moments, "best": list(fit._best.values())}
        numbers = {name: [sum(map(_held, some)), sum(each.nbytes for each in some)] for name, some in held.items()}
        folder.with_name(f"{folder.name}.{ranks.number()}.json").write_text(json.dumps(numbers))

    with patch.object(fitting._Fit, "run", counted):
        trained(kind, model, folder, **SHARDED)


def _held(tensor: torch.Tensor) -> int:
    """Bytes of it that this process keeps."""
    return sharding.local(tensor).untyped_storage().nbytes()


class CutOffError(Exception):
    """The end of a training in its midst."""


def cut_off_and_gone_on(kind: str, model: Path, folder: Path) -> None:
    """As `trained_in_slices`, but in the midst all processes lose what is not on the disk, and begin anew."""
    step, at = fitting._Fit._step, []

    def once(fit: fitting._Fit, batch: Sequence[int]) -> None:
        at.append(len(fit.course.losses))
        if at[-1] == CUT_AT and CUT_AT not in at[:-1]:
            raise CutOffError
        step(fit, batch)

    with (
        patch.object(fitting._Fit, "_step", once),
        patch.object(state, "EVERY", 0.0),
        patch.object(state, "SHARE", 1e9),
    ):
        with suppress(CutOffError):
            trained_in_slices(kind, model, folder)
        trained_in_slices(kind, model, folder)
    assert at[CUT_AT : CUT_AT + 2] == [CUT_AT, CUT_AT]


def take_part(models: Mapping[str, Path], folder: Path, rank: int) -> None:
    """Be one of the two processes, and leave a student of each kind in the folder."""
    torch.set_num_threads(1)
    for kind, model in models.items():
        store = f"file://{folder}/{kind}.store"
        distributed.init_process_group("gloo", store, rank=rank, world_size=2, timeout=PATIENCE)
        if kind in KINDS:
            trained(kind, model, folder / kind)
        trained_in_slices(kind, model, folder / f"{kind}-in-slices")
        if kind == GONE_ON:
            cut_off_and_gone_on(kind, model, folder / f"{kind}-gone-on")
        distributed.barrier()
        distributed.destroy_process_group()
