"""Of which minutes of live traffic all was handed in."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of what each server and each of its processes owes of a minute."""
    op.create_table(
        "live_minutes",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("url", sa.String(500), primary_key=True),
        sa.Column("replica", sa.String(200), primary_key=True),
        sa.Column("told", sa.Boolean, nullable=False),
    )
