"""Reviews without doubts, recalls of what a reviewer said, and what was exported."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reviewtask", sa.Column("unflagged", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "withdrawal",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_withdrawal_run", "withdrawal", ["run"])
    op.create_table(
        "withdrawnverdict",
        sa.Column("board", sa.String(), primary_key=True),
        sa.Column("project", sa.String(), primary_key=True),
        sa.Column("annotation", sa.String(), primary_key=True),
        sa.Column("updated_at", sa.String(), primary_key=True),
        sa.Column("withdrawal_id", sa.Integer(), sa.ForeignKey("withdrawal.id"), nullable=False),
        sa.ForeignKeyConstraint(
            ["board", "project", "annotation", "updated_at"],
            ["verdict.board", "verdict.project", "verdict.annotation", "verdict.updated_at"],
            name="fk_withdrawnverdict_verdict",
        ),
    )
    op.create_index("ix_withdrawnverdict_withdrawal_id", "withdrawnverdict", ["withdrawal_id"])
    op.create_table(
        "reopened",
        sa.Column("decision_id", sa.Integer(), sa.ForeignKey("decision.id"), primary_key=True),
        sa.Column("withdrawal_id", sa.Integer(), sa.ForeignKey("withdrawal.id"), nullable=False),
    )
    op.create_index("ix_reopened_withdrawal_id", "reopened", ["withdrawal_id"])
    op.create_table(
        "export",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("last_decision", sa.Integer(), nullable=False),
        sa.Column("exported_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_export_run", "export", ["run"])


def downgrade() -> None:
    for table in ("export", "reopened", "withdrawnverdict", "withdrawal"):
        op.drop_table(table)
    op.drop_column("reviewtask", "unflagged")
