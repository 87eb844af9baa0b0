"""Self-consistency: the teacher is asked sample by sample until the vote on the answer is settled.

The answer that most samples end in wins (Wang and others, ICLR 2023). When to stop goes by Adaptive-Consistency
(Aggarwal and others, EMNLP 2023): with v and w votes for the two answers that lead, and no opinion before, the first is
the more frequent one with the probability that Beta(v + 1, w + 1) lies above one half. Replies that cannot be read, or
end in no allowed answer, have no vote.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from scipy.special import betainc

from loop.config import TaskConfig, TeacherConfig
from loop.ports import AskBook, Progress, Teacher
from loop.records import Item, Rationale, Reply
from loop.teacher.ask import Demonstrations, draft_of, rationale_of, reply_row
from loop.teacher.confidence import VOTES, Trust
from loop.teacher.demonstrations import with_one_less
from loop.teacher.prompt import prompt_of, request_for
from loop.teacher.reply import read
from loop.teacher.send import Received, Sender, Sleep, nobody_is_told

TELLING = 5
"""So many items whose samples are all the same are no accident."""
Vote = str | None
"""The answer that a sample ends in; None where it has none that is allowed."""


@dataclass
class VoteOutcome:
    """What came of voting: items, samples asked now, and items whose vote was settled before all samples were asked."""

    items: int = 0
    samples: int = 0
    early: int = 0
    budget_spent: bool = False


def is_settled(votes: Sequence[Vote], most: int, confidence: float) -> bool:
    """Whether further samples, up to `most` in all, are not worth asking for."""
    left = most - len(votes)
    counts = [number for _, number in Counter(each for each in votes if each is not None).most_common(2)]
    first, second = (*counts, 0, 0)[:2]
    if left <= 0:
        return True
    if confidence == 1:
        return False
    return first - second > left or float(betainc(second + 1, first + 1, 0.5)) >= confidence


async def vote(  # noqa: PLR0913 - the ports and settings of one stage
    todo: Sequence[tuple[Item, Sequence[Reply]]],
    teacher: Teacher,
    book: AskBook,
    task: TaskConfig,
    config: TeacherConfig,
    *,
    round_id: int,
    demonstrations: Demonstrations,
    progress: Progress,
    sleep: Sleep = asyncio.sleep,
) -> VoteOutcome:
    """Ask for further samples of these items, whose replies so far are given, until each vote is settled.

    A sample that does not come ends an item's vote with those that did.

    Raises:
        TeacherDown, TeacherRefused, UnknownPrice: see `Sender.work`.
    """
    voting = _Voting(book, task, config, round_id, demonstrations, VoteOutcome(items=len(todo)))
    sender = Sender(teacher, book, config, sleep, nobody_is_told)
    with progress.bar("teacher's samples vote", len(todo)) as bar:
        await sender.work(todo, lambda each: voting.go_on(sender, *each), bar)
    voting.outcome.budget_spent = sender.budget_spent
    return voting.outcome


def copies(voted: Sequence[tuple[Item, Sequence[Reply]]]) -> bool:
    """Whether there are items with several samples, enough to tell, and none of them has two that differ."""
    texts = [{reply.text for reply in replies if reply.sample >= 0} for _, replies in voted if len(replies) > 1]
    return len(texts) >= TELLING and all(len(each) == 1 for each in texts)


def voted(item: Item, replies: Sequence[Reply], task: TaskConfig, trust: Trust) -> list[Rationale]:
    """The rationales of an item's samples: first the one that is kept, as sample 0, with its share of the votes.

    It is the first sample that ends in the most frequent answer; of equally frequent ones the answer that came first.
    """
    found = [rationale_of(item, reply, draft, trust) for reply in replies if (draft := draft_of(reply, item, task))]
    votes = Counter(each.answer for each in found if each.answer is not None)
    winner = votes.most_common(1)[0][0] if votes else None
    kept = next((place for place, each in enumerate(found) if each.answer == winner), 0)
    found[0].sample, found[kept].sample = found[kept].sample, 0
    found.sort(key=lambda each: each.sample)
    if votes.total() > 1:
        for each in found:
            each.confidence, each.confidence_by = votes[each.answer or ""] / votes.total(), VOTES
            each.calibrated = trust.calibrated(each.confidence, VOTES)
    return found


@dataclass
class _Voting:
    """One call of `vote`: what its requests share."""

    book: AskBook
    task: TaskConfig
    config: TeacherConfig
    round_id: int
    demonstrations: Demonstrations
    outcome: VoteOutcome = field(default_factory=VoteOutcome)

    async def go_on(self, sender: Sender, item: Item, replies: Sequence[Reply]) -> None:
        """Ask for one sample after another; those that are stored are not asked for again."""
        votes = {reply.sample: self._vote(item, reply) for reply in replies if reply.sample >= 0}
        for sample in range(self.config.samples):
            if sample in votes:
                continue
            if is_settled([*votes.values()], self.config.samples, self.config.vote_confidence):
                self.outcome.early += 1
                return
            request = request_for(item, self.task, self.config, self.demonstrations(item), sample)
            purpose = f"ask/{self.round_id}/{item.key}/{sample}"
            if not await sender.send(request, purpose, lambda got: self._keep(item, got, votes), with_one_less):
                return

    def _keep(self, item: Item, received: Received, votes: dict[int, Vote]) -> None:
        """Settle, and store the reply in the same transaction; its rationale waits until the vote is over."""
        reply = reply_row(self.round_id, received, read(received.completion, item, self.task))
        self.book.keep(received.charge_id, received.micro_usd, prompt_of(received.request), reply, None)
        votes[reply.sample] = self._vote(item, reply)
        self.outcome.samples += 1

    def _vote(self, item: Item, reply: Reply) -> Vote:
        draft = draft_of(reply, item, self.task)
        return None if draft is None or draft.answer is None else draft.answer.canonical
