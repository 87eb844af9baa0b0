"""Multi-granularity semantic revision (MGSR, arXiv 2407.10068): what the student writes is revised, then compared.

Sequence: the worst token that the student wrote is replaced by its teacher's, and the student writes the rest anew.
Token: KL on the dense part of the teacher's distribution alone. Span: what neighbouring tokens of a span have in common
is to be alike. Two parts of the paper could not be had; docs/decisions/0034 says what stands for the network that
chooses the dense part, and for the chunker that finds the spans.
"""

from collections.abc import Sequence

import torch

from loop.student.distill_step_by_step import Rows
from loop.student.objectives.comparing import Compared, Pair, compared, said, still, written
from loop.student.objectives.divergences import FLOOR, forward_kl, token_mean

LIKELIEST, MORE = 64, 8
"""So many classes are looked at first, and so many times as many while they hold too little."""


def rows(pair: Pair, decided: Rows) -> Rows:
    """With probability `student_share` what the student writes after the contexts, revised; else the decided rows."""
    if torch.rand(()) >= pair.settings.student_share:
        return decided
    contexts = [context for context, _ in decided]
    drafts = _finished(pair, contexts, [[] for _ in contexts])
    begun = corrected(pair, list(zip(contexts, drafts, strict=True)))
    return list(zip(contexts, _finished(pair, contexts, begun), strict=True))


def loss(both: Compared) -> torch.Tensor:
    """Clipped KL and the difference of the spans, in nats and in probability, means over tokens and over pairs."""
    teacher, student = both.log_probabilities()
    kept = dense(teacher, both.targets, both.pair.settings.minimum_mass)
    found = token_mean(clipped_kl(teacher, student, kept), both.weight)
    pairs = neighbours(both.row, _are_words(both)) * both.weight[1:]
    return found + both.pair.settings.span_weight * span_difference(teacher, student, pairs)


@torch.no_grad()
def corrected(pair: Pair, drafts: Rows) -> list[list[int]]:
    """Each draft up to its worst token, which is the teacher's; a draft with which the teacher agrees as it stands.

    The worst one is where teacher and student are farthest apart (forward KL) among those where the teacher's likeliest
    token is another one than the draft's.
    """
    with still(pair.student):
        by_student = said(pair.student, drafts, torch.ones(len(drafts)), pair.pad)
    both = compared(pair, by_student, drafts, sampled=True)
    teacher, student = both.log_probabilities()
    likeliest = teacher.argmax(dim=-1)
    apart = forward_kl(teacher, student).masked_fill(likeliest == both.targets, -torch.inf)
    lengths = [len(text) for _, text in drafts]
    begun = []
    for (_, text), own, told in zip(drafts, *(torch.split(each, lengths) for each in (apart, likeliest)), strict=True):
        worst = int(own.argmax())
        begun.append(text if own[worst].isinf() else [*text[:worst], int(told[worst])])
    return begun


def dense(teacher: torch.Tensor, targets: torch.Tensor, mass: float) -> torch.Tensor:
    """The smallest set of classes that holds so much of the teacher's mass, and the target; (tokens, vocabulary).

    `teacher` are log-probabilities, (tokens, vocabulary); `targets` are (tokens,).
    """
    shares, size = teacher.exp(), min(LIKELIEST, teacher.shape[-1])
    values, classes = shares.topk(size)
    while size < teacher.shape[-1] and (values.sum(dim=-1) < mass).any():
        size = min(MORE * size, teacher.shape[-1])
        values, classes = shares.topk(size)
    needed = values.cumsum(dim=-1) - values < mass  # what is likelier does not hold enough
    kept = torch.zeros_like(shares, dtype=torch.bool).scatter(1, classes, needed)
    return kept.scatter(1, targets[:, None], True)


def clipped_kl(teacher: torch.Tensor, student: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Forward KL of both distributions on the kept classes, where they sum to one again; nats, (tokens,)."""
    inside = (each.masked_fill(~kept, -torch.inf).log_softmax(dim=-1).clamp(min=FLOOR) for each in (teacher, student))
    return forward_kl(*inside)


def neighbours(row: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Whether each token and the next one stand in one span of one row, (tokens - 1,); 1 or 0.

    A span is a run of words; `words` says which tokens are some, (tokens,).
    """
    return ((row[:-1] == row[1:]) & words[:-1] & words[1:]).float()


def span_difference(teacher: torch.Tensor, student: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """How the products of the distributions of two neighbours differ, summed over classes: a mean over pairs, 0 to 2.

    `pairs` weighs each token with the next one, (tokens - 1,).
    """
    at = pairs.nonzero()[:, 0]
    products = [(each[at] + each[at + 1]).exp() for each in (teacher, student)]
    return token_mean((products[0] - products[1]).abs().sum(dim=-1), pairs[at])


def _are_words(both: Compared) -> torch.Tensor:
    """Which targets have a letter or a digit, (tokens,)."""
    tokens, places = torch.unique(both.targets, return_inverse=True)
    texts = both.pair.tokenizer.batch_decode(tokens[:, None])
    found = [any(sign.isalnum() for sign in text) for text in texts]
    special = torch.isin(tokens, torch.tensor(both.pair.tokenizer.all_special_ids, device=tokens.device))
    return (torch.tensor(found, device=tokens.device) & ~special)[places]


def _finished(pair: Pair, contexts: Sequence[list[int]], begun: Sequence[list[int]]) -> list[list[int]]:
    """What is begun after each context, and what the student writes after that; a text that has ended stays."""
    texts = list(begun)
    going = [at for at, text in enumerate(begun) if not pair.is_whole(text)]
    rest = written(
        pair,
        [contexts[at] + begun[at] for at in going],
        [pair.longest - len(begun[at]) for at in going],
        temperature=pair.settings.sample_temperature,
    )
    for at, text in zip(going, rest, strict=True):
        texts[at] = begun[at] + text
    return texts
