"""An encoder as a student: classifies, and explains by what in the item its answer rests on.

The explanation is extractive. Its steps are words, phrases or sentences of the item in order of attribution:
integrated gradients (arXiv 1703.01365) of the answer's lead along the way from masks to words. The answer after some of
them is the one given while all others are masked. A sampled explanation is what the item looks like to the encoder with
dropout: an answer, its probabilities and, where that is wanted, the order of the evidence. Training has two tasks, as
for causal students: answer from the whole item, and answer from the words that the rationale mentions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.answer import Answer, AnswerKind
from loop.config import StudentConfig, TaskConfig
from loop.ports import Example, Explanation, Forced, StudentPrediction, Written
from loop.records import Item
from loop.student.evidence import WORD, named, spans
from loop.student.halving import halved
from loop.student.one_pass import OnePass
from loop.student.problems import Problem, about_steps, is_allowed
from loop.student.reading import alike, mean_vectors

PLACES = 4
"""Places between mask and word at which the gradient is taken; the last is the item as it is."""
SIDE_BY_SIDE = 32
"""Texts in one pass: so few of like length need hardly any padding, and more are not faster."""


class Encoder(OnePass):
    """A student for label tasks that answers in one pass (`loop.ports.Student`)."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, student: StudentConfig, task: TaskConfig
    ) -> None:
        super().__init__(model, tokenizer, student, task)
        self.labels = [Answer(kind=AnswerKind.LABEL, value=label) for label in task.labels]

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
        """For each item its explanations of these numbers: 0 has the evidence, every other one is seen with dropout.

        What is drawn depends on the items that are explained in one call.
        """
        ways = [self._explained(items) if copy == 0 else self._with_dropout(items, seed + copy) for copy in copies]
        return [list(row) for row in zip(*ways, strict=True)]

    @halved
    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """For each item the answers where only some of its evidence is seen, and all other is masked."""
        texts = [
            self._after(self.read(item), set(steps)) for item, some in zip(items, parts, strict=True) for steps in some
        ]
        forced = iter(self._forced(texts))
        return [[next(forced) for _ in some] for some in parts]

    @halved
    def probabilities(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Of the labels, in their order."""
        return [each.probabilities for each in self._forced([self.read(item) for item in items])]

    @halved
    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        """The answers, with the evidence that they rest on unless the student answers directly."""
        if self.student.answers_by == "answer":
            forced = self._forced([self.read(item) for item in items])
            return [StudentPrediction(each.answer, Explanation((), each.answer)) for each in forced]
        return [StudentPrediction(each.answer, each) for each in self._explained(items)]

    def write(
        self,
        item: Item,
        *,
        copies: Sequence[int],
        temperature: float,  # noqa: ARG002 - there is one answer and nothing to sample
        top_p: float,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> list[Written]:
        """The label, which is one token of its own, as often as it is wanted."""
        [shares] = self.probabilities([item])
        return [Written((self.labels[int(np.argmax(shares))].value,), ended=True)] * len(copies)

    def reads(self, item: Item) -> tuple[int, int]:
        """How many tokens the item takes, and how many fit."""
        return len(self.tokenizer(item.text)["input_ids"]), self.longest()

    @halved
    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """The mean of the last layer over an item's tokens, scaled to length 1; (items, dimensions)."""
        vectors = np.zeros((len(items), self.model.config.hidden_size), dtype=np.float32)
        texts = [self.read(item) for item in items]
        with torch.inference_mode():
            for part in self._batches(texts):
                tokens = self.tokens([texts[number] for number in part])
                vectors[part] = mean_vectors(
                    self.model.base_model(**tokens).last_hidden_state, tokens["attention_mask"]
                )
        return vectors

    def doubt(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """One minus the probability of the likeliest label; (items,)."""
        return np.array([1 - max(each) for each in self.probabilities(items)], dtype=np.float32)

    def problems(self, example: Example) -> list[Problem]:
        """What is wrong with an example that it is to learn."""
        found = [] if is_allowed(example, self.task) else [Problem.UNKNOWN]
        found += about_steps(example, self.student.rationale_weight)
        tokens, room = self.reads(example.item)
        return found + [Problem.CUT] * (tokens > room)

    def read(self, item: Item) -> str:
        """The text of an item; where it is too long, the context is cut from its left, so that the question is read."""
        whole, most = item.text, self.longest()
        if not item.context or self.reads(item)[0] <= most:
            return whole
        rest = item.model_copy(update={"context": ""}).text
        room = most - len(self.tokenizer(f"\n{rest}")["input_ids"])
        if room < 1:
            return rest
        offsets = self.tokenizer(item.context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return f"{item.context[offsets[-room][0] :]}\n{rest}"

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Texts as the model takes them, padded, cut at the end."""
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest(), return_tensors="pt"
        )
        return {name: tensor.to(self.model.device) for name, tensor in encoded.items()}

    def only(self, text: str, words: Sequence[str]) -> str:
        """The text with all words masked but those that also stand in `words`, in whatever spelling of case."""
        seen, mask = {word.lower() for some in words for word in WORD.findall(some)}, str(self.tokenizer.mask_token)
        return WORD.sub(lambda word: word.group() if word.group().lower() in seen else mask, text)

    def _after(self, text: str, steps: set[str]) -> str:
        """The text with all evidence masked, word for word, that is not among these steps."""
        pieces, behind, mask = [], 0, str(self.tokenizer.mask_token)
        for start, end in spans(text, self.student.evidence):
            unit = text[start:end]
            pieces += [text[behind:start], unit if named(unit) in steps else WORD.sub(mask, unit)]
            behind = end
        return "".join([*pieces, text[behind:]])

    def _forced(self, texts: Sequence[str]) -> list[Forced]:
        forced: list[Forced] = [Forced(None)] * len(texts)
        with torch.inference_mode():
            for part in self._batches(texts):
                with self.quick():
                    logits = self.model(**self.tokens([texts[number] for number in part])).logits
                for number, shares in zip(part, logits.float().softmax(dim=1).tolist(), strict=True):
                    forced[number] = Forced(self.labels[int(np.argmax(shares))], tuple(shares))
        return forced

    def _with_dropout(self, items: Sequence[Item], seed: int) -> list[Explanation]:
        with self._dropout(seed):
            forced = self._forced([self.read(item) for item in items])
            seen = self._explained(items) if self.student.sampled_evidence else [Explanation((), None)] * len(items)
        return [
            Explanation(evidence.steps, each.answer, evidence.text, each.probabilities)
            for each, evidence in zip(forced, seen, strict=True)
        ]

    def _explained(self, items: Sequence[Item]) -> list[Explanation]:
        """Answers with the most important evidence, the most important first."""
        explained: list[Explanation] = [Explanation((), None)] * len(items)
        texts = [self.read(item) for item in items]
        masked = self.model.get_input_embeddings().weight[self.tokenizer.mask_token_id].detach()
        for part in self._batches(texts):
            batch = [texts[number] for number in part]
            tokens = self.tokens(batch)
            embedded = self.model.get_input_embeddings()(tokens.pop("input_ids")).detach()
            way = embedded - masked
            gradients = torch.zeros_like(embedded)
            answers = torch.empty(0)
            for place in range(PLACES, 0, -1):  # from the words to the masks; the words' answer is the one explained
                between = (masked + place / PLACES * way).requires_grad_()
                with self.quick():
                    logits = self.model(inputs_embeds=between, **tokens).logits.float()
                answers = logits.argmax(dim=1) if place == PLACES else answers
                lead = logits.gather(1, answers[:, None])[:, 0] - logits.mean(dim=1)
                gradients += torch.autograd.grad(lead.sum(), between)[0]
            weights = (gradients * way).sum(dim=2).cpu()
            offsets = self.tokenizer(batch, truncation=True, max_length=self.longest(), return_offsets_mapping=True)[
                "offset_mapping"
            ]
            for row, number in enumerate(part):
                steps = self._evidence(texts[number], offsets[row], weights[row].tolist())
                explained[number] = Explanation(steps, self.labels[int(answers[row])], " ".join(steps))
        return explained

    def _evidence(self, text: str, offsets: Sequence[tuple[int, int]], weights: Sequence[float]) -> tuple[str, ...]:
        """The distinct units of a text by the sum of their tokens' weights."""
        total: dict[str, float] = {}
        for start, end in spans(text, self.student.evidence):
            inside = [
                weight for (first, last), weight in zip(offsets, weights, strict=False) if first < end and last > start
            ]
            if inside:
                step = named(text[start:end])
                total[step] = total.get(step, 0.0) + sum(inside)
        return tuple(sorted(total, key=lambda step: -total[step])[: self.task.max_steps])

    def _batches(self, texts: Sequence[str]) -> list[list[int]]:
        return list(alike([list(text.encode()) for text in texts], min(self.student.generation_batch, SIDE_BY_SIDE)))
