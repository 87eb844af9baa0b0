"""Sets of demonstrations with their trials, and how far the teacher's confidence is believed."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reply", sa.Column("confidence", sa.Float(), nullable=True))
    op.add_column("reply", sa.Column("confidence_by", sa.String(), nullable=False, server_default=""))
    op.add_column("rationale", sa.Column("calibrated", sa.Float(), nullable=True))
    op.add_column("rationale", sa.Column("other", sa.String(), nullable=True))
    op.create_table(
        "demonstrationset",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("dev_items", sa.Integer(), nullable=False),
        sa.Column("dev_right", sa.Integer(), nullable=False),
        sa.Column("dev_before", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("round_id"),
    )
    op.create_index("ix_demonstrationset_run", "demonstrationset", ["run"])
    op.create_table(
        "trial",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Enum("EXPLAIN", "RECOVER", "DEV", name="trialkind"), nullable=False),
        sa.Column("item_key", sa.String(), nullable=False),
        sa.Column("prompt_hash", sa.String(), nullable=False),
        sa.Column("charge_id", sa.Integer(), nullable=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("finish_reason", sa.String(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("answer", sa.String(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["charge_id"], ["charge.id"]),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"]),
        sa.ForeignKeyConstraint(["prompt_hash"], ["prompt.hash"]),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run", "kind", "item_key", "prompt_hash"),
    )
    op.create_index("ix_trial_run", "trial", ["run"])
    op.create_index("ix_trial_item_key", "trial", ["item_key"])
    op.create_table(
        "confidencefit",
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("slope", sa.Float(), nullable=False),
        sa.Column("intercept", sa.Float(), nullable=False),
        sa.Column("reviewed", sa.Integer(), nullable=False),
        sa.Column("ece", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("round_id", "source"),
    )


def downgrade() -> None:
    for table in ("confidencefit", "trial", "demonstrationset"):
        op.drop_table(table)
    sa.Enum(name="trialkind").drop(op.get_bind(), checkfirst=True)
    op.drop_column("rationale", "other")
    op.drop_column("rationale", "calibrated")
    op.drop_column("reply", "confidence_by")
    op.drop_column("reply", "confidence")
