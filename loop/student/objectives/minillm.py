"""MiniLLM (arXiv 2306.08543): reverse KL over whole texts that the student writes, by policy gradient.

As in the paper: the part of the current token is summed over the vocabulary (single-step decomposition), what comes
after it is a mean over the rest of the text (length normalisation), and the texts are drawn from a mixture with the
teacher, for which the token's weight makes up. A batch is learned once, as it is drawn, so PPO's clipping, which only
acts from the second time on, has nothing to do.
"""

import torch

from loop.student.distill_step_by_step import Rows
from loop.student.objectives.comparing import Compared, Pair, written
from loop.student.objectives.divergences import reverse_kl, token_mean

LARGEST_REWARD = 100.0
"""In nats, either way."""


def rows(pair: Pair, decided: Rows) -> Rows:
    """What is written after the contexts of a batch by a mixture of teacher and student."""
    contexts, settings = [context for context, _ in decided], pair.settings
    longest = [pair.longest] * len(contexts)
    texts = written(pair, contexts, longest, temperature=settings.temperature, mix=settings.teacher_mix)
    return list(zip(contexts, texts, strict=True))


def loss(compared: Compared) -> torch.Tensor:
    """A number whose gradient is that of the paper, in nats a token; of decided texts only the single-step part."""
    teacher, student = compared.log_probabilities()
    single = reverse_kl(teacher, student)
    if not compared.sampled:
        return token_mean(single, compared.weight)
    single_and_long = single + long_term(
        teacher, student, compared.targets, compared.row, mix=compared.pair.settings.teacher_mix
    )
    return token_mean(single_and_long, compared.weight)


def long_term(
    teacher: torch.Tensor,
    student: torch.Tensor,
    targets: torch.Tensor,
    row: torch.Tensor,
    *,
    mix: float,
    normalised: bool = True,
) -> torch.Tensor:
    """What each token does for the rewards after it, (tokens,); its gradient is -w * R * grad log student.

    Log-probabilities are (tokens, vocabulary), `targets` and `row` (tokens,), as in `Said`. The reward of a token is
    log teacher - log student; w, student / (mix * teacher + (1 - mix) * student), makes up for how it was drawn.
    """
    own, taught = (each.gather(1, targets[:, None])[:, 0] for each in (student, teacher))
    reward = (taught - own).detach()
    weight = 1 / (mix * reward.exp() + (1 - mix))
    rewards = reward.clamp(-LARGEST_REWARD, LARGEST_REWARD)
    return -weight * returns(rewards, row, normalised=normalised) * own


def returns(rewards: torch.Tensor, row: torch.Tensor, *, normalised: bool = True) -> torch.Tensor:
    """The mean (or sum) of the rewards that come after each token in its row, (tokens,); 0 for the last one."""
    parts = []
    for own in torch.split(rewards, torch.unique_consecutive(row, return_counts=True)[1].tolist()):
        after = own.flip(0).cumsum(0).flip(0) - own
        left = torch.arange(len(own) - 1, -1, -1, device=own.device).clamp(min=1)
        parts.append(after / left if normalised else after)
    return torch.cat(parts)
