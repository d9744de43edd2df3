"""Run by Alembic for every command: works on the connection that compute_driver.db.migrate has opened and locked."""

from alembic import context

from compute_driver.db.models import Base

# Batches, because SQLite alters a table by copying it.
context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
