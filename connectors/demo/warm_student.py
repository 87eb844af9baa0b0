"""The demo's small student: a Llama of half a million weights that the project trains on easier problems itself."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import typer
from rich.console import Console
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split as SplitBy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from connectors.demo.problems import (
    CAMPAIGN,
    LARGEST,
    NAMED,
    NAMES,
    SUMS,
    THINGS,
    WARM,
    Kind,
    Problem,
    chains,
    problems,
)
from connectors.progress import RichProgress
from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig, TaskConfig
from loop.ports import Example, Progress
from loop.records import Item, Split
from loop.student import prompts
from loop.student.trainer import DecoderTrainer

TOKEN = r"Answer:|\n|\d+|[A-Za-z]+|[^\sA-Za-z\d]"
SUM_COUNT, CHAIN_COUNT, WARM_COUNT = 4_000, 10_000, 6_000
SPECIAL = ("<pad>", "<eos>", "<unk>")


def make_warm_student(folder: Path, progress: Progress) -> None:
    """Train the base from nothing on easier problems and leave an ordinary model directory (some minutes)."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        settings = StudentConfig(
            model=scratch, lora_rank=0, epochs=5, batch_size=64, learning_rate=3e-3, rationale_weight=1.0
        )
        trainer = DecoderTrainer(settings, TaskConfig(answer=AnswerKind.NUMBER), folder.parent)
        easy = examples(problems(SUMS, "sums"), SUM_COUNT)
        easy += examples(chains("chains"), CHAIN_COUNT) + examples(problems(WARM, "warm"), WARM_COUNT)
        trainer.train(easy, seed=0, folder=folder, progress=progress)


def examples(made: Iterator[Problem], count: int) -> list[Example]:
    """The next problems with their right solutions."""
    return [_example(problem, number) for number, problem in enumerate(islice(made, count))]


def _example(problem: Problem, number: int) -> Example:
    item = Item(key=str(number), question=problem.question, split=Split.SEED, text_hash="")
    answer = Answer(kind=AnswerKind.NUMBER, value=str(problem.answer))
    return Example(item=item, steps=tuple(problem.steps), answer=answer)


def main(folder: Path) -> None:
    """Train the base again."""
    make_warm_student(folder, RichProgress(Console()))


def _tokenizer() -> PreTrainedTokenizerFast:
    """Whole words and whole numbers; unknown words are one token."""
    words = [*SPECIAL, *map(str, range(LARGEST + 1)), *sorted(_words(CAMPAIGN + WARM + SUMS))]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = SplitBy(Regex(TOKEN), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def _words(kinds: Sequence[Kind]) -> set[str]:
    texts = [
        *NAMES,
        *THINGS,
        *NAMED.values(),
        "There are .",
        prompts.ANSWER_TASK,
        prompts.RATIONALE_TASK,
        "Question: Context: Answer: \n + - * = , . ?",
    ]
    for kind in kinds:
        texts += [kind.question, *(step.text for step in kind.steps)]
    return {word for text in texts for word in re.findall(TOKEN, text) if not word.isdigit()} - set("{}")


if __name__ == "__main__":
    typer.run(main)
