"""SQLite: a ledger row cannot be replaced either. `INSERT OR REPLACE` deletes a row without its delete trigger."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a trigger that refuses a row whose place, request or hash is taken; PostgreSQL has no such statement."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        "CREATE TRIGGER ledger_no_replace BEFORE INSERT ON ledger WHEN EXISTS (SELECT 1 FROM ledger WHERE "
        "(model = NEW.model AND epoch = NEW.epoch) OR request_id = NEW.request_id OR hash = NEW.hash) "
        "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    )
