"""The ledger in the store: what was reserved, settled and released, and one balance a currency."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from loop.errors import BudgetSpent
from loop.ledger import MICRO
from loop.records import Balance, Charge, ChargeState, Currency
from loop.store.claims import is_alive, owner_name
from loop.store.database import Store, now, rows_changed, values

CURE = {Currency.USD: "budget.usd", Currency.MINUTES: "budget.minutes"}


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
                row = session.get(Balance, (self._run, currency)) or Balance(
                    run=self._run, currency=currency, limit=limit
                )
                row.limit = limit
                session.add(row)

    def balances(self) -> dict[Currency, Balance]:
        """The counters by currency; zeros where the purse was never opened."""
        with self._store.reading() as session:
            rows = {row.currency: row for row in session.exec(select(Balance).where(Balance.run == self._run))}
        return {each: rows.get(each) or Balance(run=self._run, currency=each, limit=0) for each in Currency}

    def reserve(self, currency: Currency, purpose: str, amount: int) -> int:
        """Hold an amount; the charge's id.

        Raises:
            BudgetSpent: it does not fit under the limit.
        """
        with self._store.writing() as session:
            return self.reserve_in(session, currency, purpose, amount)

    def reserve_in(self, session: Session, currency: Currency, purpose: str, amount: int) -> int:
        """`reserve` as part of a larger transaction."""
        if amount < 0:
            raise ValueError(f"a charge cannot be negative: {amount}")
        fits = values(
            Balance,
            col(Balance.run) == self._run,
            col(Balance.currency) == currency,
            col(Balance.spent) + col(Balance.reserved) + amount <= col(Balance.limit),
        )
        if rows_changed(session, fits.values(reserved=col(Balance.reserved) + amount)) != 1:
            raise BudgetSpent(self._refusal(session, currency, purpose, amount))
        charge = Charge(
            run=self._run, currency=currency, purpose=purpose, reserved=amount, owner=self._owner, created_at=now()
        )
        session.add(charge)
        session.flush()
        assert charge.id is not None
        return charge.id

    def settle(self, charge_id: int, amount: int) -> None:
        """Close a hold with what it really cost.

        A cost above the hold is booked as it is: the balance tells the truth, and further reservations are refused.
        """
        with self._store.writing() as session:
            self.settle_in(session, charge_id, amount)

    def settle_in(self, session: Session, charge_id: int, amount: int, *, assumed: bool = False) -> None:
        """`settle` as part of a larger transaction. A closed charge cannot be settled again."""
        self._close(session, charge_id, ChargeState.SETTLED, amount, assumed=assumed)

    def settle_reviews_in(self, session: Session, spent: Sequence[tuple[Charge, int]]) -> None:
        """Settle charges of minutes as part of a larger transaction in which nobody else closes them."""
        for charge, amount in spent:
            charge.state, charge.settled, charge.closed_at = ChargeState.SETTLED, amount, now()
            session.add(charge)
        balance = values(Balance, col(Balance.run) == self._run, col(Balance.currency) == Currency.MINUTES)
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
        self._close(session, charge_id, ChargeState.RELEASED, 0)

    def assume(self, charge_id: int) -> None:
        """Charge a hold at worst case: whether it was spent is unknown."""
        with self._store.writing() as session:
            self._assume(session, charge_id)

    def close_dead_holds(self) -> int:
        """Charge the dollar holds of processes that died at worst case; how many there were.

        A process on another host cannot be looked at; it counts as dead once this store holds the run's claim.
        """
        with self._store.writing() as session:
            held = session.exec(
                select(Charge).where(
                    Charge.run == self._run,
                    Charge.currency == Currency.USD,
                    Charge.state == ChargeState.RESERVED,
                    Charge.owner != self._owner,
                )
            ).all()
            dead = [charge.id for charge in held if charge.id is not None and self._is_dead(charge.owner)]
            for charge_id in dead:
                self._assume(session, charge_id)
        return len(dead)

    def _assume(self, session: Session, charge_id: int) -> None:
        charge = session.exec(select(Charge).where(Charge.id == charge_id)).one()
        self.settle_in(session, charge_id, charge.reserved, assumed=True)

    def _close(
        self, session: Session, charge_id: int, state: ChargeState, amount: int, *, assumed: bool = False
    ) -> None:
        if amount < 0:
            raise ValueError(f"a charge cannot be negative: {amount}")
        charge = session.exec(select(Charge).where(Charge.id == charge_id)).one()
        held = values(Charge, col(Charge.id) == charge_id, col(Charge.state) == ChargeState.RESERVED)
        closed = held.values(state=state, settled=amount, assumed=assumed, closed_at=now())
        if rows_changed(session, closed) != 1:
            raise ValueError(f"charge {charge_id} is closed already")
        balance = values(Balance, col(Balance.run) == charge.run, col(Balance.currency) == charge.currency)
        session.execute(
            balance.values(
                reserved=col(Balance.reserved) - charge.reserved,
                spent=col(Balance.spent) + amount,
            )
        )

    def _is_dead(self, owner: str) -> bool:
        host, pid, started = owner.rsplit(":", 2)
        alive = is_alive(host, int(pid), float(started))
        claim = self._store.claim
        return not alive if alive is not None else claim is not None and claim.run == self._run

    def _refusal(self, session: Session, currency: Currency, purpose: str, amount: int) -> str:
        row = session.get(Balance, (self._run, currency)) or Balance(run=self._run, currency=currency, limit=0)
        limit, spent, held = (f"{each / MICRO:.6f}" for each in (row.limit, row.spent, row.reserved))
        left = max(0, row.limit - row.spent - row.reserved) / MICRO
        return (
            f"{purpose} may cost {amount / MICRO:.6f} {currency}, but only {left:.6f} of {limit} are left "
            f"({spent} spent, {held} reserved); raise {CURE[currency]} to go on"
        )
