"""Asks once more, with a longer prompt, where the teacher's first reply was unsure, and keeps the better of both."""

from loop.config import TaskConfig
from loop.records import AGAIN, Item, Rationale, Reply
from loop.teacher.ask import Demonstrations, draft_of, rationale_of
from loop.teacher.confidence import Trust
from loop.teacher.further import Further


def again(round_id: int, demonstrations: Demonstrations) -> Further:
    """The longer prompts, whose replies stand beside the first ones."""
    return Further(AGAIN, lambda key: f"ask/{round_id}/{key}/again", "teacher is asked again", round_id, demonstrations)


def better(item: Item, first: Reply, second: Reply | None, task: TaskConfig, trust: Trust) -> tuple[Reply, Rationale]:
    """The reply that is kept, and its rationale, which knows what the other one answered.

    An allowed answer goes before one that is not; then the surer reply is kept, of equally sure ones the first.
    """
    drafts = [(each, draft_of(each, item, task)) for each in (first, second) if each is not None]
    usable = [(reply, draft) for reply, draft in drafts if draft is not None]
    ranked = sorted(usable, key=lambda each: (each[1].answer is None, -_believed(each[0], trust)))
    reply, draft = ranked[0]
    rationale = rationale_of(item, reply, draft, trust)
    if len(ranked) > 1:
        same = draft.answer is not None and ranked[1][1].answer == draft.answer
        rationale.other = draft.stated if same else ranked[1][1].stated
    return reply, rationale


def _believed(reply: Reply, trust: Trust) -> float:
    return trust.believed(reply.confidence, reply.confidence_by) or 0.0
