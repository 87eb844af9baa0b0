"""Whether shadow students were compared for equally many items, as some cost nothing, or for the same dollars."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("shadow", sa.Column("by_count", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("shadow", "by_count")
