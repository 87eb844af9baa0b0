"""A causal language model as a student: explains, answers, and answers after a part of an explanation."""

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.answer import Answer, AnswerKind, parse_answer, split_rationale
from loop.config import StudentConfig, TaskConfig
from loop.ports import Explanation, StudentPrediction
from loop.records import Item
from loop.student import prompts
from loop.student.reading import Reading, Sampling, alike, continuations, mean_log_probabilities

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
        self._start = [token for token in tokenizer("")["input_ids"] if token != self.end]

    def explain(
        self, items: Sequence[Item], *, samples: int, temperature: float, top_p: float, seed: int
    ) -> list[list[Explanation]]:
        """For each item the greedy explanation followed by `samples` sampled ones.

        What is drawn for an item depends on the seed and its key only, so the order of the items does not matter.
        """
        contexts = [self.encoded(prompts.rationale_prompt(item)) for item in items]
        draws = torch.tensor([[self._draws(item, copy, seed) for copy in range(samples + 1)] for item in items])
        texts = self._texts(contexts, self.student.max_new_tokens, sampling=Sampling(temperature, top_p, draws))
        return [[self._explanation(item, text) for text in some] for item, some in zip(items, texts, strict=True)]

    def prefix_answers(self, items: Sequence[Item], explanations: Sequence[Explanation]) -> list[list[Answer | None]]:
        """For each item the answers forced after 0..m steps of its explanation (m + 1 of them)."""
        places = [
            (item, explanation.steps[:count])
            for item, explanation in zip(items, explanations, strict=True)
            for count in range(len(explanation.steps) + 1)
        ]
        answers = iter(self._forced_answers([item for item, _ in places], [steps for _, steps in places]))
        return [[next(answers) for _ in range(len(explanation.steps) + 1)] for explanation in explanations]

    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        """Greedy answers, with the explanation where the student answers by one."""
        if self.student.answers_by == "answer":
            answers = self._forced_answers(items, [()] * len(items))
            return [StudentPrediction(answer, Explanation((), answer)) for answer in answers]
        contexts = [self.encoded(prompts.rationale_prompt(item)) for item in items]
        texts = self._texts(contexts, self.student.max_new_tokens)
        explanations = [self._explanation(item, text) for item, [text] in zip(items, texts, strict=True)]
        return [StudentPrediction(each.answer, each) for each in explanations]

    def score_answers(
        self, items: Sequence[Item], prefixes: Sequence[Sequence[str]], answers: Sequence[Sequence[Answer]]
    ) -> list[list[float]]:
        """For each item and each of its answers, the mean log-probability per token after the steps of its prefix."""
        contexts = [self._forced(item, steps) for item, steps in zip(items, prefixes, strict=True)]
        targets = [
            [self._stated(item, steps, answer) for answer in some]
            for item, steps, some in zip(items, prefixes, answers, strict=True)
        ]
        scores: list[list[float]] = [[] for _ in items]
        size = max(1, self.student.generation_batch // max(map(len, answers), default=1))
        for part in alike(contexts, size):
            reading = self._reading([contexts[number] for number in part])
            means = mean_log_probabilities(reading, [targets[number] for number in part], self.pad)
            for number, some in zip(part, means, strict=True):
                scores[number] = some
        return scores

    def tokens(self, text: str) -> list[int]:
        """A text as token ids, nothing added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def encoded(self, prompt: str) -> list[int]:
        """A prompt as token ids, through the chat template where the config says so, cut from the left."""
        if self.student.chat_template:
            messages = [{"role": "user", "content": prompt}]
            text = str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            return self.tokens(text)[-self.student.max_prompt_tokens :]
        return self._start + self.tokens(prompt)[len(self._start) - self.student.max_prompt_tokens :]

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

    def _forced_answers(self, items: Sequence[Item], prefixes: Sequence[Sequence[str]]) -> list[Answer | None]:
        if self.task.answer in (AnswerKind.CHOICE, AnswerKind.LABEL):
            allowed = [self._allowed(item) for item in items]
            scores = self.score_answers(items, prefixes, allowed)
            return [_best(some, values) for some, values in zip(allowed, scores, strict=True)]
        contexts = [self._forced(item, steps) for item, steps in zip(items, prefixes, strict=True)]
        texts = self._texts(contexts, FORCED_TOKENS, stops=self._line_ends())
        return [self._answer(item, text.split("\n")[0]) for item, [text] in zip(items, texts, strict=True)]

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

    def _texts(
        self,
        contexts: Sequence[list[int]],
        longest: int,
        *,
        sampling: Sampling | None = None,
        stops: Sequence[int] = (),
    ) -> list[list[str]]:
        """Continuations of each context: one, or as many as it has rows of draws, (contexts, copies, places)."""
        copies = 1 if sampling is None else sampling.draws.shape[1]
        texts: list[list[str]] = [[] for _ in contexts]
        for part in alike(contexts, max(1, self.student.generation_batch // copies)):
            reading = self._reading([contexts[number] for number in part])
            with torch.inference_mode():
                reading.take(torch.arange(len(part)).repeat_interleave(copies))
            own = sampling and Sampling(sampling.temperature, sampling.top_p, sampling.draws[part].flatten(0, 1))
            written = continuations(reading, longest=longest, stops=[self.end, *stops], sampling=own)
            decoded = self.tokenizer.batch_decode(written, skip_special_tokens=True)
            for place, number in enumerate(part):
                texts[number] = decoded[place * copies : (place + 1) * copies]
        return texts

    @torch.inference_mode()
    def _reading(self, contexts: Sequence[list[int]]) -> Reading:
        return Reading(self.model, contexts, self.pad)


def _best(answers: Sequence[Answer], scores: Sequence[float]) -> Answer | None:
    return max(zip(answers, scores, strict=True), key=lambda pair: pair[1])[0] if answers else None
