"""What happens at the boundaries: events with a name and a few facts, for whoever listens.

They go to the standard logger `preceptor`, which is silent until a program listens (`connectors.logs`). The types below
are all that may be said: ids, counts and names of our own. No text of an item, a prompt or a reply is among them, and
no token, so that a log can be kept where the database may not be.
"""

import logging
from contextlib import AbstractContextManager
from typing import Literal, TypedDict, Unpack

from structlog.contextvars import bound_contextvars

LOGGER = logging.getLogger("preceptor")
LOGGER.addHandler(logging.NullHandler())  # or Python would write warnings to standard error
Event = Literal[
    "stage_entered", "stage_ended", "request_sent", "request_answered", "request_retried", "request_refused",
    "request_remembered", "batch_handed_over", "batch_ended", "charge_reserved", "charge_settled", "charge_released",
    "charge_assumed", "board_called", "verdicts_pulled", "checkpoint_written", "people_told",
    "scores_say_nothing",
]  # fmt: skip


class Ids(TypedDict, total=False):
    """What an event is about; each one stands in every line within its block."""

    run: str
    round: int
    item: str
    request: str
    """What a teacher's request is for: round, item and sample, as its charges say."""


class Facts(TypedDict, total=False):
    """What an event may say."""

    stage: str
    model: str
    charge: int
    micro_usd: int
    input_tokens: int
    output_tokens: int
    seconds: float
    attempt: int
    sent: bool
    """Whether a request that failed may have been served."""
    count: int
    folder: str
    examples: int
    method: str
    path: str
    status: int
    notice: str


def about(**ids: Unpack[Ids]) -> AbstractContextManager[None]:
    """Name these ids in every event within the block."""
    return bound_contextvars(**ids)


def happened(event: Event, **facts: Unpack[Facts]) -> None:
    """Tell whoever listens."""
    LOGGER.info(event, extra={"facts": facts})


def warned(event: Event, **facts: Unpack[Facts]) -> None:
    """Tell whoever listens, as a warning; what helps is told to people."""
    LOGGER.warning(event, extra={"facts": facts})
