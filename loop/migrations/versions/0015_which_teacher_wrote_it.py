"""Which teacher was paid and wrote a rationale, where its confidence is from, and revisions of the student's own."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

NAMES = (("reply", "teacher"), ("rationale", "teacher"), ("rationale", "confidence_by"), ("charge", "model"))


def upgrade() -> None:
    for table, column in NAMES:
        op.add_column(table, sa.Column(column, sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE reply SET teacher = model")
    for column, source in (("teacher", "teacher"), ("confidence_by", "confidence_by")):
        value = f"(SELECT reply.{source} FROM reply WHERE reply.id = rationale.reply_id)"
        op.execute(f"UPDATE rationale SET {column} = {value} WHERE reply_id IS NOT NULL")
    op.execute(
        "UPDATE charge SET model = (SELECT reply.teacher FROM reply WHERE reply.charge_id = charge.id) "
        "WHERE id IN (SELECT charge_id FROM reply)"
    )
    op.create_table(
        "revisionreply",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.String(), nullable=False),
        sa.Column("prompt_hash", sa.String(), nullable=False),
        sa.Column("charge_id", sa.Integer(), nullable=True),
        *[sa.Column(name, sa.String(), nullable=False) for name in ("model", "text", "finish_reason")],
        *[sa.Column(name, sa.Integer(), nullable=False) for name in ("input_tokens", "output_tokens")],
        sa.Column("remembered", sa.String(), nullable=True),
        sa.Column("saved", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["charge_id"], ["charge.id"]),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"]),
        sa.ForeignKeyConstraint(["prompt_hash"], ["prompt.hash"]),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("round_id", "item_key", "prompt_hash"),
    )
    op.create_index("ix_revisionreply_round_id", "revisionreply", ["round_id"])
    op.create_index("ix_revisionreply_item_key", "revisionreply", ["item_key"])
    op.create_table(
        "revision",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.String(), nullable=False),
        sa.Column("way", sa.String(), nullable=False),
        sa.Column("expected", sa.JSON(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("kept", sa.Integer(), nullable=False),
        sa.Column("first_wrong", sa.Integer(), nullable=True),
        sa.Column("corrections", sa.Integer(), nullable=False),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("student_id", sa.Integer(), nullable=True),
        sa.Column("rationale_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"]),
        sa.ForeignKeyConstraint(["rationale_id"], ["rationale.id"]),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.ForeignKeyConstraint(["student_id"], ["rationale.id"]),
        sa.PrimaryKeyConstraint("round_id", "item_key"),
    )
    op.create_index("ix_revision_rationale_id", "revision", ["rationale_id"])


def downgrade() -> None:
    op.drop_table("revision")
    op.drop_table("revisionreply")
    for table, column in NAMES:
        op.drop_column(table, column)
