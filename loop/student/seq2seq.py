"""An encoder-decoder model (T5, BART) as a student: reads the item with its encoder, and writes with its decoder.

The beginning of an explanation is forced through the decoder. Texts that begin with equally many tokens are written
side by side, so the decoder never sees padding before a text: models with learned positions would count it.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from loop.answer import AnswerKind, number_steps
from loop.config import StudentConfig, TaskConfig
from loop.errors import StudentError
from loop.ports import Forced
from loop.records import Item
from loop.student import prompts
from loop.student.decoder import FORCED_TOKENS
from loop.student.halving import halved
from loop.student.reading import Reading, Sampling, alike, continuations, mean_vectors
from loop.student.writer import MARK, Writer, best_of

Pair = tuple[list[int], list[int]]
"""What the encoder reads, and what the decoder has written already, as token ids."""
LINE = "<extra_id_0>"
"""Stands for the end of a line where the tokenizer knows none, as T5's: a token of its own that is not used else."""


class PairReading(Reading):
    """Items that a model has read with its encoder, and beginnings of equal length that its decoder has written."""

    def __init__(self, model: PreTrainedModel, pairs: Sequence[Pair], pad: int, start: int) -> None:
        sources, mask = padded_behind([source for source, _ in pairs], pad)
        self._model = model
        self._mask = mask.to(model.device)
        encoder = model.get_encoder()
        self.hidden = encoder(input_ids=sources.to(model.device), attention_mask=self._mask).last_hidden_state
        self._cache = None
        self._read(torch.tensor([[start, *begun] for _, begun in pairs]))

    @property
    def joinable(self) -> bool:
        """Never: the other rows may have read longer items."""
        return False

    def take(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        super().take(rows)
        self.hidden = self.hidden[rows]

    def read(self, tokens: torch.Tensor) -> None:
        """Write one more token in each row, (rows,)."""
        self._read(tokens[:, None])

    def log_probabilities(self, targets: Sequence[Sequence[int]]) -> list[list[float]]:
        """Of each token of what would be written next, a target a row; the rows are used up."""
        ids, mask = padded_behind(targets, 0)
        logits = [self._logits[:, -1:]]
        if ids.shape[1] > 1:
            self._read(ids[:, :-1])
            logits.append(self._logits)
        each = torch.cat(logits, dim=1).float().log_softmax(dim=-1).cpu().gather(2, ids[:, :, None])[:, :, 0]
        return [row[: int(count)].tolist() for row, count in zip(each, mask.sum(dim=1), strict=True)]

    def _read(self, tokens: torch.Tensor) -> None:
        out = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.hidden),
            attention_mask=self._mask,
            decoder_input_ids=tokens.to(self._model.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache, self._logits = out.past_key_values, out.logits


class Seq2Seq(Writer[Pair]):
    """A student that reads with an encoder and writes with a decoder (`loop.ports.Student`)."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, student: StudentConfig, task: TaskConfig
    ) -> None:
        super().__init__(model, tokenizer, student, task)
        told = (model.generation_config.decoder_start_token_id, getattr(model.config, "decoder_start_token_id", None))
        self.start = next((int(each) for each in told if each is not None), self.pad)
        self.line = self._line()
        whole, word = tokenizer("1")["input_ids"], super().tokens("1")
        at = next(at for at in range(len(whole)) if whole[at : at + len(word)] == word)
        self.around = whole[:at], whole[at + len(word) :]

    @halved
    def answers_after(self, items: Sequence[Item], parts: Sequence[Sequence[Sequence[str]]]) -> list[list[Forced]]:
        """For each item the answers forced after each of the given parts of an explanation.

        Where the allowed answers are few, each is scored by the mean log-probability of its tokens; otherwise the
        answer is written greedily.
        """
        asked = [(item, steps) for item, some in zip(items, parts, strict=True) for steps in some]
        pairs = [self._forced(item, steps, FORCED_TOKENS) for item, steps in asked]
        if self.task.answer in (AnswerKind.CHOICE, AnswerKind.LABEL):
            forced = iter(self._scored(asked, pairs))
        else:
            stops = [self.end, *self._line_ends()]
            written = self.decoded([ids for [ids] in self._written(pairs, FORCED_TOKENS, None, stops)])
            texts = [text.split("\n")[0] for text in written]
            forced = iter(Forced(self._answer(item, text)) for (item, _), text in zip(asked, texts, strict=True))
        return [[next(forced) for _ in some] for some in parts]

    @halved
    def step_likelihoods(self, items: Sequence[Item], steps: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each item the mean log-probability of a token of each step, given the item and the steps before."""
        told = [number for number, some in enumerate(steps) if some]
        pairs = [self.context(prompts.rationale_prompt(items[number])) for number in told]
        each = self._log_probabilities(pairs, [[self.tokens(number_steps(steps[number]))] for number in told])
        found: list[list[float]] = [[] for _ in items]
        for number, [tokens] in zip(told, each, strict=True):
            ends = itertools.pairwise(self.step_ends(steps[number]))
            found[number] = [float(np.mean(tokens[at : max(end, at + 1)])) for at, end in ends]
        return found

    @halved
    @torch.inference_mode()
    def embed(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """The mean of what the encoder makes of an item's prompt, scaled to length 1; (items, dimensions)."""
        sources = [self.encoded(prompts.answer_prompt(item)) for item in items]
        vectors = np.zeros((len(items), self.model.config.hidden_size), dtype=np.float32)
        for part in alike(sources, self.student.generation_batch):
            ids, mask = (each.to(self.model.device) for each in padded_behind([sources[at] for at in part], self.pad))
            hidden = self.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors[part] = mean_vectors(hidden, mask)
        return vectors

    @halved
    @torch.inference_mode()
    def doubt(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """One minus the probability of the likeliest first token of the answer that is given at once; (items,)."""
        pairs = [self._forced(item, (), 1) for item in items]
        found = np.zeros(len(items), dtype=np.float32)
        for part in self._batches(pairs):
            logits = self._reading([pairs[at] for at in part]).logits
            found[part] = 1 - logits.softmax(dim=1).amax(dim=1).cpu().numpy()
        return found

    def encoded(self, prompt: str) -> list[int]:
        """A prompt as token ids, through the chat template where the config says so; it is cut from its left."""
        whole = self._whole(prompt)
        if len(whole) <= self.room:
            return whole
        head, tail = (self.marked(part) for part in self._framed(MARK).split(MARK))
        return self._last(prompt, [*self.around[0], *head], [*tail, *self.around[1]], self.room)

    def context(self, prompt: str, begun: str = "", longest: int | None = None) -> Pair:  # noqa: ARG002 - the decoder has positions of its own
        """A prompt for the encoder, and the beginning of what the decoder writes."""
        return self.encoded(prompt), self.tokens(begun)

    def tokens(self, text: str) -> list[int]:
        """A text as token ids, nothing added. What it spells of the model's own tokens is left out, or is text."""
        if self.line is None:
            return super().tokens(text)
        return [each for each in self.marked(text.replace(LINE, " ")) if each == self.line or each not in self.own]

    def marked(self, text: str) -> list[int]:
        """A text of the model's makers as token ids."""
        return super().marked(text if self.line is None else text.replace("\n", LINE))

    def decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """What was written, as text."""
        if self.line is None:
            return super().decoded(rows)
        lines = [[list(some) for end, some in itertools.groupby(row, self.line.__eq__) if not end] for row in rows]
        return ["\n".join(super(Seq2Seq, self).decoded(some)) for some in lines]

    def _line(self) -> int | None:
        """The token that stands for the end of a line, None where the tokenizer has one for it.

        Raises:
            StudentError: there is neither.
        """
        if "\n" in self.tokenizer.decode(super().tokens("1\n2")):
            return None
        line: int | None = self.tokenizer.convert_tokens_to_ids(LINE)
        if line is None or line == self.tokenizer.unk_token_id:
            raise StudentError(
                f"{self.student.model}: its tokenizer knows neither the end of a line nor {LINE}, so steps cannot be "
                "told apart; take another model"
            )
        return line

    def _room(self, positions: int) -> int:
        return min(self.student.max_prompt_tokens, positions)

    def crowded(self, prompt: int, written: int) -> bool:  # noqa: ARG002 - it has positions of its own
        """Whether the model has too few positions for a prompt and a text of so many tokens."""
        return self.positions is not None and written > self.positions

    def _whole(self, prompt: str) -> list[int]:
        return [*self.around[0], *self._in_frame(prompt), *self.around[1]]

    def _line_ends(self) -> list[int]:
        return super()._line_ends() if self.line is None else [self.line]

    def _scored(self, asked: Sequence[tuple[Item, Sequence[str]]], pairs: Sequence[Pair]) -> list[Forced]:
        """The best of the allowed answers after each pair, with the probabilities of all."""
        allowed = [self._allowed(item) for item, _ in asked]
        targets = [
            [self._stated(item, steps, answer) for answer in answers]
            for (item, steps), answers in zip(asked, allowed, strict=True)
        ]
        each = self._log_probabilities(pairs, targets)
        means = [[float(np.mean(tokens)) for tokens in some] for some in each]
        return [forced for answers, some in zip(allowed, means, strict=True) for forced in best_of(answers, some)]

    @torch.inference_mode()
    def _log_probabilities(
        self, pairs: Sequence[Pair], targets: Sequence[Sequence[list[int]]]
    ) -> list[list[list[float]]]:
        """Of each token of each target after each pair, (pairs, targets, tokens)."""
        found: list[list[list[float]]] = [[] for _ in pairs]
        for part in self._batches(pairs, max((len(some) for some in targets), default=1)):
            reading = self._reading([pairs[at] for at in part])
            reading.take(torch.arange(len(part)).repeat_interleave(torch.tensor([len(targets[at]) for at in part])))
            rows = iter(reading.log_probabilities([target for at in part for target in targets[at]]))
            for at in part:
                found[at] = [next(rows) for _ in targets[at]]
        return found

    def _continued(
        self, contexts: Sequence[Pair], longest: int, *, sampling: Sampling | None = None
    ) -> list[list[list[int]]]:
        return self._written(contexts, longest, sampling, [self.end])

    @torch.inference_mode()
    def _written(
        self, pairs: Sequence[Pair], longest: int, sampling: Sampling | None, stops: Sequence[int]
    ) -> list[list[list[int]]]:
        """What the model writes after each pair: one text, or as many as it has rows of draws."""
        copies = 1 if sampling is None else sampling.draws.shape[1]
        found: list[list[list[int]]] = [[] for _ in pairs]
        for part in self._batches(pairs, copies):
            reading = self._reading([pairs[at] for at in part])
            reading.take(torch.arange(len(part)).repeat_interleave(copies))
            own = sampling and Sampling(sampling.temperature, sampling.top_p, sampling.draws[part].flatten(0, 1))
            rows = continuations([reading], longest=longest, stops=stops, sampling=own)
            for place, at in enumerate(part):
                found[at] = rows[place * copies : (place + 1) * copies]
        return found

    def _reading(self, pairs: Sequence[Pair]) -> PairReading:
        return PairReading(self.model, pairs, self.pad, self.start)

    def _batches(self, pairs: Sequence[Pair], copies: int = 1) -> Iterator[list[int]]:
        """Numbers of pairs that begin with equally many tokens, those of like prompts together."""
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for number, (_, begun) in enumerate(pairs):
            by_length[len(begun)].append(number)
        size = max(1, self.student.generation_batch // copies)
        for numbers in by_length.values():
            for part in alike([pairs[number][0] for number in numbers], size):
                yield [numbers[at] for at in part]


def pair_losses(start: int, pad: int) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """What gives the negative log-likelihood of each target token, and which places are targets, as for decoders."""

    def losses(model: torch.nn.Module, rows: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
        device = next(model.parameters()).device
        sources, mask = (each.to(device) for each in padded_behind([source for source, _ in rows], pad))
        targets, is_target = (each.to(device) for each in padded_behind([target for _, target in rows], pad))
        written = torch.cat([torch.full_like(targets[:, :1], start), targets[:, :-1]], dim=1)
        out = model(input_ids=sources, attention_mask=mask, decoder_input_ids=written, use_cache=False)
        nll = torch.nn.functional.cross_entropy(out.logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        return nll.view(targets.shape), is_target.float()

    return losses


def padded_behind(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (rows, longest) each, padded on the right."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask
