"""What asking the teacher leaves in the store."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from sqlmodel import Session, col, select

from loop.config import EndpointConfig
from loop.records import (
    NOT_SENT,
    Author,
    Currency,
    Item,
    Judgement,
    Prompt,
    Query,
    Rationale,
    Reply,
    Revision,
    RevisionReply,
    Round,
)
from loop.records.teacher import ReplyState
from loop.store.database import Store, add_missing
from loop.store.money import Purse
from loop.store.pace import EndpointPace
from loop.store.rationales import REAL

SENT = col(Query.problem).is_(None) | ~col(Query.problem).startswith(NOT_SENT)
"""Queries about which something was asked."""


def missing(store: Store, round_id: int, samples: int) -> list[tuple[Query, Item, int]]:
    """What is still to be asked: queries without a problem times samples, less the stored replies; none of items whose
    explanation by the student was revised.
    """
    with store.reading() as session:
        first = select(Reply.item_key, Reply.sample).where(Reply.round_id == round_id, Reply.version == 1)
        done = set(session.exec(first).all())
        put_right = select(Revision.item_key).where(
            Revision.round_id == round_id, col(Revision.rationale_id).is_not(None)
        )
        revised = set(session.exec(put_right))
        wanted = session.exec(
            select(Query, Item)
            .join(Item, col(Item.key) == Query.item_key)
            .where(Query.round_id == round_id, col(Query.problem).is_(None))
            .order_by(col(Query.position))
        )
        return [
            (query, item, number)
            for query, item in wanted
            for number in range(samples)
            if (item.key, number) not in done and item.key not in revised
        ]


def waiting(store: Store, round_id: int) -> list[tuple[Item, list[Reply]]]:
    """Items of which a sample can be read and whose rationale is not there, with all their replies as they came."""
    return [each for each in voting(store, round_id) if any(map(_is_readable_sample, each[1]))]


def voting(store: Store, round_id: int) -> list[tuple[Item, list[Reply]]]:
    """The same, and items with samples of which none can be read, unless these were given up."""
    told = select(Rationale.item_key).where(
        Rationale.round_id == round_id, Rationale.author == Author.TEACHER, Rationale.sample == 0, REAL
    )
    query = select(Item, Reply, Query.problem).join(Reply, col(Reply.item_key) == Item.key)
    found: dict[str, tuple[Item, list[Reply]]] = {}
    with store.reading() as session:
        settled = set(session.exec(told))
        rows = session.exec(
            query.where(Reply.round_id == round_id, Reply.version == 1)
            .join(Query, (col(Query.round_id) == round_id) & (col(Query.item_key) == Item.key))
            .order_by(col(Query.position), col(Reply.id))
        )
        given_up: set[str] = set()
        for item, reply, problem in rows:
            if item.key not in settled:
                found.setdefault(item.key, (item, []))[1].append(reply)
                given_up |= {item.key} if problem else set()
    return [each for each in found.values() if each[0].key not in given_up or any(map(_is_readable_sample, each[1]))]


def _is_readable_sample(reply: Reply) -> bool:
    return reply.sample >= 0 and reply.state is ReplyState.READABLE


def times_asked(store: Store, run: str, prompt_hash: str) -> int:
    """How many replies to a prompt the run has."""
    replies = select(Reply.id).join(Round, col(Round.id) == Reply.round_id)
    checked = select(RevisionReply.id).join(Round, col(Round.id) == RevisionReply.round_id)
    judged = (
        select(Judgement.id)
        .join(Rationale, col(Rationale.id) == Judgement.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
    )
    with store.reading() as session:
        return sum(
            len(session.exec(query.where(Round.run == run, noun.prompt_hash == prompt_hash)).all())
            for query, noun in ((replies, Reply), (checked, RevisionReply), (judged, Judgement))
        )


class RunTill:
    """Where the requests of a round reserve their price and take their turn (`loop.ports.Till`)."""

    def __init__(self, store: Store, run: str, round_id: int | None, config: EndpointConfig | None = None) -> None:
        """Without an endpoint's config there is no pace to keep, and without a round none of its limits."""
        self._store = store
        self._purse = Purse(store, run)
        self._round_id = round_id
        self._model = "" if config is None else config.model
        self._pace = None if config is None else EndpointPace(store, config)

    def reserve(self, purpose: str, micro_usd: int, *, item_key: str = "", prompt_type: str = "") -> int:
        """Hold the worst-case price of one attempt under the limits of run, domain and round."""
        with self._store.writing() as session:
            item = session.get(Item, item_key) if item_key else None
            return self._purse.reserve_in(
                session,
                Currency.USD,
                purpose,
                micro_usd,
                round_id=self._round_id,
                domain="" if item is None else item.domain,
                model=self._model,
                prompt_type=prompt_type,
            )

    def together(self) -> AbstractContextManager[None]:
        """Calls within the block are one transaction."""
        return self._store.together()

    def settle(self, charge_id: int, micro_usd: int) -> None:
        """Pay for a reply that is not kept."""
        self._purse.settle(charge_id, micro_usd)

    def release(self, charge_id: int) -> None:
        """Give a hold back: the request never reached the endpoint."""
        self._purse.release(charge_id)

    def assume(self, charge_id: int) -> None:
        """Charge a hold at worst case."""
        self._purse.assume(charge_id)

    def lengths(self, prompt_type: str) -> list[int]:
        """Tokens of the latest replies to such prompts."""
        return self._purse.lengths(prompt_type)

    def turn(self, tokens: int) -> float:
        """Take a turn at the endpoint, or say in how many seconds to ask again."""
        return 0.0 if self._pace is None else self._pace.turn(tokens)

    def close(self, seconds: float) -> None:
        """Leave the endpoint alone for so long."""
        if self._pace is not None:
            self._pace.close(seconds)

    def _pay(self, session: Session, charge_id: int, micro_usd: int, prompt: Prompt, output_tokens: int) -> None:
        """Settle the charge and store the prompt, as part of a larger transaction."""
        self._purse.settle_in(session, charge_id, micro_usd, output_tokens=output_tokens)
        add_missing(session, Prompt, hash=prompt.hash, body=prompt.body)


class RoundAskBook(RunTill):
    """The book of one round's asking (`loop.ports.AskBook`)."""

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, reply: Reply, rationale: Rationale | None) -> None:
        """Settle the charge and store prompt, reply and rationale, all or nothing."""
        with self._store.writing() as session:
            self._pay(session, charge_id, micro_usd, prompt, reply.output_tokens)
            reply.charge_id = charge_id
            session.add(reply)
            session.flush()
            if rationale is not None:
                rationale.reply_id = reply.id
                session.add(rationale)

    def settle_on(self, rationales: Sequence[Rationale]) -> None:
        """Store the rationales of an item that was asked more than once."""
        with self._store.writing() as session:
            session.add_all(rationales)

    def give_up(self, item_key: str, problem: str) -> None:
        """Note on the query why no readable reply will come."""
        with self._store.writing() as session:
            query = session.get_one(Query, (self._round_id, item_key))
            query.problem = problem
            session.add(query)
