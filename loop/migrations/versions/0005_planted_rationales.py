"""Planted rationales, and the constraints that keep them from ever being decided about."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("rationale", schema=None) as batch_op:
        batch_op.add_column(sa.Column("planted", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("planted_from", sa.Integer(), nullable=True))
        batch_op.create_unique_constraint("uq_rationale_planted", ["id", "planted"])
        batch_op.create_check_constraint("ck_rationale_planted_from", "(planted = '') = (planted_from IS NULL)")
        batch_op.create_foreign_key("fk_rationale_planted_from", "rationale", ["planted_from"], ["id"])
        batch_op.create_foreign_key(
            "fk_rationale_supersedes_planted", "rationale", ["supersedes", "planted"], ["id", "planted"]
        )
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.add_column(sa.Column("planted", sa.String(), nullable=False, server_default=""))
        batch_op.create_check_constraint("ck_decision_not_planted", "planted = ''")
        batch_op.create_foreign_key(
            "fk_decision_rationale_planted", "rationale", ["rationale_id", "planted"], ["id", "planted"]
        )


def downgrade() -> None:
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.drop_constraint("fk_decision_rationale_planted", type_="foreignkey")
        batch_op.drop_constraint("ck_decision_not_planted", type_="check")
        batch_op.drop_column("planted")
    with op.batch_alter_table("rationale", schema=None) as batch_op:
        batch_op.drop_constraint("fk_rationale_supersedes_planted", type_="foreignkey")
        batch_op.drop_constraint("fk_rationale_planted_from", type_="foreignkey")
        batch_op.drop_constraint("ck_rationale_planted_from", type_="check")
        batch_op.drop_constraint("uq_rationale_planted", type_="unique")
        batch_op.drop_column("planted_from")
        batch_op.drop_column("planted")
