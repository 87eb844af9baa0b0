"""The ledger in the store: entries that are made once and closed once, and one counter row a scope.

Every transaction takes its rows in one order: the charge that it closes, then the counters as `Charge.scopes` has them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, select

from loop.errors import BudgetSpent
from loop.events import happened
from loop.ledger import MICRO
from loop.records import BATCHED, NO_CAP, Balance, Charge, ChargeState, Currency, Round
from loop.store.claims import is_alive, owner_name
from loop.store.database import Store, add_missing, now, rows_changed, values

CURE = {Currency.USD: "budget.usd", Currency.MINUTES: "budget.minutes"}
LATEST = 500
"""So many replies tell how long the next one may be."""


class Purse:
    """The money of one run. `spent + reserved` passes the limit under no interleaving of reservations."""

    def __init__(self, store: Store, run: str) -> None:
        self._store = store
        self._run = run
        self._owner = owner_name()

    def open(self, usd: int, minutes: int) -> None:
        """Set the limits, in millionths."""
        with self._store.writing() as session:
            for currency, limit in ((Currency.USD, usd), (Currency.MINUTES, minutes)):
                self._limit(session, currency, "", limit)

    def cap(self, caps: Mapping[str, int]) -> None:
        """Set the dollar limits of scopes within the run, in millionths; all others have none."""
        with self._store.writing() as session:
            parts = values(Balance, *self._where(Currency.USD), col(Balance.scope) != "")
            session.execute(parts.values(limit=NO_CAP))
            for scope, limit in sorted(caps.items()):
                self._limit(session, Currency.USD, scope, limit)

    def balances(self) -> dict[Currency, Balance]:
        """The run's counters by currency; zeros where the purse was never opened."""
        with self._store.reading() as session:
            query = select(Balance).where(Balance.run == self._run, Balance.scope == "")
            rows = {row.currency: row for row in session.exec(query)}
        return {each: rows.get(each) or Balance(run=self._run, currency=each, limit=0) for each in Currency}

    def counters(self) -> dict[str, Balance]:
        """The dollar counters of rounds and domains by scope."""
        with self._store.reading() as session:
            query = select(Balance).where(*self._where(Currency.USD), Balance.scope != "")
            return {row.scope: row for row in session.exec(query)}

    def reserve(self, currency: Currency, purpose: str, amount: int) -> int:
        """Hold an amount; the charge's id.

        Raises:
            BudgetSpent: it does not fit under the limit.
        """
        with self._store.writing() as session:
            return self.reserve_in(session, currency, purpose, amount)

    def reserve_in(  # noqa: PLR0913 - what an entry says besides its amount
        self,
        session: Session,
        currency: Currency,
        purpose: str,
        amount: int,
        *,
        round_id: int | None = None,
        domain: str = "",
        model: str = "",
        prompt_type: str = "",
        owner: str = "",
    ) -> int:
        """`reserve` as part of a larger transaction, under the limits of a round and a domain too."""
        if amount < 0:
            raise ValueError(f"a charge cannot be negative: {amount}")
        charge = Charge(
            run=self._run, currency=currency, purpose=purpose, reserved=amount, owner=owner or self._owner,
            created_at=now(), round_id=round_id, domain=domain, model=model, prompt_type=prompt_type,
        )  # fmt: skip
        for scope in charge.scopes:
            self._hold(session, charge, scope)
        session.add(charge)
        session.flush()
        assert charge.id is not None
        return charge.id

    def lengths(self, prompt_type: str) -> list[int]:
        """The latest replies' lengths in tokens, of every run, the last one at the end."""
        query = select(Charge.output_tokens).where(
            Charge.prompt_type == prompt_type, col(Charge.output_tokens).is_not(None)
        )
        with self._store.reading() as session:
            rows = session.exec(query.order_by(col(Charge.id).desc()).limit(LATEST))
            return [length for length in rows if length is not None][::-1]

    def settle(self, charge_id: int, amount: int) -> None:
        """Close a hold with what it really cost.

        A cost above the hold is booked as it is: the balance tells the truth, and further reservations are refused.
        """
        with self._store.writing() as session:
            self.settle_in(session, charge_id, amount)

    def settle_in(
        self,
        session: Session,
        charge_id: int,
        amount: int,
        *,
        assumed: bool = False,
        output_tokens: int | None = None,
    ) -> None:
        """`settle` as part of a larger transaction. A closed charge cannot be settled again."""
        closed = {"settled": amount, "assumed": assumed, "output_tokens": output_tokens}
        self._close(session, charge_id, ChargeState.SETTLED, closed)

    def settle_reviews_in(self, session: Session, spent: Sequence[tuple[Charge, int]]) -> None:
        """Settle charges of minutes as part of a larger transaction in which nobody else closes them."""
        for charge, amount in spent:
            charge.state, charge.settled, charge.closed_at = ChargeState.SETTLED, amount, now()
            session.add(charge)
        balance = values(Balance, *self._where(Currency.MINUTES), col(Balance.scope) == "")
        session.execute(
            balance.values(
                reserved=col(Balance.reserved) - sum(charge.reserved for charge, _ in spent),
                spent=col(Balance.spent) + sum(amount for _, amount in spent),
            )
        )

    def release(self, charge_id: int) -> None:
        """Give a hold back; nothing was spent."""
        with self._store.writing() as session:
            self.release_in(session, charge_id)

    def release_in(self, session: Session, charge_id: int) -> None:
        """`release` as part of a larger transaction."""
        self._close(session, charge_id, ChargeState.RELEASED, {"settled": 0})

    def assume(self, charge_id: int) -> None:
        """Charge a hold at worst case: whether it was spent is unknown."""
        with self._store.writing() as session:
            self._assume(session, charge_id)

    def close_dead_holds(self) -> int:
        """Charge the dollar holds of processes that died at worst case; how many there were.

        A process on another host cannot be looked at; it counts as dead once this store holds the run's claim. Holds
        of batches stay: the endpoint is asked what became of them.
        """
        with self._store.writing() as session:
            held = session.exec(
                select(Charge).where(
                    Charge.run == self._run,
                    Charge.currency == Currency.USD,
                    Charge.state == ChargeState.RESERVED,
                    ~col(Charge.owner).startswith(BATCHED),
                )
            ).all()
            dead = [charge.id for charge in held if charge.id is not None and self._is_dead(charge.owner)]
            for charge_id in dead:
                self._assume(session, charge_id)
        for charge_id in dead:
            happened("charge_assumed", charge=charge_id)
        return len(dead)

    def _assume(self, session: Session, charge_id: int) -> None:
        charge = session.exec(select(Charge).where(Charge.id == charge_id)).one()
        self.settle_in(session, charge_id, charge.reserved, assumed=True)

    def _close(self, session: Session, charge_id: int, state: ChargeState, closed: dict[str, Any]) -> None:
        if closed["settled"] < 0:
            raise ValueError(f"a charge cannot be negative: {closed['settled']}")
        charge = session.exec(select(Charge).where(Charge.id == charge_id)).one()
        held = values(Charge, col(Charge.id) == charge_id, col(Charge.state) == ChargeState.RESERVED)
        if rows_changed(session, held.values(state=state, closed_at=now(), **closed)) != 1:
            raise ValueError(f"charge {charge_id} is closed already")
        moved = {
            "reserved": col(Balance.reserved) - charge.reserved,
            "spent": col(Balance.spent) + closed["settled"],
        }
        for scope in charge.scopes:
            counter = values(Balance, *self._where(charge.currency, charge.run), col(Balance.scope) == scope)
            session.execute(counter.values(**moved))

    def _hold(self, session: Session, charge: Charge, scope: str) -> None:
        """Move one counter by the charge.

        Raises:
            BudgetSpent: its limit is too low.
        """
        counter = values(
            Balance,
            *self._where(charge.currency),
            col(Balance.scope) == scope,
            col(Balance.spent) + col(Balance.reserved) + charge.reserved <= col(Balance.limit),
        )
        held = counter.values(reserved=col(Balance.reserved) + charge.reserved)
        fits = rows_changed(session, held) == 1
        if not fits and scope and session.get(Balance, (self._run, charge.currency, scope)) is None:
            self._add(session, charge.currency, scope, NO_CAP)
            fits = rows_changed(session, held) == 1
        if not fits:
            where = _named(session, scope)
            raise BudgetSpent(self._refusal(session, charge, scope, where), scope, where)

    def _limit(self, session: Session, currency: Currency, scope: str, limit: int) -> None:
        """Set the limit of a counter, which is made where it is missing."""
        self._add(session, currency, scope, limit)
        counter = values(Balance, *self._where(currency), col(Balance.scope) == scope)
        session.execute(counter.values(limit=limit))

    def _add(self, session: Session, currency: Currency, scope: str, limit: int) -> None:
        add_missing(session, Balance, run=self._run, currency=currency, scope=scope, limit=limit, spent=0, reserved=0)

    def _where(self, currency: Currency, run: str | None = None) -> tuple[Any, Any]:
        return col(Balance.run) == (run or self._run), col(Balance.currency) == currency

    def _is_dead(self, owner: str) -> bool:
        host, pid, started = owner.rsplit(":", 2)
        alive = is_alive(host, int(pid), float(started))
        claim = self._store.claim
        return not alive if alive is not None else claim is not None and claim.run == self._run

    def _refusal(self, session: Session, charge: Charge, scope: str, where: str) -> str:
        currency, row = charge.currency, session.get(Balance, (self._run, charge.currency, scope))
        amounts = (0, 0, 0) if row is None else (row.limit, row.spent, row.reserved)
        limit, spent, held = (f"{each / MICRO:.6f}" for each in amounts)
        left = max(0, amounts[0] - amounts[1] - amounts[2]) / MICRO
        where = f" for {where}" if where else ""
        return (
            f"{charge.purpose} may cost {charge.reserved / MICRO:.6f} {currency}, but only {left:.6f} of {limit} are "
            f"left{where} ({spent} spent, {held} reserved); raise {_cure(currency, scope)} to go on"
        )


def _named(session: Session, scope: str) -> str:
    """A scope as people call it: a round by its number in the run."""
    kind, _, name = scope.partition("/")
    found = session.get(Round, int(name)) if kind == "round" else None
    return f"round {found.number}" if found is not None else scope.replace("/", " ", 1)


def _cure(currency: Currency, scope: str) -> str:
    """The key of the config that sets the limit."""
    kind, _, name = scope.partition("/")
    return {"round": "budget.usd_per_round", "domain": f"budget.domains.{name}"}.get(kind, CURE[currency])
