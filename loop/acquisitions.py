"""The names of the acquisition functions, for settings and command line; `loop.query.acquisition` holds them."""

from typing import Literal

Acquisition = Literal[
    "explanation_divergence",
    "entropy",
    "least_confidence",
    "margin",
    "coreset",
    "badge",
    "typiclust",
    "teacher_student_gap",
    "random",
]
