"""Generalised knowledge distillation (GKD, arXiv 2306.13649): a student learns what its teacher says of its own texts.

With probability `student_share` a batch is one of texts that the student writes just now, else one of decided texts; on
either the generalised Jensen-Shannon divergence is made small. Nothing is learned through the drawing.
"""

import torch

from loop.student.distill_step_by_step import Rows
from loop.student.objectives.comparing import Compared, Pair, written
from loop.student.objectives.divergences import generalised_jsd, token_mean


def rows(pair: Pair, decided: Rows) -> Rows:
    """The rows of a batch as they stand, or with what the student writes in place of their targets."""
    settings = pair.settings
    if torch.rand(()) >= settings.student_share:
        return decided
    contexts = [context for context, _ in decided]
    texts = written(pair, contexts, [pair.longest] * len(contexts), temperature=settings.sample_temperature)
    return list(zip(contexts, texts, strict=True))


def loss(compared: Compared) -> torch.Tensor:
    """The generalised Jensen-Shannon divergence of the batch, in nats a token."""
    teacher, student = compared.log_probabilities()
    return token_mean(generalised_jsd(teacher, student, compared.pair.settings.beta), compared.weight)
