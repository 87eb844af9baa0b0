"""A tiny student of the real classes, and a project around it, for tests of the whole loop."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<eos>", "<unk>", "Answer:", "Question", ":", "\n", ".", "?", "+", "=", "What", "is", "Answer"]
WORDS += ["directly", "Explain", "step", "by", *map(str, range(40))]


def tiny_tokenizer(*more: str, without: Sequence[str] = (), **changes: object) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the words that sums take, with further words or without some."""
    words = [word for word in dict.fromkeys([*WORDS, *more]) if word not in without]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    lines = "" if "\n" in without else r"|\n"
    pattern = Regex(rf"Answer:{lines}|\d+|[A-Za-z]+|[^\sA-Za-z\d]")
    tokenizer.pre_tokenizer = Split(pattern, behavior="removed", invert=True)
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>", "padding_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**special, **changes})


def beginning_with(token: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts one of its words before every text."""
    made = tiny_tokenizer(bos_token=token)
    start = [(token, made.convert_tokens_to_ids(token))]
    made.backend_tokenizer.post_processor = TemplateProcessing(single=f"{token} $A", special_tokens=start)
    return made


def tiny_model(folder: Path) -> Path:
    """An untrained Llama with a word-level tokenizer as a model directory."""
    fast = tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


CONFIG = """\
[run]
name = "tiny"
rounds = {rounds}
[task]
answer = "number"
[student]
model = "model"
lora_rank = 0
epochs = 2
batch_size = 8
max_new_tokens = 12
[query]
batch_size = 6
candidates = 2
samples = 2
chunk_size = 4
[teacher]
recorded = "recorded.jsonl"
model = "tiny-teacher"
input_price = 0.5
output_price = 1.0
concurrency = 2
[budget]
usd = {usd}
minutes = 100
[review]
board = "{board}"
audit_share = 0.2
certify_share = 0.0
[simulated_reviewer]
truth = "truth.jsonl"
error_rate = 0.0
"""


def tiny_project(folder: Path, *, rounds: int = 2, usd: float = 1.0, board: str = "fake", sums: int = 12) -> Path:
    """A project of some sums, of which the recorded teacher gets every third wrong; its config file."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(folder / "model")
    pairs = [(1 + number // 3, 10 + number % 3) for number in range(sums)]
    recorded, truth = [], []
    for number, (left, right) in enumerate(pairs):
        told = left + right + (number % 3 == 0)
        question, wrong = f"What is {left} + {right} ?", f"{left} + {right} = {told} ."
        row = {"key": f"i{number}", "question": question, "model": "tiny-teacher"}
        recorded.append({**row, "steps": [wrong], "answer": str(told)})
        steps = [f"{left} + {right} = {left + right} ."]
        bad = [wrong] if number % 3 == 0 else []
        truth.append({"key": f"i{number}", "answer": str(left + right), "steps": steps, "wrong": bad})
    _lines(folder / "pool.jsonl", [{"key": row["key"], "question": row["question"]} for row in recorded])
    holdout = [{"key": f"h{n}", "question": f"What is {n} + 20 ?", "answer": n + 20} for n in range(8)]
    _lines(folder / "holdout.jsonl", holdout)
    _lines(folder / "recorded.jsonl", recorded)
    _lines(folder / "truth.jsonl", truth)
    config = folder / "config.toml"
    config.write_text(CONFIG.format(rounds=rounds, usd=usd, board=board), encoding="utf-8")
    return config


def _lines(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
