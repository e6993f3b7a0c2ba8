"""Drills of a rollback."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of what each drill showed."""
    op.create_table(
        "drills",
        sa.Column("drill_id", sa.String(100), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_index("drills_of_a_model", "drills", ["model", "at"])
