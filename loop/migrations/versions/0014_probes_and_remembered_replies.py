"""What endpoints support, and which replies were remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

REMEMBERED = ("reply", "judgement")
FEATURES = ("json_schema", "logprobs", "choices", "sampling", "seed", "batches")


def upgrade() -> None:
    op.create_table(
        "probe",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        *[sa.Column(name, sa.Boolean(), nullable=True) for name in FEATURES],
        sa.Column("seen", sa.JSON(), nullable=False),
        sa.Column("probed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_probe_endpoint", "probe", ["endpoint"])
    for table in REMEMBERED:
        op.add_column(table, sa.Column("remembered", sa.String(), nullable=True))
        op.add_column(table, sa.Column("saved", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    for table in REMEMBERED:
        op.drop_column(table, "saved")
        op.drop_column(table, "remembered")
    op.drop_table("probe")
