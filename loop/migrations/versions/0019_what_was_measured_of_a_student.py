"""What was measured of a student, and pool items that read like holdout items."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("steps", "probabilities"):
        op.add_column("prediction", sa.Column(column, sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "corruption",
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.String(), nullable=False),
        sa.Column("harm", sa.Enum("NUMBER", "WORD", "SHUFFLED", "OTHER", name="harm"), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"]),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"]),
        sa.PrimaryKeyConstraint("checkpoint_id", "item_key", "harm"),
    )
    op.create_table(
        "evaluation",
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("temperature", sa.Float(), nullable=True),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"]),
        sa.PrimaryKeyConstraint("checkpoint_id"),
    )
    op.create_table(
        "contamination",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("similarity", sa.Float(), nullable=False),
        sa.Column("pool", sa.Integer(), nullable=False),
        sa.Column("holdout", sa.Integer(), nullable=False),
        sa.Column("pairs", sa.JSON(), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )


def downgrade() -> None:
    op.drop_table("contamination")
    op.drop_table("evaluation")
    op.drop_table("corruption")
    for column in ("steps", "probabilities"):
        op.drop_column("prediction", column)
