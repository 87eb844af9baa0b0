"""Certificates, audits that serve them, and several reviews of one rationale."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "certificate",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("promise", sa.Enum("EXPORT", "THRESHOLD", name="promise"), nullable=False),
        sa.Column("look", sa.Integer(), nullable=False),
        sa.Column("alpha", sa.Float(), nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("audited", sa.Integer(), nullable=False),
        sa.Column("wrong", sa.Integer(), nullable=False),
        sa.Column("population", sa.Integer(), nullable=False),
        sa.Column("bound", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("issued_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_certificate_run", "certificate", ["run"])
    op.add_column("query", sa.Column("certify", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("query", sa.Column("passes", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("riskfit") as table:
        table.add_column(sa.Column("learned_in", sa.Integer(), nullable=True))
        table.create_foreign_key("fk_riskfit_learned_in_round", "round", ["learned_in"], ["id"])
    op.add_column("verdict", sa.Column("slot", sa.Integer(), nullable=False, server_default="0"))
    _rebuild_tasks(("rationale_id", "slot"))


def _rebuild_tasks(key: tuple[str, ...]) -> None:
    """The table of review tasks with another primary key; SQLite cannot change one in place."""
    slot = [sa.Column("slot", sa.Integer(), nullable=False, server_default="0")] if "slot" in key else []
    op.drop_index("ix_reviewtask_round_id", "reviewtask")
    op.rename_table("reviewtask", "reviewtask_before")
    op.create_table(
        "reviewtask",
        sa.Column("rationale_id", sa.Integer(), nullable=False),
        *slot,
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("charge_id", sa.Integer(), nullable=True),
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["charge_id"], ["charge.id"]),
        sa.ForeignKeyConstraint(["rationale_id"], ["rationale.id"]),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint(*key, name=f"pk_reviewtask_{len(key)}"),
        sa.UniqueConstraint("uid", name=f"uq_reviewtask_uid_{len(key)}"),
    )
    columns = "rationale_id, round_id, uid, reason, charge_id, board, project, task, pushed_at"
    first = "" if slot else " WHERE slot = 0"
    op.execute(f"INSERT INTO reviewtask ({columns}) SELECT {columns} FROM reviewtask_before{first}")
    op.drop_table("reviewtask_before")
    op.create_index("ix_reviewtask_round_id", "reviewtask", ["round_id"])


def downgrade() -> None:
    _rebuild_tasks(("rationale_id",))
    op.drop_column("verdict", "slot")
    with op.batch_alter_table("riskfit") as table:
        table.drop_column("learned_in")
    op.drop_column("query", "passes")
    op.drop_column("query", "certify")
    op.drop_table("certificate")
