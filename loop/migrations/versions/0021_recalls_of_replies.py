"""Recalls of what a model replied, of a prompt, and of what was decided since a moment."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("withdrawal", schema=None) as batch_op:
        batch_op.add_column(sa.Column("teacher_model", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("prompt_hash", sa.String(), nullable=False, server_default=""))
        batch_op.alter_column("since", existing_type=sa.DateTime(timezone=True), nullable=True)


def downgrade() -> None:
    with op.batch_alter_table("withdrawal", schema=None) as batch_op:
        batch_op.alter_column("since", existing_type=sa.DateTime(timezone=True), nullable=False)
        batch_op.drop_column("prompt_hash")
        batch_op.drop_column("teacher_model")
