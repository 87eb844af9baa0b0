"""When projects were listed whole, and which annotations were found deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("verdict", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "listing",
        sa.Column("board", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("board", "project"),
    )


def downgrade() -> None:
    op.drop_table("listing")
    op.drop_column("verdict", "deleted_at")
