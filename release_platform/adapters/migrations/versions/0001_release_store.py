"""Heads, the append-only ledger, registrations, requests, approvals and the runs that MLflow keeps for Dagster."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_REFUSED = "the ledger is append-only"


def upgrade() -> None:
    """Creates everything, and the triggers that refuse any change of a ledger row."""
    op.create_table(
        "heads",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("projected_epoch", sa.Integer, nullable=False),
    )
    op.create_table(
        "ledger",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("move", sa.String(20), nullable=False),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("request_id", sa.String(100), nullable=False, unique=True),
        sa.Column("evidence", sa.String(71), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("previous_hash", sa.String(71), nullable=False),
        sa.Column("hash", sa.String(71), nullable=False, unique=True),
    )
    op.create_table(
        "registrations",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.String(20), primary_key=True),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("model_digest", sa.String(71), nullable=False),
        sa.Column("report_digest", sa.String(71), nullable=False),
        sa.Column("fingerprint", sa.String(71), nullable=False),
        sa.Column("gates", sa.JSON, nullable=False),
        sa.Column("baseline", sa.String(20)),
        sa.Column("mlflow_run_id", sa.String(64), nullable=False),
        sa.Column("dagster_run_id", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(71), nullable=False),
        sa.Column("registered_at", sa.String(40), nullable=False),
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(100), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False, index=True),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("requested_at", sa.String(40), nullable=False),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("outcome", sa.Text, nullable=False),
    )
    op.create_table(
        "approvals",
        sa.Column("request_id", sa.String(100), primary_key=True),
        sa.Column("actor", sa.String(200), primary_key=True),
        sa.Column("binding", sa.String(71), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("approved_at", sa.String(40), nullable=False),
    )
    op.create_table(
        "tracked_runs",
        sa.Column("dagster_run_id", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("mlflow_run_id", sa.String(64), nullable=False),
    )
    _make_append_only(op.get_bind().dialect.name)


def _make_append_only(dialect: str) -> None:
    if dialect == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_no_{what.lower()} BEFORE {what} ON ledger "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSED}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE ON ledger "
        "FOR EACH ROW EXECUTE FUNCTION ledger_append_only()"
    )
    op.execute(
        "CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON ledger "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_append_only()"
    )
