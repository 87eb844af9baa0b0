"""What all students have in common that write: they explain, answer, and answer after a part of an explanation."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.answer import Answer, AnswerKind, number_steps, parse_answer, shown, split_rationale
from loop.config import StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Explanation, Forced, StudentPrediction, Written
from loop.records import Item
from loop.student import prompts
from loop.student.halving import halved
from loop.student.problems import Problem, about_steps, is_allowed
from loop.student.reading import Sampling

MARK = "\u241f"
"""Stands for the prompt while the frame around it is looked at."""

Context = TypeVar("Context")
"""What a text is written after: the prompt, and how the text begins."""


class Writer(ABC, Generic[Context]):
    """A student that writes its rationale and then its answer."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, student: StudentConfig, task: TaskConfig
    ) -> None:
        self.model = model
        self.model.train(False)
        self.tokenizer = tokenizer
        self.student = student
        self.task = task
        self.end = int(tokenizer.eos_token_id)
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.own = _own_tokens(tokenizer)
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)
        self.room = student.max_prompt_tokens if self.positions is None else self._room(self.positions)
        if self.room < 1:
            raise StudentError(
                f"student.max_new_tokens = {student.max_new_tokens} leaves no room for a question in the "
                f"{self.positions} tokens that {student.model} reads; lower it"
            )

    @abstractmethod
    def encoded(self, prompt: str) -> list[int]:
        """A prompt as token ids, through the chat template where the config says so; it is cut from its left."""

    @abstractmethod
    def context(self, prompt: str, begun: str = "", longest: int | None = None) -> Context:
        """A prompt, and the beginning of what is written after it.

        `longest` is how many tokens may come after both; None: as many as the student writes.
        """

    @abstractmethod
    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """For each item the answers forced after each of the given parts of an explanation."""

    @abstractmethod
    def _room(self, positions: int) -> int:
        """Tokens of a prompt that are read by a model with so many positions."""

    @abstractmethod
    def _whole(self, prompt: str) -> list[int]:
        """A prompt as token ids, not cut."""

    @abstractmethod
    def crowded(self, prompt: int, written: int) -> bool:
        """Whether the model has too few positions for a prompt and a text of so many tokens."""

    @abstractmethod
    def _continued(
        self, contexts: Sequence[Context], longest: int, *, sampling: Sampling | None = None
    ) -> list[list[list[int]]]:
        """Continuations of each context: one, or as many as it has rows of draws, (contexts, copies, places)."""

    @halved
    def explain(
        self, items: Sequence[Item], *, copies: Sequence[int], temperature: float, top_p: float, seed: int
    ) -> list[list[Explanation]]:
        """For each item its explanations of these numbers: 0 is the greedy one, every other one is a sample.

        What is drawn depends on the seed, the item's key and the number only, not on what else is explained.
        """
        contexts = [self.context(prompts.rationale_prompt(item)) for item in items]
        drawn = torch.tensor([[self._draws(item, copy, seed) for copy in copies] for item in items])
        draws = drawn.view(len(items), len(copies), self.student.max_new_tokens)
        texts = self._texts(contexts, self.student.max_new_tokens, sampling=Sampling(temperature, top_p, draws))
        return [[self._explanation(item, text) for text in some] for item, some in zip(items, texts, strict=True)]

    @halved
    def go_on(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[Explanation]:
        """For each item the greedy explanation that begins with the given steps."""
        begun = [f"{number_steps(some)}\n" for some in steps]
        contexts = [self.context(prompts.rationale_prompt(item), text) for item, text in zip(items, begun, strict=True)]
        texts = self._texts(contexts, self.student.max_new_tokens)
        return [
            self._explanation(item, before + text) for item, before, [text] in zip(items, begun, texts, strict=True)
        ]

    def probabilities(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Of the allowed answers given the item alone, in their order; empty where any answer is allowed."""
        if self.task.answer not in (AnswerKind.CHOICE, AnswerKind.LABEL):
            return [()] * len(items)
        return [each.probabilities for [each] in self.answers_after(items, [[()]] * len(items))]

    @halved
    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        """Greedy answers, with the explanation where the student answers by one."""
        if self.student.answers_by == "answer":
            forced = self.answers_after(items, [[()]] * len(items))
            return [StudentPrediction(each.answer, Explanation((), each.answer)) for [each] in forced]
        contexts = [self.context(prompts.rationale_prompt(item)) for item in items]
        texts = self._texts(contexts, self.student.max_new_tokens)
        explanations = [self._explanation(item, text) for item, [text] in zip(items, texts, strict=True)]
        return [StudentPrediction(each.answer, each) for each in explanations]

    def write(self, item: Item, *, copies: Sequence[int], temperature: float, top_p: float, seed: int) -> list[Written]:
        """The texts of these numbers with which the student answers, numbered as in `explain`."""
        if self.student.answers_by == "answer":
            [[forced]] = self.answers_after([item], [[()]])
            text = "" if forced.answer is None else shown(forced.answer, item.choices)
            return [self._written_out([*self.tokens(text), self.end])] * len(copies)
        return self._sampled_texts(copies, item=item, temperature=temperature, top_p=top_p, seed=seed)

    @halved
    def _sampled_texts(
        self, copies: Sequence[int], *, item: Item, temperature: float, top_p: float, seed: int
    ) -> list[Written]:
        draws = torch.tensor([[self._draws(item, copy, seed) for copy in copies]])
        contexts, longest = [self.context(prompts.rationale_prompt(item))], self.student.max_new_tokens
        [rows] = self._continued(contexts, longest, sampling=Sampling(temperature, top_p, draws))
        return [self._written_out(ids) for ids in rows]

    def reads(self, item: Item) -> tuple[int, int]:
        """How many tokens the item takes as a prompt, and how many fit."""
        return len(self._whole(prompts.rationale_prompt(item))), self.room

    def problems(self, example: Example) -> list[Problem]:
        """What is wrong with an example that it is to learn."""
        weight = self.student.rationale_weight if self.student.targets != "rationale_then_answer" else 1.0
        found = [] if is_allowed(example, self.task) else [Problem.UNKNOWN]
        found += about_steps(example, weight)
        tokens, room = self.reads(example.item)
        if tokens > room:
            found.append(Problem.CUT)
        steps = example.steps if weight else ()
        written = len(self.tokens(prompts.rationale_target(example.item, steps, example.answer))) + 1
        if self.crowded(min(tokens, room), written):
            found.append(Problem.CROWDED)
        elif written > self.student.max_new_tokens:
            found.append(Problem.LONG)
        if self.student.preference_weight and example.refused is not None and example.steps:
            refused = prompts.rationale_target(example.item, *example.refused)
            if self.crowded(min(tokens, room), len(self.tokens(refused)) + 1):
                found.append(Problem.UNPAIRED)
        return found

    def tokens(self, text: str) -> list[int]:
        """A text as token ids, nothing added. Where it spells a token of the model's own, that is text as all else."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [each for each in ids if each not in self.own]

    def marked(self, text: str) -> list[int]:
        """A text of the model's makers as token ids: what it spells of the model's own tokens are these."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def step_ends(self, steps: Sequence[str]) -> list[int]:
        """Where each step ends in what is written, counted in tokens: of no steps, of the first one, of two, ..."""
        return [len(self.tokens(number_steps(steps[:end]))) for end in range(len(steps) + 1)]

    def decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """What was written, as text."""
        texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return texts

    def _framed(self, prompt: str) -> str:
        """The prompt in the model's chat template, where that is used."""
        if not self.student.chat_template:
            return prompt
        messages = [{"role": "user", "content": prompt}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _in_frame(self, prompt: str) -> list[int]:
        """The prompt in its frame, as token ids; no text in it can end the frame or begin another turn."""
        own = self.tokens(prompt)
        if not self.student.chat_template:
            return own
        if own == self.marked(prompt):
            return self.marked(self._framed(prompt))
        before, after = (self.marked(part) for part in self._framed(MARK).split(MARK))
        return [*before, *own, *after]

    def _last(self, prompt: str, before: Sequence[int], after: Sequence[int], room: int) -> list[int]:
        """As much of the end of a prompt as has room between what stands before and after it."""
        own = prompt if prompt in self._framed(prompt) else prompt.strip()  # some templates trim
        return [*before, *self.tokens(own)[-max(1, room - len(before) - len(after)) :], *after]

    def _draws(self, item: Item, copy: int, seed: int) -> list[float]:
        """A number for each token that may be written; the first copy is greedy."""
        if copy == 0:
            return [0.0] * self.student.max_new_tokens
        chance = random.Random(f"{seed}/{item.key}/{copy}")
        return [chance.random() for _ in range(self.student.max_new_tokens)]

    def _forced(self, item: Item, steps: Sequence[str], longest: int) -> Context:
        """Prompt and explanation up to the answer trigger, before so many tokens; without steps the answer task."""
        prompt = prompts.rationale_prompt(item) if steps else prompts.answer_prompt(item)
        return self.context(prompt, prompts.forced(steps), longest)

    def _stated(self, item: Item, steps: Sequence[str], answer: Answer) -> list[int]:
        """The tokens that training has after the trigger where this is the answer."""
        whole = self.tokens(prompts.rationale_target(item, steps, answer))
        return whole[len(self.tokens(prompts.forced(steps))) :]

    def _line_ends(self) -> list[int]:
        return [token for token in self.tokens("\n")[-1:] if token != self.tokenizer.unk_token_id]

    def _allowed(self, item: Item) -> list[Answer]:
        if self.task.answer is AnswerKind.LABEL:
            return [Answer(kind=AnswerKind.LABEL, value=label) for label in self.task.labels]
        letters = [chr(ord("A") + number) for number in range(len(item.choices))]
        return [Answer(kind=AnswerKind.CHOICE, value=letter) for letter in letters]

    def _explanation(self, item: Item, text: str) -> Explanation:
        steps, stated = split_rationale(text)
        answer = None if stated is None else self._answer(item, stated)
        return Explanation(steps=tuple(steps[: self.task.max_steps]), answer=answer, text=text)

    def _answer(self, item: Item, text: str) -> Answer | None:
        return parse_answer(text, self.task.answer, choices=item.choices, labels=tuple(self.task.labels))

    def _written_out(self, ids: Sequence[int]) -> Written:
        """What was written, token by token; the end is no token of it."""
        ended = ids[-1:] == [self.end]
        own = ids[:-1] if ended else ids
        ends = range(1, len(own) + 1)
        return Written(tuple(self.decoded([own[:end] for end in ends])), ended)

    def _texts(self, contexts: Sequence[Any], longest: int, *, sampling: Sampling | None = None) -> list[list[str]]:
        """As `_continued`, in text."""
        return [self.decoded(some) for some in self._continued(contexts, longest, sampling=sampling)]


def _own_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens by which a model tells turns and ends apart; that for an unknown word is none, unless it also ends."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    unknown = {tokenizer.unk_token_id} - ends
    return frozenset((added | set(tokenizer.all_special_ids)) - unknown)


def best_of(allowed: Sequence[Answer], means: Sequence[float]) -> list[Forced]:
    """For each part the likeliest of the allowed answers; `means` are the log-probabilities of all after each part."""
    shares = torch.tensor(means).view(-1, len(allowed)).softmax(dim=1)
    return [Forced(allowed[int(each.argmax())], tuple(each.tolist())) for each in shares]
