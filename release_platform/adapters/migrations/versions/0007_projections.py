"""Projections that are under way."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of projections that began and did not end."""
    op.create_table(
        "projections",
        sa.Column("projection_id", sa.String(40), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
    )
