"""A causal language model as a student: explains, answers, and answers after a part of an explanation."""

import itertools
import operator
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.answer import AnswerKind, number_steps
from loop.config import StudentConfig, TaskConfig
from loop.ports import Forced
from loop.records import Item
from loop.student import prompts
from loop.student.halving import halved
from loop.student.reading import Reading, Sampling, alike, continuations, mean_vectors, padded
from loop.student.tree import TokenTree, greedy_continuations, grow, target_log_probabilities
from loop.student.writer import MARK, Writer, best_of

REFILLS = 4
"""The batch is filled in so many parts: each comes when another has ended."""
FORCED_TOKENS = 16
"""Longest answer that is generated after a forced trigger."""


class Decoder(Writer[list[int]]):
    """A student that writes its rationale and then its answer (`loop.ports.Student`)."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, student: StudentConfig, task: TaskConfig
    ) -> None:
        super().__init__(model, tokenizer, student, task)
        begun = tokenizer("a", return_special_tokens_mask=True)
        added = zip(begun["input_ids"], begun["special_tokens_mask"], strict=True)
        self.start = [token for token, _ in itertools.takewhile(operator.itemgetter(1), added)]

    @halved
    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """For each item the answers forced after each of the given parts of an explanation.

        All parts of an item are branches of one sequence and read in one pass. Where the allowed answers are few, each
        is scored by the mean log-probability of its tokens; otherwise the answer is written greedily.
        """
        if self.task.answer in (AnswerKind.CHOICE, AnswerKind.LABEL):
            return self._scored(items, parts)
        trees = [
            grow([self._forced(item, steps, FORCED_TOKENS) for steps in some])
            for item, some in zip(items, parts, strict=True)
        ]
        texts: list[list[str]] = [[] for _ in items]
        for part in alike([tree.tokens for tree in trees], self.student.generation_batch):
            written = self._forced_on([trees[number] for number in part])
            for number, some in zip(part, written, strict=True):
                texts[number] = self.decoded(some)
        return [
            [Forced(self._answer(item, text.split("\n")[0])) for text in some]
            for item, some in zip(items, texts, strict=True)
        ]

    @halved
    def step_likelihoods(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each item the mean log-probability of a token of each step, given the item and the steps before.

        The beginnings of a rationale are one branch of one sequence, read in one pass.
        """
        found: list[list[float]] = [[] for _ in items]
        told = [number for number, some in enumerate(steps) if some]
        trees, lengths = [], []
        for number in told:
            ends = [self.tokens(number_steps(steps[number][:end])) for end in range(1, len(steps[number]) + 1)]
            context = self._before(prompts.rationale_prompt(items[number]), len(ends[-1]))
            sequences = [self._end_of(context + tokens) for tokens in ends]
            added = [max(1, len(end) - len(before)) for before, end in itertools.pairwise([[], *ends])]
            trees.append(grow(sequences))
            lengths.append([min(count, len(own) - 1) for count, own in zip(added, sequences, strict=True)])
        for part in alike([tree.tokens for tree in trees], self.student.generation_batch):
            means = self._target_means([trees[at] for at in part], [lengths[at] for at in part])
            for at, each in zip(part, means, strict=True):
                found[told[at]] = each
        return found

    @halved
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
            vectors[part] = mean_vectors(hidden, mask)
        return vectors

    @halved
    def doubt(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """One minus the probability of the likeliest first token of the answer that is given at once; (items,)."""
        contexts = [self._forced(item, (), 1) for item in items]
        found = np.zeros(len(items), dtype=np.float32)
        for part in alike(contexts, self.student.generation_batch):
            found[part] = 1 - self._likeliest([contexts[number] for number in part])
        return found

    def encoded(self, prompt: str) -> list[int]:
        """A prompt as token ids, through the chat template where the config says so; it is cut from its left."""
        return self._within(prompt, self.room)

    def context(self, prompt: str, begun: str = "", longest: int | None = None) -> list[int]:
        """A prompt, and the beginning of what is written after it, as one sequence.

        Where the model has too few positions for these and what comes after, the prompt is cut further.
        """
        written = self.tokens(begun)
        after = self.student.max_new_tokens if longest is None else longest
        return self._end_of(self._before(prompt, len(written) + after) + written, after)

    def _room(self, positions: int) -> int:
        return min(self.student.max_prompt_tokens, positions - self.student.max_new_tokens)

    def crowded(self, prompt: int, written: int) -> bool:
        """Whether the model has too few positions for a prompt and a text of so many tokens."""
        return self.positions is not None and prompt + written > self.positions

    def _whole(self, prompt: str) -> list[int]:
        return [*([] if self.student.chat_template else self.start), *self._in_frame(prompt)]

    def _before(self, prompt: str, following: int) -> list[int]:
        """A prompt that leaves so many tokens room behind it."""
        room = self.room if self.positions is None else min(self.room, self.positions - following)
        return self._within(prompt, room)

    def _end_of(self, tokens: list[int], following: int = 0) -> list[int]:
        """As much of the end as has positions; all of it, unless what is written is by itself longer than the model."""
        return tokens if self.positions is None else tokens[following - self.positions :]

    def _within(self, prompt: str, room: int) -> list[int]:
        """A prompt in so many tokens."""
        whole = self._whole(prompt)
        if len(whole) <= room:
            return whole
        before, after = (self.marked(part) for part in self._framed(MARK).split(MARK))
        return self._last(prompt, before if self.student.chat_template else self.start, after, room)

    def _scored(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """The best of the allowed answers after each part, with the probabilities of all."""
        allowed = [self._allowed(item) for item in items]
        trees, targets = [], []
        for item, some, answers in zip(items, parts, allowed, strict=True):
            stated = [[self._stated(item, steps, answer) for answer in answers] for steps in some]
            contexts = [self._forced(item, steps, max(map(len, own))) for steps, own in zip(some, stated, strict=True)]
            trees.append(
                grow([context + target for context, own in zip(contexts, stated, strict=True) for target in own])
            )
            targets.append([target for own in stated for target in own])
        forced: list[list[Forced]] = [[] for _ in items]
        for part in alike([tree.tokens for tree in trees], self.student.generation_batch):
            lengths = [[len(target) for target in targets[number]] for number in part]
            means = self._target_means([trees[number] for number in part], lengths)
            for number, scores in zip(part, means, strict=True):
                forced[number] = best_of(allowed[number], scores)
        return forced

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

    def _target_means(self, trees: Sequence[TokenTree], targets: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each sequence of each tree, the mean log-probability of its last tokens, as many as `targets` says."""
        return target_log_probabilities(self.model, trees, targets, self.pad)

    def _forced_on(self, trees: Sequence[TokenTree]) -> list[list[list[int]]]:
        """The answer that is written greedily after each sequence of each tree."""
        stops = [self.end, *self._line_ends()]
        return greedy_continuations(self.model, trees, longest=FORCED_TOKENS, stops=stops, pad=self.pad)

    @torch.inference_mode()
    def _likeliest(self, contexts: Sequence[list[int]]) -> NDArray[np.float32]:
        """The probability of the likeliest token after each context; (contexts,)."""
        found: NDArray[np.float32] = self._reading(contexts).logits.softmax(dim=1).amax(dim=1).cpu().numpy()
        return found

    @torch.inference_mode()
    def _reading(self, contexts: Sequence[list[int]], copies: int = 1) -> Reading:
        """Contexts that were read once, each in so many rows."""
        reading = Reading(self.model, contexts, self.pad)
        reading.take(torch.arange(len(contexts)).repeat_interleave(copies))
        return reading
