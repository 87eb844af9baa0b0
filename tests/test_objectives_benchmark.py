"""The benchmark of white-box objectives compares like with like, and cuts its student from its teacher."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks import objectives
from tests.tiny import tiny_tokenizer


def a_cell(method: str, seed: int, accuracy: float, loss: float, seconds: float) -> objectives.Row:
    return {"method": method, "seed": seed, "accuracy": accuracy, "loss": loss, "cpu_seconds": seconds, "code": ""}


def test_gains_are_over_the_seeds_that_both_have() -> None:
    plain = [a_cell("cross_entropy", seed, 0.4 + seed / 10, 2.0, 10.0) for seed in range(3)]
    own = [a_cell("jsd", seed, 0.45 + seed / 10, 1.5, 25.0) for seed in range(1, 3)]
    found = objectives.figures_of([*plain, *own, a_cell("gkd", 0, 0.9, 1.0, 50.0)])
    assert sorted(found) == ["accuracy_gain.jsd", "cpu_ratio.jsd", "loss_change.jsd"]
    assert [found[name]["value"] for name in sorted(found)] == [0.05, 2.5, -0.5]


def test_a_teacher_that_other_code_made_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "cache_folder", lambda: tmp_path)
    folder = tmp_path / "benchmarks" / "objectives"
    folder.mkdir(parents=True)
    made_of = [objectives.TAUGHT, objectives.HELD_OUT, objectives.TEACHER, objectives.LAYERS]
    for code, kept in ((objectives.CODE, True), ("other", False)):
        (folder / "facts.json").write_text(json.dumps({"made_of": json.dumps([*made_of, code])}))
        if kept:
            assert objectives.a_family(tmp_path / "no data") == folder
        else:
            with pytest.raises(FileNotFoundError):
                objectives.a_family(tmp_path / "no data")


def test_the_student_is_the_named_layers_of_the_teacher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=30,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    teacher = LlamaForCausalLM(config)
    teacher.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    objectives._cut(tmp_path / "teacher", tmp_path / "student")
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32)
    ids = torch.tensor([[3, 4, 5, 6]])
    teacher.model.layers = torch.nn.ModuleList(teacher.model.layers[place] for place in objectives.LAYERS)
    teacher.config.num_hidden_layers = len(objectives.LAYERS)
    assert len(student.model.layers) == 4
    assert torch.allclose(student(input_ids=ids).logits, teacher(input_ids=ids, use_cache=False).logits, atol=1e-6)
