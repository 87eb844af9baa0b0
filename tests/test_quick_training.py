"""What makes training quick changes nothing but the time: adapters in one format, and questions that are read once."""

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora import Linear
from transformers import AutoModelForCausalLM, Gemma3TextConfig, MistralConfig, PretrainedConfig

from loop.student import lora, tree
from loop.student.distill_step_by_step import one_by_one, tasks, together, token_losses
from tests.test_families import SMALL, a_folder, decoders
from tests.test_student import a_trainer, model, sums  # noqa: F401 - a fixture
from tests.tiny import tiny_tokenizer

CAUSAL = ("qwen2", "gpt2", "llama")


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_folder(request.param, tmp_path_factory.mktemp("quick") / request.param)


def adapted(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The tiny model with adapters that say something."""
    trainer = a_trainer(folder, lora_rank=4, dtype="float32")
    torch.manual_seed(0)
    found = get_peft_model(trainer.base(None).model.to(dtype), lora.settings(trainer.base(None).model, 4, "CAUSAL_LM"))
    for name, each in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each, std=0.1)
    return found.to(dtype) if dtype is torch.float64 else found


def quickened(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The same, quick in every adapted layer."""
    found = adapted(folder, dtype)
    lora.quicken(found)
    layers = [each for each in found.modules() if isinstance(each, Linear)]
    assert layers
    assert all(getattr(each.forward, "__func__", None) is lora._forward for each in layers)
    return found


def test_a_student_that_trains_is_quick(model: Path) -> None:  # noqa: F811
    trainer = a_trainer(model, lora_rank=4)
    layers = [each for each in trainer.trainable(trainer.base(None), None).modules() if isinstance(each, Linear)]
    assert layers
    assert all(each.forward.__func__ is lora._forward for each in layers)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_adapters_give_the_same_losses_and_gradients_as_those_of_peft(
    model: Path,  # noqa: F811
    dtype: torch.dtype,
    bound: float,
) -> None:
    plain, quick = adapted(model, dtype), quickened(model, dtype)
    rows = [([5, 6, 7, 20], [8, 9]), ([30, 31], [4, 21])]
    for each in (plain, quick):
        nll, is_target = token_losses(each, rows, 0)
        (nll * is_target).sum().backward()
    one, other = (
        {name: each.grad for name, each in some.named_parameters() if each.grad is not None} for some in (plain, quick)
    )
    assert one.keys() == other.keys()
    assert all(name.split(".")[-2] == "default" for name in one)
    largest = max(float(each.abs().max()) for each in one.values())
    assert largest > 0.01
    for name, each in one.items():
        assert other[name].dtype == each.dtype
        assert torch.allclose(each, other[name], atol=bound * largest, rtol=bound), name


def test_adapters_are_stored_as_peft_stores_them(model: Path, tmp_path: Path) -> None:  # noqa: F811
    plain, quick = adapted(model, torch.float32), quickened(model, torch.float32)
    for name, each in (("plain", plain), ("quick", quick)):
        each.save_pretrained(tmp_path / name)
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("plain", "quick"))
    assert one == other


@pytest.mark.parametrize("short", [tree.SHORT, 0])
def test_a_question_that_is_read_once_gives_the_losses_and_gradients_of_two_readings(
    causal: Path, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain products, and by the kernel that longer texts are left to."""
    monkeypatch.setattr(tree, "SHORT", short)
    found = []
    for once in (True, False):
        trainer = decoders(causal)
        base = trainer.base(None)
        by_task = [task.rows for task in tasks(base, sums(5), trainer.config)]
        read = (
            together(base.model, by_task, base.pad)
            if once
            else one_by_one(base.model, by_task, lambda *of, pad=base.pad: token_losses(*of, pad))
        )
        losses = [each for some in read for each in some]
        assert len(losses) == 2
        sum(each.mean() for each in losses).backward()
        found.append((losses, {name: each.grad for name, each in base.model.named_parameters()}))
    (one, own), (other, theirs) = found
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))
    assert all(torch.allclose(own[name], theirs[name], atol=1e-5) for name in own)


class TornError(Exception):
    """What a pass ends with."""


@pytest.mark.parametrize("short", [tree.SHORT, 0])
def test_a_pass_attends_in_plain_products_up_to_a_length_and_leaves_the_model_as_it_was(
    model: Path,  # noqa: F811
    short: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree, "SHORT", short)
    trainer = a_trainer(model)
    base = trainer.base(None)
    by_task = [task.rows for task in tasks(base, sums(2), trainer.config)]
    config, seen = base.model.config, []
    before = config._attn_implementation
    layer = base.model.model.layers[1]
    hook = layer.register_forward_pre_hook(lambda *_: seen.append(config._attn_implementation))
    list(together(base.model, by_task, base.pad))
    assert (seen, config._attn_implementation) == ([before if short == 0 else "eager"], before)
    hook.remove()

    def torn(*_: object) -> None:
        raise TornError

    layer.register_forward_pre_hook(torn)
    with pytest.raises(TornError):
        list(together(base.model, by_task, base.pad))
    assert config._attn_implementation == before != "eager"
    assert not base.model.get_output_embeddings()._forward_pre_hooks


def windows(folder: Path, config: PretrainedConfig) -> Path:
    """An untrained model whose layers look back four tokens."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SMALL_WINDOWS = {
    **{"vocab_size": len(tiny_tokenizer()), "num_key_value_heads": 1, "sliding_window": 4, **SMALL},
    **{"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1},
}
SLIDING = {
    "gemma3": Gemma3TextConfig(
        **SMALL_WINDOWS, head_dim=16, query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"]
    ),
    "mistral": MistralConfig(**SMALL_WINDOWS),
}


@pytest.mark.parametrize("name", SLIDING)
def test_where_windows_slide_the_losses_are_those_of_each_text_alone(name: str, tmp_path: Path) -> None:
    trainer = decoders(windows(tmp_path / name, SLIDING[name]))
    base = trainer.base(None)
    by_task = [task.rows for task in tasks(base, sums(3), trainer.config)]
    with torch.no_grad():
        found = [each for some in trainer.row_losses(base)(base.model, by_task) for each in some]
        alone = [torch.cat([token_losses(base.model, [row], base.pad)[0][0] for row in rows]) for rows in by_task]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, alone, strict=True))


def test_of_both_tasks_the_question_is_read_once(model: Path) -> None:  # noqa: F811
    trainer = a_trainer(model)
    base = trainer.base(None)
    by_task = [task.rows for task in tasks(base, sums(1), trainer.config)]
    read: list[int] = []
    base.model.register_forward_pre_hook(
        lambda _, args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    list(together(base.model, by_task, base.pad))
    apart = sum(len(context + target) for [(context, target)] in by_task)
    common = next(n for n, (a, b) in enumerate(zip(*(context for [(context, _)] in by_task), strict=False)) if a != b)
    assert read == [apart - common]
    assert common > 5
