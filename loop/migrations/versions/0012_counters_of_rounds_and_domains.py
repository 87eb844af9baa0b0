"""Counters of rounds and domains, the lengths of replies, and the pace of requests."""

from collections import defaultdict

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NO_CAP = 2**62


def upgrade() -> None:
    with op.batch_alter_table("charge", schema=None) as batch_op:
        batch_op.add_column(sa.Column("round_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("domain", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("prompt_type", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("output_tokens", sa.Integer(), nullable=True))
        batch_op.create_index(batch_op.f("ix_charge_prompt_type"), ["prompt_type"], unique=False)
    _replace_balance(sa.Column("scope", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "pace",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("requests_at", sa.Float(), nullable=False),
        sa.Column("tokens_at", sa.Float(), nullable=False),
        sa.Column("closed_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint"),
    )
    _place_old_charges()
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps no zone, and all times are in UTC
        for table, name in (("riskfit", "fitted_at"), ("certificate", "issued_at")):
            zoned = sa.DateTime(timezone=True)
            op.alter_column(table, name, type_=zoned, postgresql_using=f"{name} AT TIME ZONE 'UTC'")


def _replace_balance(*further: sa.Column[str]) -> None:
    """Make the table anew with further columns in its primary key: not every database can change one."""
    currency = postgresql.ENUM if op.get_bind().dialect.name == "postgresql" else sa.Enum
    op.rename_table("balance", "old_balance")
    key = ["run", "currency", *(column.name for column in further)]
    op.create_table(
        "balance",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("currency", currency("USD", "MINUTES", name="currency", create_type=False), nullable=False),
        *further,
        sa.Column("limit", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*key, name=f"pk_balance_{len(key)}"),
    )
    columns = 'run, currency, "limit", spent, reserved'
    op.execute(f"INSERT INTO balance ({columns}) SELECT {columns} FROM old_balance")
    op.drop_table("old_balance")


def _place_old_charges() -> None:
    """Give charges for requests their round and domain, and count them there."""
    bind = op.get_bind()
    domains = {row.key: row.domain for row in bind.execute(sa.text("SELECT key, domain FROM item"))}
    totals: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    asked = sa.text("SELECT id, run, purpose, settled, reserved, state FROM charge WHERE currency = 'USD'")
    for charge in bind.execute(asked).all():
        kind, number, *key = charge.purpose.split("/")[:-2]
        if kind not in ("ask", "judge"):
            continue
        domain = domains.get("/".join(key), "")
        placed = sa.text("UPDATE charge SET round_id = :round, domain = :domain WHERE id = :id")
        bind.execute(placed, {"round": int(number), "domain": domain, "id": charge.id})
        for scope in (f"round/{number}", *([f"domain/{domain}"] if domain else [])):
            totals[charge.run, scope][0] += charge.settled
            totals[charge.run, scope][1] += charge.reserved if charge.state == "RESERVED" else 0
    counter = sa.text(
        'INSERT INTO balance (run, currency, scope, "limit", spent, reserved) '
        "VALUES (:run, 'USD', :scope, :cap, :spent, :reserved)"
    )
    for (run, scope), (spent, reserved) in totals.items():
        row = {"run": run, "scope": scope, "cap": NO_CAP, "spent": spent, "reserved": reserved}
        bind.execute(counter, row)


def downgrade() -> None:
    op.drop_table("pace")
    op.execute("DELETE FROM balance WHERE scope <> ''")
    _replace_balance()
    with op.batch_alter_table("charge", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_charge_prompt_type"))
        batch_op.drop_column("output_tokens")
        batch_op.drop_column("prompt_type")
        batch_op.drop_column("domain")
        batch_op.drop_column("round_id")
