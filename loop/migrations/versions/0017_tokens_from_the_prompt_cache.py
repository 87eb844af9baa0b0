"""How many input tokens of a reply came from the endpoint's prompt cache."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = ("reply", "revisionreply", "trial", "judgement")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("cached_tokens", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "cached_tokens")
