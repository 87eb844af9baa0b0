"""An encoder that marks spans: each token begins a mark, goes on with one, or is outside (BIO).

Marks are counted in characters of the item's passage; where that is the context, the question is read behind it. Its
explanation names what it marked. The answer after some words is the one given while all others are masked, and a
sampled explanation is what the item looks like with dropout, as for encoders that give a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.answer import Answer, marked, shown, spans_of
from loop.config import StudentConfig, TaskConfig
from loop.ports import Example, Explanation, Forced, StudentPrediction, Written
from loop.records import Item
from loop.student.encoder import SIDE_BY_SIDE
from loop.student.evidence import WORD
from loop.student.halving import halved
from loop.student.one_pass import OnePass
from loop.student.problems import Problem, is_allowed
from loop.student.reading import alike, mean_vectors

NO_TAG = -100
"""Of tokens that are not of the passage."""
OUTSIDE = 0
"""The tag of a token that no mark holds; behind it stand those that begin and those that go on, by label."""


@dataclass(frozen=True)
class Read:
    """Items as the model takes them: tensors, and for each token the characters of the passage that it stands for."""

    tensors: dict[str, torch.Tensor]
    offsets: list[list[tuple[int, int] | None]]
    """None for tokens that are not of the passage."""


class Tagger(OnePass):
    """A student for span tasks that answers in one pass (`loop.ports.Student`)."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, student: StudentConfig, task: TaskConfig
    ) -> None:
        super().__init__(model, tokenizer, student, task)
        self.labels = list(task.labels)

    @halved
    def explain(
        self,
        items: Sequence[Item],
        *,
        copies: Sequence[int],
        temperature: float,  # noqa: ARG002 - dropout takes the place of sampling
        top_p: float,  # noqa: ARG002
        seed: int,
    ) -> list[list[Explanation]]:
        """For each item its explanations of these numbers: every one but 0 is seen with dropout.

        What is drawn depends on the items that are explained in one call.
        """
        ways = [self._answered(items) if copy == 0 else self._with_dropout(items, seed + copy) for copy in copies]
        return [
            [_explanation(item, answer, self.task.max_steps) for answer in row]
            for item, row in zip(items, zip(*ways, strict=True), strict=True)
        ]

    @halved
    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """For each item the answers where only the words of some steps are seen, and all others are masked."""
        asked = [(item, " ".join(steps)) for item, some in zip(items, parts, strict=True) for steps in some]
        answers = iter(self._answered([item for item, _ in asked], [words for _, words in asked]))
        return [[Forced(next(answers)) for _ in some] for some in parts]

    def probabilities(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Nothing: any marks are allowed."""
        return [()] * len(items)

    @halved
    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        """The marks, named as the explanation unless the student answers directly."""
        longest = 0 if self.student.answers_by == "answer" else self.task.max_steps
        return [
            StudentPrediction(answer, _explanation(item, answer, longest))
            for item, answer in zip(items, self._answered(items), strict=True)
        ]

    def write(
        self,
        item: Item,
        *,
        copies: Sequence[int],
        temperature: float,  # noqa: ARG002 - there is one answer and nothing to sample
        top_p: float,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> list[Written]:
        """The marks as one piece, as often as they are wanted."""
        [predicted] = self.predict([item])
        assert predicted.answer is not None
        return [Written((shown(predicted.answer),), ended=True)] * len(copies)

    def reads(self, item: Item) -> tuple[int, int]:
        """How many tokens the item takes, and how many fit."""
        return len(self.tokenizer(*_texts(item))["input_ids"]), self.longest()

    def problems(self, example: Example) -> list[Problem]:
        """What is wrong with an example that it is to learn."""
        found = [] if is_allowed(example, self.task) else [Problem.UNKNOWN]
        tokens, room = self.reads(example.item)
        found += [Problem.CUT] * (tokens > room)
        return found + [Problem.OVERLAPPING] * (len(apart(example.answer)) < len(spans_of(example.answer)))

    @halved
    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """The mean of the last layer over an item's tokens, scaled to length 1; (items, dimensions)."""
        vectors = np.zeros((len(items), self.model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for part in self._batches(items):
                tensors = self.read([items[number] for number in part]).tensors
                vectors[part] = mean_vectors(
                    self.model.base_model(**tensors).last_hidden_state, tensors["attention_mask"]
                )
        return vectors

    @halved
    def doubt(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """One minus the probability of the likeliest tag of the token where that is least; (items,)."""
        found = np.zeros(len(items), dtype=np.float32)
        with torch.inference_mode():
            for part in self._batches(items):
                read = self.read([items[number] for number in part])
                sure = self._logits(read).softmax(dim=2).amax(dim=2).cpu()
                for number, row, offsets in zip(part, sure, read.offsets, strict=True):
                    own = [float(each) for each, at in zip(row, offsets, strict=True) if at is not None]
                    found[number] = 1 - min(own, default=1.0)
        return found

    def read(self, items: Sequence[Item], seen: Sequence[str] | None = None) -> Read:
        """Items as the model takes them, cut at their end; with all words masked that are not to be seen."""
        how = {"truncation": True, "max_length": self.longest(), "return_offsets_mapping": True}
        rows = [self.tokenizer(*_texts(item), **how) for item in items]
        offsets = [_of_the_passage(row.sequence_ids(0), row.pop("offset_mapping")) for row in rows]
        for item, row, places, words in zip(items, rows, offsets, seen or (), strict=False):
            hidden = _hidden(item.passage, words)
            for at, place in enumerate(places):
                if place is not None and any(start < place[1] and end > place[0] for start, end in hidden):
                    row["input_ids"][at] = self.tokenizer.mask_token_id
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        tensors = {
            name: pad_sequence([torch.tensor(row[name]) for row in rows], True, fill.get(name, 0)) for name in rows[0]
        }
        width = max(len(each) for each in offsets)
        padded = [[*each, *[None] * (width - len(each))] for each in offsets]
        return Read({name: tensor.to(self.model.device) for name, tensor in tensors.items()}, padded)

    def tags(self, answer: Answer, offsets: Sequence[tuple[int, int] | None]) -> list[int]:
        """The tag of each token where this is the answer."""
        found = [NO_TAG if place is None else OUTSIDE for place in offsets]
        for start, end, label in apart(answer):
            inside = [
                at for at, place in enumerate(offsets) if place is not None and place[0] < end and place[1] > start
            ]
            for at in inside:
                found[at] = 1 + 2 * self.labels.index(label) + (at != inside[0])
        return found

    def _answered(self, items: Sequence[Item], seen: Sequence[str] | None = None) -> list[Answer]:
        answers = [marked([])] * len(items)
        with torch.inference_mode():
            for part in self._batches(items):
                words = None if seen is None else [seen[number] for number in part]
                read = self.read([items[number] for number in part], words)
                tags = self._logits(read).argmax(dim=2).tolist()
                for number, row, offsets in zip(part, tags, read.offsets, strict=True):
                    answers[number] = self._answer(items[number].passage, row, offsets)
        return answers

    def _logits(self, read: Read) -> torch.Tensor:
        with self.quick():
            logits: torch.Tensor = self.model(**read.tensors).logits
        return logits.float()

    def _answer(self, passage: str, tags: Sequence[int], offsets: Sequence[tuple[int, int] | None]) -> Answer:
        """The marks that tags spell; one that goes on with what is not open begins it."""
        found: list[tuple[int, int, str]] = []
        before = OUTSIDE
        for tag, place in zip(tags, offsets, strict=True):
            if place is None:
                continue
            if tag != OUTSIDE:
                label, goes_on = self.labels[(tag - 1) // 2], tag % 2 == 0 and before in (tag, tag - 1)
                start = found.pop()[0] if goes_on else place[0]
                found.append((start, place[1], label))
            before = tag
        return marked(_trimmed(passage, *each) for each in found if passage[each[0] : each[1]].strip())

    def _with_dropout(self, items: Sequence[Item], seed: int) -> list[Answer]:
        with self._dropout(seed):
            return self._answered(items)

    def _batches(self, items: Sequence[Item]) -> list[list[int]]:
        size = min(self.student.generation_batch, SIDE_BY_SIDE)
        return list(alike([list(item.text.encode()) for item in items], size))


def apart(answer: Answer) -> list[tuple[int, int, str]]:
    """The marks without those that overlap an earlier or, from the same place, a longer one."""
    kept: list[tuple[int, int, str]] = []
    for start, end, label in sorted(spans_of(answer), key=lambda mark: (mark[0], -mark[1], mark[2])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, label))
    return kept


def _texts(item: Item) -> tuple[str, ...]:
    """The passage, and the question behind it where that is another text."""
    return (item.context, item.question) if item.context else (item.question,)


def _of_the_passage(
    sequences: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> list[tuple[int, int] | None]:
    """The characters of the passage that each token stands for; None for a token of the question, or of neither."""
    return [
        (start, end) if of == 0 and end > start else None for of, (start, end) in zip(sequences, offsets, strict=True)
    ]


def _hidden(passage: str, words: str) -> list[tuple[int, int]]:
    """Where words stand that are not among the given ones."""
    seen = {word.lower() for word in WORD.findall(words)}
    return [match.span() for match in WORD.finditer(passage) if match.group().lower() not in seen]


def _trimmed(passage: str, start: int, end: int, label: str) -> tuple[int, int, str]:
    """A mark without blanks at its ends, which some tokenizers count to the word."""
    own = passage[start:end]
    return start + len(own) - len(own.lstrip()), end - len(own) + len(own.rstrip()), label


def _explanation(item: Item, answer: Answer, longest: int) -> Explanation:
    steps = tuple(f"{item.passage[start:end]}: {label}" for start, end, label in sorted(spans_of(answer)))[:longest]
    return Explanation(steps, answer, "\n".join(steps))
