"""Rationales that the teacher goes on with from a corrected prefix."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UNNAMED = {"uq": "uq_%(table_name)s"}
"""What the batch calls the constraint that 0001 left without a name, so that it can be dropped on SQLite."""


def upgrade() -> None:
    if _is_postgresql():
        op.execute("ALTER TYPE verdictkind ADD VALUE IF NOT EXISTS 'CONTINUE'")
    else:
        _change_kinds("ACCEPT", "EDIT", "REJECT", "CONTINUE")
    with op.batch_alter_table("reply", schema=None, naming_convention=UNNAMED) as batch_op:
        batch_op.add_column(sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
        batch_op.drop_constraint(_old_name(), type_="unique")
        batch_op.create_unique_constraint("uq_reply_version", ["round_id", "item_key", "sample", "version"])


def downgrade() -> None:
    with op.batch_alter_table("reply", schema=None) as batch_op:
        batch_op.drop_constraint("uq_reply_version", type_="unique")
        batch_op.create_unique_constraint(_old_name(), ["round_id", "item_key", "sample"])
        batch_op.drop_column("version")
    if not _is_postgresql():  # which takes no value out of an enum
        _change_kinds("ACCEPT", "EDIT", "REJECT")


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _old_name() -> str:
    """What the constraint of 0001 is called: by the server, or by the batch."""
    return "reply_round_id_item_key_sample_key" if _is_postgresql() else UNNAMED["uq"] % {"table_name": "reply"}


def _change_kinds(*kinds: str) -> None:
    """What a verdict may say, where the database keeps it as text."""
    with op.batch_alter_table("verdict", schema=None) as batch_op:
        batch_op.alter_column("kind", type_=sa.Enum(*kinds, name="verdictkind"), existing_nullable=True)
