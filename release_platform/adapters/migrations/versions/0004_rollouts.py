"""Rollouts, the windows of live traffic, the weight of a move, and the strategy of a request."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds both tables and both columns; a move of a rollout has a longer request id than a promotion."""
    op.add_column("ledger", sa.Column("weight", sa.Float))
    op.add_column("requests", sa.Column("strategy", sa.String(30)))
    if op.get_bind().dialect.name == "postgresql":  # SQLite holds no text to a length
        op.alter_column("ledger", "request_id", type_=sa.String(160))
    op.create_table(
        "rollouts",
        sa.Column("rollout_id", sa.String(100), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("begun_at", sa.String(40), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_index(
        "one_rollout_at_a_time",
        "rollouts",
        ["model"],
        unique=True,
        sqlite_where=sa.text("settled = 0"),
        postgresql_where=sa.text("NOT settled"),
    )
    op.create_index("rollouts_of_a_model", "rollouts", ["model", "begun_at"])
    op.create_table(
        "live_windows",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.String(20), primary_key=True),
        sa.Column("route", sa.String(20), primary_key=True),
        sa.Column("replica", sa.String(200), primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )
