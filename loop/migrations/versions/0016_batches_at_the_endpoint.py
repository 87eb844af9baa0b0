"""Batches that were handed to the endpoint, and their lines."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batchjob",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("remote_id", sa.String(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_batchjob_round_id", "batchjob", ["round_id"])
    op.create_table(
        "batchline",
        sa.Column("charge_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.String(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("prompt_hash", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["charge_id"], ["charge.id"]),
        sa.ForeignKeyConstraint(["job_id"], ["batchjob.id"]),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"]),
        sa.ForeignKeyConstraint(["prompt_hash"], ["prompt.hash"]),
        sa.PrimaryKeyConstraint("charge_id"),
    )
    op.create_index("ix_batchline_job_id", "batchline", ["job_id"])


def downgrade() -> None:
    op.drop_table("batchline")
    op.drop_table("batchjob")
