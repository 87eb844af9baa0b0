"""Online knowledge distillation (OKD, arXiv 2409.12512): adapters on the teacher learn together with the student.

The teacher as it was is frozen; a LoRA module on its attention comes some way towards the student, which can then
follow. What keeps it a teacher is its own likelihood of the decided texts. Nothing is sampled. The direction of the
divergences is not known from the paper and is forward KL here.
"""

from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from loop.student import lora
from loop.student.objectives.comparing import Compared
from loop.student.objectives.divergences import forward_kl, token_mean


def adapted(teacher: Any, rank: int) -> torch.nn.Module:
    """The teacher with a LoRA module on the linear layers of its attention; that module alone learns."""
    attention = [
        name
        for name, each in teacher.named_modules()
        if isinstance(each, torch.nn.Linear | Conv1D) and "att" in name.lower()
    ]
    return lora.adapted(teacher, rank, "CAUSAL_LM", attention)


def loss(compared: Compared) -> torch.Tensor:
    """What student and adapters learn, in nats a token; neither part has a gradient to the other's weights.

    The student: KL(teacher || student). The adapters: cross-entropy of the decided texts, which anchors them, and
    `online_weight` times the same divergence.
    """
    teacher, student = compared.log_probabilities()
    of_student = token_mean(forward_kl(teacher.detach(), student), compared.weight)
    towards_student = token_mean(forward_kl(teacher, student.detach()), compared.weight)
    anchored = compared.by_teacher.cross_entropy()
    return of_student + anchored + compared.pair.settings.online_weight * towards_student
