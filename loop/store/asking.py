"""What asking the teacher leaves in the store."""

from contextlib import AbstractContextManager

from sqlmodel import Session, col, select

from loop.config import EndpointConfig
from loop.records import AGAIN, Currency, Item, Judgement, Prompt, Query, Rationale, Reply, Round
from loop.records.teacher import ReplyState
from loop.store.database import Store, add_missing
from loop.store.money import Purse
from loop.store.pace import EndpointPace


def missing(store: Store, round_id: int, samples: int) -> list[tuple[Query, Item, int]]:
    """What is still to be asked: queries without a problem times samples, less the stored replies."""
    with store.reading() as session:
        first = select(Reply.item_key, Reply.sample).where(Reply.round_id == round_id, Reply.version == 1)
        done = set(session.exec(first).all())
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
            if (item.key, number) not in done
        ]


def unsettled(store: Store, round_id: int) -> list[tuple[Item, Reply, Reply | None]]:
    """Items whose readable first reply has no rationale yet, with their second reply where it came, by position."""
    told = select(Rationale.reply_id).where(Rationale.round_id == round_id, col(Rationale.reply_id).is_not(None))
    first = select(Item, Reply).join(Reply, col(Reply.item_key) == Item.key)
    with store.reading() as session:
        answered = set(session.exec(told))
        seconds = session.exec(select(Reply).where(Reply.round_id == round_id, Reply.sample == AGAIN)).all()
        by_key = {reply.item_key: reply for reply in seconds}
        settled = {key for key, reply in by_key.items() if reply.id in answered}
        rows = session.exec(
            first.where(Reply.round_id == round_id, Reply.sample == 0, Reply.state == ReplyState.READABLE)
            .join(Query, (col(Query.round_id) == round_id) & (col(Query.item_key) == Item.key))
            .order_by(col(Query.position))
        )
        return [
            (item, reply, by_key.get(item.key))
            for item, reply in rows
            if reply.id not in answered and item.key not in settled
        ]


def times_asked(store: Store, run: str, prompt_hash: str) -> int:
    """How many replies to a prompt the run has."""
    replies = select(Reply.id).join(Round, col(Round.id) == Reply.round_id)
    judged = (
        select(Judgement.id)
        .join(Rationale, col(Rationale.id) == Judgement.rationale_id)
        .join(Round, col(Round.id) == Rationale.round_id)
    )
    with store.reading() as session:
        return sum(
            len(session.exec(query.where(Round.run == run, noun.prompt_hash == prompt_hash)).all())
            for query, noun in ((replies, Reply), (judged, Judgement))
        )


class RunTill:
    """Where the requests of a round reserve their price and take their turn (`loop.ports.Till`)."""

    def __init__(self, store: Store, run: str, round_id: int | None, config: EndpointConfig | None = None) -> None:
        """Without an endpoint's config there is no pace to keep, and without a round none of its limits."""
        self._store = store
        self._purse = Purse(store, run)
        self._round_id = round_id
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

    def settle_on(self, rationale: Rationale) -> None:
        """Store the rationale of an item that was asked twice."""
        with self._store.writing() as session:
            session.add(rationale)

    def give_up(self, item_key: str, problem: str) -> None:
        """Note on the query why no readable reply will come."""
        with self._store.writing() as session:
            query = session.get_one(Query, (self._round_id, item_key))
            query.problem = problem
            session.add(query)
