"""A causal language model as a student: explains, answers, and answers after a part of an explanation."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loop.answer import Answer, AnswerKind, parse_answer, shown, split_rationale
from loop.config import StudentConfig, TaskConfig
from loop.ports import Explanation, StudentPrediction
from loop.records import Item
from loop.student import prompts

FORCED_TOKENS = 16
"""Longest answer that is generated after a forced trigger."""
TOP_K = 50
"""Sampling looks at this many tokens; it keeps sampling cheap beside the forward pass."""


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

    def explain(
        self, items: Sequence[Item], *, samples: int, temperature: float, top_p: float, seed: int
    ) -> list[list[Explanation]]:
        """For each item the greedy explanation followed by `samples` sampled ones; a pure function of its arguments."""
        contexts = [self.encoded(prompts.rationale_prompt(item)) for item in items]
        greedy = self._generate(contexts, self.student.max_new_tokens)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sampled = self._generate(
                contexts, self.student.max_new_tokens, samples=samples, temperature=temperature, top_p=top_p
            )
        return [
            [self._explanation(item, text) for text in (*first, *others)]
            for item, first, others in zip(items, greedy, sampled, strict=True)
        ]

    def prefix_answers(self, items: Sequence[Item], explanations: Sequence[Explanation]) -> list[list[Answer | None]]:
        """For each item the answers forced after 0..m steps of its explanation (m + 1 of them)."""
        owners, contexts = [], []
        for item, explanation in zip(items, explanations, strict=True):
            for count in range(len(explanation.steps) + 1):
                owners.append(item)
                contexts.append(self._forced(item, explanation.steps[:count]))
        answers = iter(self._forced_answers(owners, contexts))
        return [[next(answers) for _ in range(len(explanation.steps) + 1)] for explanation in explanations]

    def predict(self, items: Sequence[Item]) -> list[StudentPrediction]:
        """Greedy answers, with the explanation where the student answers by one."""
        if self.student.answers_by == "answer":
            answers = self._forced_answers(items, [self._forced(item, ()) for item in items])
            return [StudentPrediction(answer, Explanation((), answer)) for answer in answers]
        contexts = [self.encoded(prompts.rationale_prompt(item)) for item in items]
        texts = self._generate(contexts, self.student.max_new_tokens)
        explanations = [self._explanation(item, text[0]) for item, text in zip(items, texts, strict=True)]
        return [StudentPrediction(each.answer, each) for each in explanations]

    def score_answers(self, contexts: Sequence[list[int]], answers: Sequence[str]) -> list[float]:
        """Mean log-probability per token of each answer after its context (token ids)."""
        rows = [
            (context, self.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"])
            for context, answer in zip(contexts, answers, strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number][0]))
        scores = [0.0] * len(rows)
        with torch.inference_mode():
            for start in range(0, len(order), self.student.generation_batch):
                part = order[start : start + self.student.generation_batch]
                losses, mask = token_losses(self.model, [rows[number] for number in part], self._pad)
                means = -(losses * mask).sum(dim=1) / mask.sum(dim=1)
                for number, mean in zip(part, means.tolist(), strict=True):
                    scores[number] = mean
        return scores

    def encoded(self, prompt: str) -> list[int]:
        """A prompt as token ids, through the chat template where the config says so, cut from the left."""
        text = prompt
        if self.student.chat_template:
            messages = [{"role": "user", "content": prompt}]
            text = str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids[-self.student.max_prompt_tokens :]

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _forced(self, item: Item, steps: Sequence[str]) -> list[int]:
        """Prompt and explanation up to the answer trigger; without steps it is the answer task."""
        prompt = prompts.rationale_prompt(item) if steps else prompts.answer_prompt(item)
        start: list[int] = self.tokenizer(prompts.forced(steps), add_special_tokens=False)["input_ids"]
        return self.encoded(prompt) + start

    def _forced_answers(self, items: Sequence[Item], contexts: Sequence[list[int]]) -> list[Answer | None]:
        if self.task.answer in (AnswerKind.CHOICE, AnswerKind.LABEL):
            return self._best_answers(items, contexts)
        texts = self._generate(contexts, FORCED_TOKENS)
        return [self._answer(item, text[0].split("\n")[0]) for item, text in zip(items, texts, strict=True)]

    def _best_answers(self, items: Sequence[Item], contexts: Sequence[list[int]]) -> list[Answer | None]:
        """The allowed answer with the highest mean log-probability."""
        allowed = [self._allowed(item) for item in items]
        flat = [shown(answer, item.choices) for item, some in zip(items, allowed, strict=True) for answer in some]
        repeated = [context for context, some in zip(contexts, allowed, strict=True) for _ in some]
        scores = iter(self.score_answers(repeated, flat))
        return [max(some, key=lambda _: next(scores)) for some in allowed]

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

    def _generate(
        self,
        contexts: Sequence[list[int]],
        longest: int,
        *,
        samples: int = 1,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> list[list[str]]:
        """Continuations of each context, batched by length; greedy without a temperature."""
        settings: dict[str, object] = {"do_sample": False}
        if temperature is not None:
            settings = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": TOP_K}
        texts: list[list[str]] = [[] for _ in contexts]
        order = sorted(range(len(contexts)), key=lambda number: len(contexts[number]))
        size = max(1, self.student.generation_batch // samples)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            ids, mask = padded([contexts[number] for number in part], self._pad)
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=longest,
                    num_return_sequences=samples,
                    pad_token_id=self._pad,
                    eos_token_id=self.tokenizer.eos_token_id,
                    **settings,
                )
            decoded = self.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for place, number in enumerate(part):
                texts[number] = decoded[place * samples : (place + 1) * samples]
        return texts


def padded(rows: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (rows, longest) each, padded on the left."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def token_losses(
    model: torch.nn.Module, rows: Sequence[tuple[list[int], list[int]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of each target token, and which places are targets.

    Rows are (context, target) token ids. Both results are (rows, longest target); rows stand at the right end, so that
    logits are computed for target places only.
    """
    ids, mask = padded([context + target for context, target in rows], pad)
    longest = max(len(target) for _, target in rows)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = (
        model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1, use_cache=False)
        .logits[:, :-1]
        .float()
    )
    targets = ids[:, -longest:]
    lengths = torch.tensor([len(target) for _, target in rows])
    is_target = (torch.arange(longest)[None, :] >= longest - lengths[:, None]).float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return losses, is_target
