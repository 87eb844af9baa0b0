"""Revisions of the student's own explanations, in the store."""

from collections import defaultdict

from sqlmodel import col, select

from loop.records import BatchJob, BatchLine, Item, Prompt, Query, Rationale, Reply, Revision, RevisionReply, Round
from loop.store.asking import RunTill
from loop.store.database import Store


def unrevised(store: Store, round_id: int) -> list[Item]:
    """The items of a round that were neither revised nor asked about, nor are in a batch under way, by position."""
    revised = select(Revision.item_key).where(Revision.round_id == round_id)
    asked = select(Reply.item_key).where(Reply.round_id == round_id)
    posted = (
        select(BatchLine.item_key)
        .join(BatchJob, col(BatchJob.id) == BatchLine.job_id)
        .where(BatchJob.round_id == round_id, col(BatchJob.closed_at).is_(None))
    )
    query = (
        select(Item)
        .join(Query, col(Query.item_key) == Item.key)
        .where(
            Query.round_id == round_id,
            col(Query.problem).is_(None),
            col(Item.key).not_in(revised),
            col(Item.key).not_in(asked),
            col(Item.key).not_in(posted),
        )
        .order_by(col(Query.position))
    )
    with store.reading() as session:
        return list(session.exec(query))


def replies(store: Store, round_id: int) -> dict[str, dict[str, RevisionReply]]:
    """The replies of a round by item and by the hash of the prompt."""
    found: defaultdict[str, dict[str, RevisionReply]] = defaultdict(dict)
    with store.reading() as session:
        for row in session.exec(select(RevisionReply).where(RevisionReply.round_id == round_id)):
            found[row.item_key][row.prompt_hash] = row
    return dict(found)


def of_run(store: Store, run: str) -> list[tuple[int, Revision]]:
    """All revisions of a run, each with the number of its round, oldest first."""
    query = select(Round.number, Revision).join(Round, col(Round.id) == Revision.round_id).where(Round.run == run)
    with store.reading() as session:
        rows = session.exec(query.order_by(col(Round.number), col(Revision.item_key)))
        return [(number, row) for number, row in rows]


class RunRevisionBook(RunTill):
    """The book of one round's revisions (`loop.ports.RevisionBook`)."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, reply: RevisionReply) -> None:
        """Settle the charge and store prompt and reply, all or nothing."""
        with self._store.writing() as session:
            self._pay(session, charge_id, micro_usd, prompt, reply.output_tokens)
            session.add(reply)

    def settle_on(self, revision: Revision, student: Rationale, revised: Rationale | None) -> None:
        """Store the student's own rationale, the revised one where there is one, and what was done."""
        with self._store.writing() as session:
            session.add(student)
            if revised is not None:
                session.add(revised)
            session.flush()
            revision.student_id = student.id
            revision.rationale_id = None if revised is None else revised.id
            session.add(revision)
