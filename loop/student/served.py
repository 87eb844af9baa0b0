"""A causal student whose texts and probabilities come from a server that holds its checkpoints.

The model is loaded here too: it trains, embeds, and is what the server is held against. A server that names no tokens
writes explanations alone; the rest is done here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from loop.errors import StudentError
from loop.ports import Continued, Opening, StudentHost
from loop.records import Item, Split
from loop.student import prompts
from loop.student.decoder import FORCED_TOKENS, Decoder
from loop.student.reading import Sampling
from loop.student.tree import TokenTree

PROBES = (
    "What is 2 + 2 ?",
    "A farmer has 17 cows and sells 5 of them. How many are left?",
    "Which is heavier, a stone or a feather?",
)
PROBED_TOKENS = 16
LARGEST_DIFFERENCE = 0.15
"""Of the log-probabilities of a token, in the mean. Of SmolLM2 in bfloat16 and in float32 they differed by 0.04, after
training by 0.08; of two students of it by 0.23 where one had learned 8 examples and the other 16."""
SEEDS = 2**31
CURE = 'or set student.engine = "torch"'


class ServedDecoder(Decoder):
    """A causal student that a server runs (`loop.ports.Student`)."""

    def __init__(self, student: Decoder, host: StudentHost, folder: Path | None, *, by_tokens: bool) -> None:
        """Have the server load the checkpoint.

        Args:
            student: The same student on torch.
            host: The server.
            folder: The checkpoint, or None for the untrained student.
            by_tokens: Whether the server takes and names tokens; otherwise it is sent texts.

        Raises:
            StudentError: the server cannot be asked, or holds another model.
        """
        super().__init__(student.model, student.tokenizer, student.student, student.task)
        self._host, self._by_tokens = host, by_tokens
        self._size = int(student.model.get_input_embeddings().num_embeddings)
        self._name = host.load(folder)
        self._refuse_another_model()

    def cached_share(self) -> float | None:
        """How much of a prompt the server finds read when it comes a second time; None where it does not say."""
        tokens = self.encoded("\n".join(PROBES * 8))
        if (prompt := self._spelt(tokens)) is None:
            return None
        [[_, second]] = self._host.continued(self._name, [[Opening(prompt, 1, [self.end])] * 2])
        return None if second.cached_tokens is None else second.cached_tokens / len(tokens)

    def _continued(
        self, contexts: Sequence[list[int]], longest: int, *, sampling: Sampling | None = None
    ) -> list[list[list[int]]]:
        """Continuations of each context; a row's first draw is the seed of its request, and 0 is greedy as ever."""
        draws = [[0.0]] * len(contexts) if sampling is None else sampling.draws[:, :, 0].tolist()
        spelt = [self._spelt(context) for context in contexts]
        groups = [
            [_opening(prompt, longest, self.end, draw, sampling) for draw in own]
            for prompt, own in zip(spelt, draws, strict=True)
            if prompt is not None
        ]
        theirs = iter(self._asked(groups))
        here = [number for number, prompt in enumerate(spelt) if prompt is None]
        own = sampling and Sampling(sampling.temperature, sampling.top_p, sampling.draws[here])
        ours = iter(super()._continued([contexts[number] for number in here], longest, sampling=own) if here else ())
        return [next(ours if prompt is None else theirs) for prompt in spelt]

    def _target_means(self, trees: Sequence[TokenTree], targets: Sequence[Sequence[int]]) -> list[list[float]]:
        """As on torch; a sequence that another one goes on from is read with it."""
        if not self._by_tokens:
            return super()._target_means(trees, targets)
        leaves = [_leaves(tree) for tree in trees]
        asked = [[tree.tokens[node] for node in path] for tree, own in zip(trees, leaves, strict=True) for path in own]
        scores = iter(self._host.scored(self._name, asked))
        means = []
        for tree, own, counts in zip(trees, leaves, targets, strict=True):
            of_node: dict[int, float] = {}
            for path in own:
                of_node.update(zip(path[1:], next(scores), strict=True))
            means.append(
                [
                    float(np.mean([of_node[node] for node in path[-count:]]))
                    for path, count in zip(tree.paths, counts, strict=True)
                ]
            )
        return means

    def _forced_on(self, trees: Sequence[TokenTree]) -> list[list[list[int]]]:
        """As on torch; the parts of an explanation are asked for one behind the other."""
        if not self._by_tokens:
            return super()._forced_on(trees)
        stops = [self.end, *self._line_ends()]
        groups = [[Opening(each, FORCED_TOKENS, stops) for each in tree.sequences] for tree in trees]
        return self._asked(groups)

    def _likeliest(self, contexts: Sequence[list[int]]) -> NDArray[np.float32]:
        """As on torch, where the server says how probable its first token was."""
        if not self._by_tokens:
            return super()._likeliest(contexts)
        groups = [[Opening(context, 1, [self.end])] for context in contexts]
        said = [each.log_probability for [each] in self._host.continued(self._name, groups)]
        if any(each is None for each in said):
            return super()._likeliest(contexts)
        return np.exp(np.array(said, dtype=np.float32))

    def _spelt(self, context: list[int]) -> Sequence[int] | str | None:
        """What is sent; None where no text spells these tokens."""
        if self._by_tokens:
            return context
        begins = len(self.start) if context[: len(self.start)] == self.start else 0
        text = str(self.tokenizer.decode(context[begins:]))
        return text if self.tokenizer(text)["input_ids"] == context else None

    def _asked(self, groups: Sequence[Sequence[Opening]]) -> list[list[list[int]]]:
        """The tokens that the server writes after each opening, with the end where it came to one."""
        found = self._host.continued(self._name, groups)
        return [
            [self._tokens_of(written, opening) for written, opening in zip(some, own, strict=True)]
            for some, own in zip(found, groups, strict=True)
        ]

    def _tokens_of(self, written: Continued, opening: Opening) -> list[int]:
        ids = list(self.tokens(written.text) if written.tokens is None else written.tokens)
        if not all(0 <= each < self._size for each in ids):
            raise StudentError(f"the server of student.served writes tokens that {self.student.model} has not; {CURE}")
        return [*ids, self.end] if written.ended and not set(ids[-1:]) & set(opening.stops) else ids

    def _refuse_another_model(self) -> None:
        """A server may ignore the name it is asked by, or hold a checkpoint of before: what it writes must be likeliest
        here, and what is probable there must be so here.

        Raises:
            StudentError: it runs another model.
        """
        items = [Item(key=each, question=each, split=Split.POOL, text_hash="") for each in PROBES]
        contexts = [self.encoded(prompts.rationale_prompt(item)) for item in items]
        written = [each for [each] in self._continued(contexts, PROBED_TOKENS)]
        sequences = [context + each for context, each in zip(contexts, written, strict=True)]
        own, best = zip(*map(self._log_probabilities, sequences), strict=True)
        lost = [
            top[len(context) - 1 :] - probable[len(context) - 1 :]
            for context, top, probable in zip(contexts, best, own, strict=True)
        ]  # of nothing written no mean is a number
        self._refuse_if("what it writes is not likeliest here", torch.cat(lost))
        if self._by_tokens:
            theirs = [each for some in self._host.scored(self._name, sequences) for each in some]
            self._refuse_if("its log-probabilities are not those here", (torch.tensor(theirs) - torch.cat(own)).abs())

    def _refuse_if(self, how: str, apart: torch.Tensor) -> None:
        if not apart.mean() <= LARGEST_DIFFERENCE:
            raise StudentError(
                f"the server of student.served runs another model than {self._name} ({how}: {apart.mean():.2f} apart a "
                f"token, where rounding makes less than {LARGEST_DIFFERENCE}); start it with {self.student.model} and "
                f"have it use the adapters that it is asked for by name, {CURE}"
            )

    @torch.inference_mode()
    def _log_probabilities(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every token but the first, and of the likeliest one in its place, by torch; (tokens - 1,) each."""
        read = torch.tensor([ids], device=self.model.device)
        logits = self.model(input_ids=read, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
        return logits.gather(1, read[0, 1:, None])[:, 0].cpu(), logits.amax(dim=-1).cpu()


def _opening(prompt: Sequence[int] | str, longest: int, end: int, draw: float, sampling: Sampling | None) -> Opening:
    if sampling is None or draw == 0:
        return Opening(prompt, longest, [end])
    return Opening(prompt, longest, [end], sampling.temperature, sampling.top_p, int(draw * SEEDS))


def _leaves(tree: TokenTree) -> list[list[int]]:
    """The nodes of the sequences that no other one goes on from."""
    whole = {path[-1]: path for path in tree.paths}
    return [path for end, path in whole.items() if end not in set(tree.parents)]
