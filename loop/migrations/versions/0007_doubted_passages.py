"""Which characters of a step are doubted."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("flag", sa.Column("start", sa.Integer(), nullable=True))
    op.add_column("flag", sa.Column("end", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("flag", "end")
    op.drop_column("flag", "start")
