"""Pools of a million: when each item came, what of them was looked at, and how unsure a student was of it."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("item", sa.Column("arrival", sa.Integer(), nullable=False, server_default="0"))
    op.drop_index("ix_item_split", table_name="item")
    op.create_index("ix_item_split_arrival", "item", ["split", "arrival"])
    op.add_column("contamination", sa.Column("through", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "doubt",
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"]),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"]),
        sa.PrimaryKeyConstraint("checkpoint_id", "item_key"),
    )


def downgrade() -> None:
    op.drop_table("doubt")
    op.drop_column("contamination", "through")
    op.drop_index("ix_item_split_arrival", table_name="item")
    op.create_index("ix_item_split", "item", ["split"])
    op.drop_column("item", "arrival")
