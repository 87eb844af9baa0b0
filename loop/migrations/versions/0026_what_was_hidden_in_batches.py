"""What placeholders in the requests of a batch stand for: the reply may come after the process is gone."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batchline", sa.Column("hidden", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("batchline", "hidden")
