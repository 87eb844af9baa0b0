"""Which teacher was paid, which wrote a rationale, and where its confidence is from."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

NAMES = (("reply", "teacher"), ("rationale", "teacher"), ("rationale", "confidence_by"), ("charge", "model"))


def upgrade() -> None:
    for table, column in NAMES:
        op.add_column(table, sa.Column(column, sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE reply SET teacher = model")
    for column, source in (("teacher", "teacher"), ("confidence_by", "confidence_by")):
        value = f"(SELECT reply.{source} FROM reply WHERE reply.id = rationale.reply_id)"
        op.execute(f"UPDATE rationale SET {column} = {value} WHERE reply_id IS NOT NULL")
    op.execute(
        "UPDATE charge SET model = (SELECT reply.teacher FROM reply WHERE reply.charge_id = charge.id) "
        "WHERE id IN (SELECT charge_id FROM reply)"
    )


def downgrade() -> None:
    for table, column in NAMES:
        op.drop_column(table, column)
