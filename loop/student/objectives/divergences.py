"""How far two distributions over the vocabulary are apart, place by place, in nats.

All take log-probabilities, (..., vocabulary), and give a number for each place, (...). The teacher's stands first.
"""

import math

import torch

FLOOR = -100.0
"""Log-probabilities (nats) below are taken for this one: a token that a model masks (-inf) would make a divergence
infinite, or no number."""


def log_probabilities(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Of each token, in nats and float32, of the same shape as the logits."""
    return (logits.float() / temperature).log_softmax(dim=-1).clamp(min=FLOOR)


def forward_kl(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student), as in DDK (arXiv 2407.16154): the student covers all that the teacher may say."""
    return torch.nn.functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)


def reverse_kl(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """KL(student || teacher), as in MiniLLM (arXiv 2306.08543): the student keeps to what the teacher may say."""
    return forward_kl(student, teacher)


def generalised_jsd(teacher: torch.Tensor, student: torch.Tensor, beta: float) -> torch.Tensor:
    """The generalised Jensen-Shannon divergence of GKD (arXiv 2306.13649).

    beta * KL(teacher || M) + (1 - beta) * KL(student || M), where M = beta * teacher + (1 - beta) * student. Towards
    both ends it behaves like forward KL (0) and reverse KL (1) times a factor that vanishes, so those two stand there.
    """
    if beta == 0:
        return forward_kl(teacher, student)
    if beta == 1:
        return reverse_kl(teacher, student)
    middle = torch.logaddexp(teacher + math.log(beta), student + math.log(1 - beta))
    return beta * forward_kl(teacher, middle) + (1 - beta) * forward_kl(student, middle)


def token_mean(each: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The mean of the weighed losses of target tokens; `weight` has the same shape, and is 0 where nothing counts.

    It is divided by how many count, not by what they weigh: a batch of light tokens moves the student less.
    """
    return (each * weight).sum() / (weight > 0).sum().clamp(min=1)
