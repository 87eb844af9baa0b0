"""Runs the revisions on the connection that the store hands over."""

from alembic import context

from loop.records import Item

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Item.metadata,
    render_as_batch=True,
    compare_type=False,
)
with context.begin_transaction():
    context.run_migrations()
