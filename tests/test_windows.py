"""Students whose layers do not look at all that stands before a token: windows, convolutions, no positions."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from loop.student import prompts
from loop.student.decoder import Decoder
from loop.student.tree import greedy_continuations, grow, looks_far, target_log_probabilities
from tests.test_families import MIXED, settings
from tests.test_student import NUMBERS
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
ENDS = {"eos_token_id": 1, "initializer_range": 0.3, "vocab_size": len(TOKENIZER)}
SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": None, **ENDS,
}  # fmt: skip


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=8))


def gemma3() -> PreTrainedModel:
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, head_dim=16, sliding_window=8, layer_types=kinds))


def lfm2() -> PreTrainedModel:
    return Lfm2ForCausalLM(Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]))


def gpt_neo() -> PreTrainedModel:
    kinds = [[["global", "local"], 1]]
    config = GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=2, attention_types=kinds, window_size=8, bos_token_id=1,
        resid_dropout=0.0, embed_dropout=0.0, attention_dropout=0.0, **ENDS,
    )  # fmt: skip
    return GPTNeoForCausalLM(config)


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=2, bos_token_id=1, **ENDS))


@pytest.fixture(scope="module", params=[mistral, gemma3, lfm2, gpt_neo, bloom])
def student(request: pytest.FixtureRequest) -> Decoder:
    make: Callable[[], PreTrainedModel] = request.param
    torch.manual_seed(0)
    return Decoder(make(), TOKENIZER, settings(Path("none"), max_new_tokens=8), NUMBERS)


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(3, 50, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


PROMPT = tokens(15, 1)
SEQUENCES = [[PROMPT + tokens(count, 2 + count) for count in (0, 2, 5, 8)], [tokens(3, 2)]]
COUNTS = [[2, 2, 3, 4], [1]]
ASKED = MIXED[4:]


def generated(student: Decoder, context: list[int], longest: int) -> list[int]:
    ids = torch.tensor([context])
    mask = torch.ones_like(ids)
    whole = student.model.generate(ids, attention_mask=mask, max_new_tokens=longest, do_sample=False, pad_token_id=0)
    return whole[0, len(context) :].tolist()


def test_beginnings_are_scored_as_in_passes_of_their_own(student: Decoder) -> None:
    assert not looks_far(student.model)
    together = target_log_probabilities(student.model, [grow(some) for some in SEQUENCES], COUNTS, student.pad)
    for some, counts, scores in zip(SEQUENCES, COUNTS, together, strict=True):
        for sequence, count, score in zip(some, counts, scores, strict=True):
            logits = student.model(input_ids=torch.tensor([sequence])).logits[0].log_softmax(dim=-1)
            alone = [logits[place - 1, sequence[place]].item() for place in range(-count, 0)]
            assert score == pytest.approx(sum(alone) / count, abs=1e-5)


def test_beginnings_are_continued_as_transformers_generates(student: Decoder) -> None:
    trees = [grow(some) for some in SEQUENCES]
    together = greedy_continuations(student.model, trees, longest=10, stops=[student.end], pad=student.pad)
    assert together == [[generated(student, sequence, 10) for sequence in some] for some in SEQUENCES]


def test_samples_are_drawn_side_by_side_as_alone(student: Decoder) -> None:
    told = student.explain(ASKED, copies=range(2), temperature=1.0, top_p=1.0, seed=0)
    alone = [student.explain([item], copies=range(2), temperature=1.0, top_p=1.0, seed=0)[0] for item in ASKED]
    assert told == alone
    for item, [greedy, *_] in zip(ASKED, told, strict=True):
        written = generated(student, student.encoded(prompts.rationale_prompt(item)), 8)
        assert [greedy.text] == student.decoded([written])
