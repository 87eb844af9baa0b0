"""Which of the replies to an item becomes its rationale, once no other one is asked for."""

from collections.abc import Sequence

from loop.config import TaskConfig
from loop.records import AGAIN, Item, Rationale, Reply
from loop.teacher.again import better
from loop.teacher.confidence import Trust
from loop.teacher.escalation import by_the_strongest
from loop.teacher.vote import voted


def settled(item: Item, replies: Sequence[Reply], task: TaskConfig, trust: Trust) -> list[Rationale]:
    """The rationale that is kept, and behind it those that it is compared with; the first reply can be read.

    The strongest teacher that answered goes first. Otherwise samples vote, or the surer of two replies is kept.
    """
    strongest = by_the_strongest(item, replies, task, trust)
    if strongest is not None:
        return [strongest]
    again = next((each for each in replies if each.sample == AGAIN), None)
    samples = sorted((each for each in replies if each.sample >= 0), key=lambda each: each.sample)
    if again is None:
        return voted(item, samples, task, trust)
    return [better(item, samples[0], again, task, trust)[1]]
