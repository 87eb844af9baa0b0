"""QLoRA: adapters that learn on a base in four bits, and the student that comes of it."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from loop.config import StudentConfig
from loop.errors import StudentError
from tests.test_families import QUIET
from tests.test_student import a_trainer, sums
from tests.tiny import tiny_tokenizer

quantized = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason='needs pip install "preceptor[qlora]"'
)
SETTINGS = {"lora_rank": 8, "epochs": 20, "learning_rate": 1e-2, "batch_size": 4, "dtype": "nf4"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose layers hold whole blocks of 64 values, as bitsandbytes has it on processors."""
    folder, tokenizer = tmp_path_factory.mktemp("qlora") / "llama", tiny_tokenizer()
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=1, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bytes_of_layers(model: torch.nn.Module) -> int:
    return sum(each.weight.nbytes for each in model.model.layers.modules() if isinstance(each, torch.nn.Linear))


@quantized
def test_the_base_of_a_training_takes_a_quarter_of_the_memory(folder: Path) -> None:
    small, large = (a_trainer(folder, **SETTINGS | {"dtype": each}).base(None) for each in ("nf4", "bfloat16"))
    assert bytes_of_layers(small.model) * 4 == bytes_of_layers(large.model)


@quantized
def test_a_student_answers_by_the_values_that_its_adapters_learned_on(folder: Path, tmp_path: Path) -> None:
    trainer = a_trainer(folder, **SETTINGS)
    trained = trainer.train(sums(8), seed=1, folder=tmp_path / "one", progress=QUIET)
    usual = a_trainer(folder, **SETTINGS | {"dtype": "auto"})
    large = usual.train(sums(8), seed=1, folder=tmp_path / "large", progress=QUIET)
    first, *_, last = trained.card["loss_per_epoch"]
    assert last < 0.8 * first
    assert last == pytest.approx(large.card["loss_per_epoch"][-1], rel=0.1)
    adapted = trainer.trainable(trainer.base(None), tmp_path / "one")
    student = trainer.student(tmp_path / "one").model
    full = usual.student(tmp_path / "one").model
    row = torch.tensor([[5, 6, 7, 20, 8, 9]])
    learned, answers, others = (each(row).logits.float() for each in (adapted, student, full))
    assert (answers - learned).abs().mean() < 0.5 * (others - learned).abs().mean(), (
        "the format is rounded all the same"
    )


def test_without_bitsandbytes_the_cure_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudentError, match=r"install preceptor\[qlora\]"):
        a_trainer(folder, **SETTINGS).student(None)


@pytest.mark.parametrize("wrong", [{"lora_rank": 0}, {"kind": "encoder"}, {"engine": "openvino"}])
def test_four_bits_are_for_adapters_on_torch(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match='dtype = "nf4" is for'):
        StudentConfig(dtype="nf4", **wrong)
