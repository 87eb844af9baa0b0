"""When a checkpoint went home, and when its weights were removed."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checkpoint", sa.Column("exported_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("checkpoint", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("checkpoint", "removed_at")
    op.drop_column("checkpoint", "exported_at")
