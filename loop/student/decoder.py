"""A causal language model as a student: explains, answers, and answers after a part of an explanation."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.answer import Answer, AnswerKind, number_steps, parse_answer, shown, split_rationale
from loop.config import StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Example, Explanation, Forced, StudentPrediction, Written
from loop.records import Item
from loop.student import prompts
from loop.student.problems import Problem, about_steps, is_allowed
from loop.student.reading import Reading, Sampling, alike, continuations, padded
from loop.student.tree import greedy_continuations, grow, target_log_probabilities

REFILLS = 4
"""The batch is filled in so many parts: each comes when another has ended."""
MARK = "\u241f"
"""Stands for the prompt while the frame around it is looked at."""
FORCED_TOKENS = 16
"""Longest answer that is generated after a forced trigger."""


class Decoder:
    """A student that writes its rationale and then its answer (`loop.ports.Student`)."""

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
        self.start = [token for token in tokenizer("")["input_ids"] if token != self.end]
        self.positions: int | None = getattr(model.config, "max_position_embeddings", None)
        self.room = student.max_prompt_tokens
        if self.positions is not None:
            self.room = min(self.room, self.positions - student.max_new_tokens)
        if self.room < 1:
            raise StudentError(
                f"student.max_new_tokens = {student.max_new_tokens} leaves no room for a question in the "
                f"{self.positions} tokens that {student.model} reads; lower it"
            )

    def explain(
        self, items: Sequence[Item], *, copies: Sequence[int], temperature: float, top_p: float, seed: int
    ) -> list[list[Explanation]]:
        """For each item its explanations of these numbers: 0 is the greedy one, every other one is a sample.

        What is drawn depends on the seed, the item's key and the number only, not on what else is explained.
        """
        contexts = [self.encoded(prompts.rationale_prompt(item)) for item in items]
        draws = torch.tensor([[self._draws(item, copy, seed) for copy in copies] for item in items])
        texts = self._texts(contexts, self.student.max_new_tokens, sampling=Sampling(temperature, top_p, draws))
        return [[self._explanation(item, text) for text in some] for item, some in zip(items, texts, strict=True)]

    def go_on(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[Explanation]:
        """For each item the greedy explanation that begins with the given steps."""
        begun = [f"{number_steps(some)}\n" for some in steps]
        contexts = [
            self.encoded(prompts.rationale_prompt(item)) + self.tokens(text)
            for item, text in zip(items, begun, strict=True)
        ]
        texts = self._texts(contexts, self.student.max_new_tokens)
        return [
            self._explanation(item, before + text) for item, before, [text] in zip(items, begun, texts, strict=True)
        ]

    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """For each item the answers forced after each of the given parts of an explanation.

        All parts of an item are branches of one sequence and read in one pass. Where the allowed answers are few, each
        is scored by the mean log-probability of its tokens; otherwise the answer is written greedily.
        """
        contexts = [[self._forced(item, steps) for steps in some] for item, some in zip(items, parts, strict=True)]
        if self.task.answer in (AnswerKind.CHOICE, AnswerKind.LABEL):
            return self._scored(items, parts, contexts)
        trees = [grow(some) for some in contexts]
        texts: list[list[str]] = [[] for _ in items]
        for part in alike([tree.tokens for tree in trees], self.student.generation_batch):
            written = greedy_continuations(
                self.model,
                [trees[number] for number in part],
                longest=FORCED_TOKENS,
                stops=[self.end, *self._line_ends()],
                pad=self.pad,
            )
            for number, some in zip(part, written, strict=True):
                texts[number] = self.tokenizer.batch_decode(some, skip_special_tokens=True)
        return [
            [Forced(self._answer(item, text.split("\n")[0])) for text in some]
            for item, some in zip(items, texts, strict=True)
        ]

    def probabilities(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Of the allowed answers given the item alone, in their order; empty where any answer is allowed."""
        if self.task.answer not in (AnswerKind.CHOICE, AnswerKind.LABEL):
            return [()] * len(items)
        return [each.probabilities for [each] in self.answers_after(items, [[()]] * len(items))]

    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        """Greedy answers, with the explanation where the student answers by one."""
        if self.student.answers_by == "answer":
            forced = self.answers_after(items, [[()]] * len(items))
            return [StudentPrediction(each.answer, Explanation((), each.answer)) for [each] in forced]
        contexts = [self.encoded(prompts.rationale_prompt(item)) for item in items]
        texts = self._texts(contexts, self.student.max_new_tokens)
        explanations = [self._explanation(item, text) for item, [text] in zip(items, texts, strict=True)]
        return [StudentPrediction(each.answer, each) for each in explanations]

    def write(self, item: Item, *, copies: Sequence[int], temperature: float, top_p: float, seed: int) -> list[Written]:
        """The texts of these numbers with which the student answers, numbered as in `explain`."""
        if self.student.answers_by == "answer":
            [[forced]] = self.answers_after([item], [[()]])
            text = "" if forced.answer is None else shown(forced.answer, item.choices)
            return [self._written_out([*self.tokens(text), self.end])] * len(copies)
        draws = torch.tensor([[self._draws(item, copy, seed) for copy in copies]])
        contexts, longest = [self.encoded(prompts.rationale_prompt(item))], self.student.max_new_tokens
        [rows] = self._continued(contexts, longest, sampling=Sampling(temperature, top_p, draws))
        return [self._written_out(ids) for ids in rows]

    def reads(self, item: Item) -> tuple[int, int]:
        """How many tokens the item takes as a prompt, and how many fit."""
        return len(self._whole(prompts.rationale_prompt(item))), self.room

    def problems(self, example: Example) -> list[Problem]:
        """What is wrong with an example that it is to learn."""
        weight = self.student.rationale_weight
        found = [] if is_allowed(example, self.task) else [Problem.UNKNOWN]
        found += about_steps(example, weight)
        tokens, room = self.reads(example.item)
        if tokens > room:
            found.append(Problem.CUT)
        steps = example.steps if weight else ()
        written = len(self.tokens(prompts.rationale_target(example.item, steps, example.answer))) + 1
        if self.positions is not None and min(tokens, room) + written > self.positions:
            found.append(Problem.CROWDED)
        elif written > self.student.max_new_tokens:
            found.append(Problem.LONG)
        return found

    def step_likelihoods(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each item the mean log-probability of a token of each step, given the item and the steps before.

        The beginnings of a rationale are one branch of one sequence, read in one pass.
        """
        found: list[list[float]] = [[] for _ in items]
        told = [number for number, some in enumerate(steps) if some]
        trees, lengths = [], []
        for number in told:
            context = self.encoded(prompts.rationale_prompt(items[number]))
            ends = [self.tokens(number_steps(steps[number][:end])) for end in range(1, len(steps[number]) + 1)]
            trees.append(grow([context + tokens for tokens in ends]))
            lengths.append([max(1, len(end) - len(before)) for before, end in itertools.pairwise([[], *ends])])
        for part in alike([tree.tokens for tree in trees], self.student.generation_batch):
            means = target_log_probabilities(
                self.model, [trees[at] for at in part], [lengths[at] for at in part], self.pad
            )
            for at, each in zip(part, means, strict=True):
                found[told[at]] = each
        return found

    @torch.inference_mode()
    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """The mean of the last layer over an item's prompt, scaled to length 1; (items, dimensions)."""
        contexts = [self.encoded(prompts.answer_prompt(item)) for item in items]
        vectors = np.zeros((len(items), self.model.config.hidden_size), dtype=np.float32)
        for part in alike(contexts, self.student.generation_batch):
            ids, mask = (each.to(self.model.device) for each in padded([contexts[number] for number in part], self.pad))
            hidden = self.model.base_model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
                use_cache=False,
            ).last_hidden_state
            means = (hidden.float() * mask[:, :, None]).sum(dim=1)
            vectors[part] = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def doubt(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """One minus the probability of the likeliest first token of the answer that is given at once; (items,)."""
        contexts = [self._forced(item, ()) for item in items]
        found = np.zeros(len(items), dtype=np.float32)
        for part in alike(contexts, self.student.generation_batch):
            logits = self._reading([contexts[number] for number in part]).logits
            found[part] = 1 - logits.softmax(dim=1).amax(dim=1).cpu().numpy()
        return found

    def tokens(self, text: str) -> list[int]:
        """A text as token ids, nothing added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def encoded(self, prompt: str) -> list[int]:
        """A prompt as token ids, through the chat template where the config says so; it is cut from its left."""
        whole = self._whole(prompt)
        if len(whole) <= self.room:
            return whole
        before, after = (self.tokens(part) for part in self._framed(MARK).split(MARK))
        before = before if self.student.chat_template else self.start
        return before + self.tokens(prompt)[-max(1, self.room - len(before) - len(after)) :] + after

    def _whole(self, prompt: str) -> list[int]:
        return self.tokens(self._framed(prompt)) if self.student.chat_template else self.start + self.tokens(prompt)

    def _framed(self, prompt: str) -> str:
        """The prompt in the model's chat template, where that is used."""
        if not self.student.chat_template:
            return prompt
        messages = [{"role": "user", "content": prompt}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _draws(self, item: Item, copy: int, seed: int) -> list[float]:
        """A number for each token that may be written; the first copy is greedy."""
        if copy == 0:
            return [0.0] * self.student.max_new_tokens
        chance = random.Random(f"{seed}/{item.key}/{copy}")
        return [chance.random() for _ in range(self.student.max_new_tokens)]

    def _forced(self, item: Item, steps: Sequence[str]) -> list[int]:
        """Prompt and explanation up to the answer trigger; without steps it is the answer task."""
        prompt = prompts.rationale_prompt(item) if steps else prompts.answer_prompt(item)
        return self.encoded(prompt) + self.tokens(prompts.forced(steps))

    def _stated(self, item: Item, steps: Sequence[str], answer: Answer) -> list[int]:
        """The tokens that training has after the trigger where this is the answer."""
        whole = self.tokens(prompts.rationale_target(item, steps, answer))
        return whole[len(self.tokens(prompts.forced(steps))) :]

    def _scored(
        self,
        items: Sequence[Item],
        parts: Sequence[Sequence[Sequence[str]]],
        contexts: Sequence[Sequence[list[int]]],
    ) -> list[list[Forced]]:
        """The best of the allowed answers after each context, with the probabilities of all."""
        allowed = [self._allowed(item) for item in items]
        targets = [
            [self._stated(item, steps, answer) for steps in some for answer in answers]
            for item, some, answers in zip(items, parts, allowed, strict=True)
        ]
        trees = [
            grow([context + target for context, target in zip(_repeated(some, len(answers)), own, strict=True)])
            for some, own, answers in zip(contexts, targets, allowed, strict=True)
        ]
        forced: list[list[Forced]] = [[] for _ in items]
        for part in alike([tree.tokens for tree in trees], self.student.generation_batch):
            lengths = [[len(target) for target in targets[number]] for number in part]
            means = target_log_probabilities(self.model, [trees[number] for number in part], lengths, self.pad)
            for number, scores in zip(part, means, strict=True):
                shares = torch.tensor(scores).view(-1, len(allowed[number])).softmax(dim=1)
                forced[number] = [Forced(allowed[number][int(each.argmax())], tuple(each.tolist())) for each in shares]
        return forced

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
        pieces = self.tokenizer.batch_decode([own[:end] for end in ends], skip_special_tokens=True)
        return Written(tuple(pieces), ended)

    def _texts(
        self, contexts: Sequence[list[int]], longest: int, *, sampling: Sampling | None = None
    ) -> list[list[str]]:
        """As `_continued`, in text."""
        rows = self._continued(contexts, longest, sampling=sampling)
        return [self.tokenizer.batch_decode(some, skip_special_tokens=True) for some in rows]

    def _continued(
        self, contexts: Sequence[list[int]], longest: int, *, sampling: Sampling | None = None
    ) -> list[list[list[int]]]:
        """Continuations of each context: one, or as many as it has rows of draws, (contexts, copies, places)."""
        copies = 1 if sampling is None else sampling.draws.shape[1]
        rows: list[list[list[int]]] = [[] for _ in contexts]
        parts = list(alike(contexts, max(1, self.student.generation_batch // copies // REFILLS)))
        order = [number for part in parts for number in part]
        own = sampling and Sampling(sampling.temperature, sampling.top_p, sampling.draws[order].flatten(0, 1))
        written = continuations(
            (self._reading([contexts[number] for number in part], copies) for part in parts),
            longest=longest,
            stops=[self.end],
            sampling=own,
            room=self.student.generation_batch - copies * len(parts[0]) if parts else 0,
        )
        for place, number in enumerate(order):
            rows[number] = written[place * copies : (place + 1) * copies]
        return rows

    @torch.inference_mode()
    def _reading(self, contexts: Sequence[list[int]], copies: int = 1) -> Reading:
        """Contexts that were read once, each in so many rows."""
        reading = Reading(self.model, contexts, self.pad)
        reading.take(torch.arange(len(contexts)).repeat_interleave(copies))
        return reading


def _repeated(contexts: Sequence[list[int]], times: int) -> list[list[int]]:
    return [context for context in contexts for _ in range(times)]
