"""Batches at the endpoint in the store: what is under way is found again after any interruption."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from sqlmodel import Session, col, select

from loop.config import TeacherConfig
from loop.errors import BudgetSpent
from loop.ports import Job, Line, Request, Wanted
from loop.records import BATCHED, BatchJob, BatchLine, Charge, ChargeState, Currency, Item, Prompt
from loop.store.asking import RoundAskBook
from loop.store.database import Store, add_missing, now
from loop.store.money import Purse


def are_open(store: Store, round_id: int) -> bool:
    """Whether results of a batch of the round are still to be stored."""
    query = select(BatchJob.id).where(BatchJob.round_id == round_id, col(BatchJob.closed_at).is_(None))
    with store.reading() as session:
        return session.exec(query.limit(1)).first() is not None


class RoundBatchBook(RoundAskBook):
    """The book of one round's asking by batches (`loop.ports.BatchBook`)."""

    def __init__(self, store: Store, run: str, round_id: int, config: TeacherConfig) -> None:
        super().__init__(store, run, round_id, config)
        self._run, self._round, self._logprobs = run, round_id, config.logprobs

    def open_jobs(self) -> list[Job]:
        """The round's batches whose results are not all stored, with the lines that lack theirs."""
        query = select(BatchJob).where(BatchJob.round_id == self._round, col(BatchJob.closed_at).is_(None))
        with self._store.reading() as session:
            return [self._job(session, job) for job in session.exec(query.order_by(col(BatchJob.id)))]

    def prepare(self, wanted: Sequence[Wanted]) -> None:
        """Reserve the prices of those requests that fit under all limits, and make a job of them, all or nothing."""
        name = f"{self._run}-{uuid.uuid4().hex}"
        purse, posted = Purse(self._store, self._run), self._posted()
        with self._store.writing() as session:
            held = [(each, self._held(session, purse, name, each, posted)) for each in wanted]
            lines = [(each, charge_id) for each, charge_id in held if charge_id is not None]
            if not lines:
                return
            job = BatchJob(run=self._run, round_id=self._round, name=name, created_at=now())
            session.add(job)
            session.flush()
            assert job.id is not None
            for each, charge_id in lines:
                add_missing(session, Prompt, hash=each.prompt.hash, body=each.prompt.body)
                session.add(
                    BatchLine(
                        charge_id=charge_id,
                        job_id=job.id,
                        item_key=each.item.key,
                        sample=each.request.sample,
                        prompt_hash=each.prompt.hash,
                        hidden=dict(each.request.hidden),
                    )
                )

    def times_posted(self) -> Mapping[tuple[str, int], int]:
        """How often a request was in a batch of the round that the endpoint took, by item and sample."""
        return self._posted(col(BatchJob.problem).is_(None))

    def created(self, job_id: int, remote_id: str) -> None:
        """Store the endpoint's id of a batch."""
        with self._store.writing() as session:
            session.get_one(BatchJob, job_id).remote_id = remote_id

    def close_job(self, job_id: int, problem: str | None = None) -> None:
        """All that came of a batch is stored; with a problem, its holds are given back."""
        with self._store.writing() as session:
            job = session.get_one(BatchJob, job_id)
            if problem is not None:
                for line, _, _ in self._lines(session, job_id):
                    self._purse.release_in(session, line.charge_id)
            job.problem, job.closed_at = problem, now()

    def _held(
        self, session: Session, purse: Purse, name: str, each: Wanted, posted: Mapping[tuple[str, int], int]
    ) -> int | None:
        """The charge that holds a request's price; None where it does not fit."""
        at = (each.item.key, each.request.sample)
        try:
            with session.begin_nested():
                return purse.reserve_in(
                    session,
                    Currency.USD,
                    f"ask/{self._round}/{at[0]}/{at[1]}/batch-{posted.get(at, 0)}",
                    each.micro_usd,
                    round_id=self._round,
                    domain=each.item.domain,
                    model=self._model,
                    prompt_type=each.prompt_type,
                    owner=f"{BATCHED}{name}",
                )
        except BudgetSpent:
            return None

    def _posted(self, *conditions: object) -> Counter[tuple[str, int]]:
        lines = select(BatchLine.item_key, BatchLine.sample).join(BatchJob, col(BatchJob.id) == BatchLine.job_id)
        with self._store.reading() as session:
            return Counter(session.exec(lines.where(BatchJob.round_id == self._round, *conditions)).all())  # type: ignore[arg-type]

    def _job(self, session: Session, job: BatchJob) -> Job:
        assert job.id is not None
        lines = [
            Line(line.charge_id, item, _request(prompt, line, self._logprobs))
            for line, item, prompt in self._lines(session, job.id)
        ]
        charges = session.exec(select(BatchLine.charge_id).where(BatchLine.job_id == job.id))
        return Job(job.id, job.name, job.remote_id, job.created_at, lines, frozenset(map(str, charges)))

    def _lines(self, session: Session, job_id: int) -> Sequence[tuple[BatchLine, Item, Prompt]]:
        """The lines whose holds are open, with what they ask."""
        query = (
            select(BatchLine, Item, Prompt)
            .join(Charge, col(Charge.id) == BatchLine.charge_id)
            .join(Item, col(Item.key) == BatchLine.item_key)
            .join(Prompt, col(Prompt.hash) == BatchLine.prompt_hash)
            .where(BatchLine.job_id == job_id, Charge.state == ChargeState.RESERVED)
        )
        return session.exec(query.order_by(col(BatchLine.charge_id))).all()


def _request(prompt: Prompt, line: BatchLine, logprobs: bool) -> Request:
    """The request that a line was made of."""
    settings = prompt.body["settings"]
    return Request(
        model=prompt.body["model"],
        messages=tuple(prompt.body["messages"]),
        temperature=settings["temperature"],
        max_completion_tokens=settings["max_completion_tokens"],
        schema=settings["schema"],
        seed=settings["seed"],
        logprobs=logprobs,
        item_key=line.item_key,
        sample=line.sample,
        hidden=line.hidden,
    )
