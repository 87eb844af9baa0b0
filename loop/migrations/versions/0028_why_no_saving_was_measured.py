"""Why a round did not measure what selection saves."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("round", sa.Column("unmeasured", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("round", "unmeasured")
