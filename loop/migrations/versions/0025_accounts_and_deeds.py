"""Who may use the pages, who is logged in, and who did what; no deed is changed or deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

KEPT = "deeds are only added"
SQLITE = (
    f"CREATE TRIGGER deed_unchanged BEFORE UPDATE ON deed BEGIN SELECT RAISE(ABORT, '{KEPT}'); END",
    f"CREATE TRIGGER deed_undeleted BEFORE DELETE ON deed BEGIN SELECT RAISE(ABORT, '{KEPT}'); END",
)
POSTGRESQL = (
    f"CREATE FUNCTION keep_deeds() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{KEPT}'; END $$",
    "CREATE TRIGGER deed_kept BEFORE UPDATE OR DELETE ON deed FOR EACH ROW EXECUTE FUNCTION keep_deeds()",
)


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.Enum("VIEWER", "LEAD", "OWNER", name="role"), nullable=False),
        sa.Column("password", sa.String(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "visit",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["account.name"]),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_visit_name", "visit", ["name"])
    op.create_table(
        "deed",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("way", sa.String(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("about", sa.String(), nullable=False),
        sa.Column("failed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("deed")
    op.drop_table("visit")
    op.drop_table("account")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION keep_deeds")
        op.execute("DROP TYPE role")
