"""What asking the teacher leaves in the store."""

from sqlmodel import Session, col, select

from loop.records import Currency, Item, Judgement, Prompt, Query, Rationale, Reply, Round
from loop.store.database import Store
from loop.store.money import Purse


def missing(store: Store, round_id: int, samples: int) -> list[tuple[Query, Item, int]]:
    """What is still to be asked: queries without a problem times samples, less the stored replies."""
    with store.reading() as session:
        done = set(session.exec(select(Reply.item_key, Reply.sample).where(Reply.round_id == round_id)).all())
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
    """Where the requests of a run reserve their price (`loop.ports.Till`)."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._purse = Purse(store, run)

    def reserve(self, purpose: str, micro_usd: int) -> int:
        """Hold the worst-case price of one attempt."""
        return self._purse.reserve(Currency.USD, purpose, micro_usd)

    def release(self, charge_id: int) -> None:
        """Give a hold back: the request never reached the endpoint."""
        self._purse.release(charge_id)

    def assume(self, charge_id: int) -> None:
        """Charge a hold at worst case."""
        self._purse.assume(charge_id)

    def _pay(self, session: Session, charge_id: int, micro_usd: int, prompt: Prompt) -> None:
        """Settle the charge and store the prompt, as part of a larger transaction."""
        self._purse.settle_in(session, charge_id, micro_usd)
        if session.get(Prompt, prompt.hash) is None:
            session.add(prompt)
            session.flush()


class RoundAskBook(RunTill):
    """The book of one round's asking (`loop.ports.AskBook`)."""

    def __init__(self, store: Store, run: str, round_id: int) -> None:
        super().__init__(store, run)
        self._round_id = round_id

    def keep(self, charge_id: int, micro_usd: int, prompt: Prompt, reply: Reply, rationale: Rationale | None) -> None:
        """Settle the charge and store prompt, reply and rationale, all or nothing."""
        with self._store.writing() as session:
            self._pay(session, charge_id, micro_usd, prompt)
            reply.charge_id = charge_id
            session.add(reply)
            session.flush()
            if rationale is not None:
                rationale.reply_id = reply.id
                session.add(rationale)

    def give_up(self, item_key: str, problem: str) -> None:
        """Note on the query why no readable reply will come."""
        with self._store.writing() as session:
            query = session.get_one(Query, (self._round_id, item_key))
            query.problem = problem
            session.add(query)
