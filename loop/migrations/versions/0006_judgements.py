"""What the judge said of the steps."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "judgement",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rationale_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("prompt_hash", sa.String(), nullable=False),
        sa.Column("charge_id", sa.Integer(), nullable=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("finish_reason", sa.String(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.Enum("OK", "WRONG", "UNSUPPORTED", "REDUNDANT", name="stepverdict"), nullable=True),
        sa.Column("evidence", sa.String(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["charge_id"], ["charge.id"]),
        sa.ForeignKeyConstraint(["prompt_hash"], ["prompt.hash"]),
        sa.ForeignKeyConstraint(["rationale_id"], ["rationale.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rationale_id", "step"),
    )
    op.create_index("ix_judgement_rationale_id", "judgement", ["rationale_id"])


def downgrade() -> None:
    op.drop_table("judgement")
