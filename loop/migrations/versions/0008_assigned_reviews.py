"""Who a review is assigned to, and where it stands in the queue."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reviewtask", sa.Column("assignee", sa.String(), nullable=False, server_default=""))
    op.add_column("reviewtask", sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("reviewtask", sa.Column("place", sa.Float(), nullable=True))
    op.add_column("verdict", sa.Column("assignee", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("verdict", "assignee")
    for name in ("place", "assigned_at", "assignee"):
        op.drop_column("reviewtask", name)
