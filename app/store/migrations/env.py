"""What alembic runs to apply migrations: `app.store.migrate` hands it a connection in a transaction."""

from __future__ import annotations

from alembic import context

from app.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
    transaction_per_migration=False,
)

with context.begin_transaction():
    context.run_migrations()
