"""What drift reports said of each day."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of reported days."""
    op.create_table(
        "drift_days",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.String(20), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("told", sa.Integer, nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
        sa.Column("lift", sa.JSON, nullable=False),
    )
