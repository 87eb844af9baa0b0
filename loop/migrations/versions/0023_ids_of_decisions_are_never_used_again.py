"""On SQLite, too, no decision gets the id of one that was forgotten: versions and exports are known by such ids."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("decision", recreate="always", table_kwargs={"sqlite_autoincrement": True}):
            pass


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table("decision", recreate="always", table_kwargs={"sqlite_autoincrement": False}):
            pass
