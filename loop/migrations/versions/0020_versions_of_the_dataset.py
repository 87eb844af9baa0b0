"""Versions of the dataset, names for them, and which one a checkpoint was trained on and an export was written from."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataversion",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("last_decision", sa.Integer(), nullable=False),
        sa.Column("gold", sa.Integer(), nullable=False),
        sa.Column("silver", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.PrimaryKeyConstraint("run", "hash"),
    )
    op.create_table(
        "versionname",
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("last_decision", sa.Integer(), nullable=False),
        sa.Column("named_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run", "hash"], ["dataversion.run", "dataversion.hash"], name="fk_versionname_version"
        ),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"]),
        sa.ForeignKeyConstraint(["config_hash"], ["configrow.hash"]),
        sa.PrimaryKeyConstraint("run", "name"),
    )
    op.add_column("checkpoint", sa.Column("data_version", sa.String(), nullable=False, server_default=""))
    op.add_column("export", sa.Column("data_version", sa.String(), nullable=False, server_default=""))
    op.add_column("export", sa.Column("filters", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("export", "filters")
    op.drop_column("export", "data_version")
    op.drop_column("checkpoint", "data_version")
    op.drop_table("versionname")
    op.drop_table("dataversion")
