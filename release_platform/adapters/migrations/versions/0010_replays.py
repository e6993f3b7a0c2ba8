"""Replays of candidates over recorded requests."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of what each replay showed."""
    op.create_table(
        "replays",
        sa.Column("replay_id", sa.String(40), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_index("replays_of_a_version", "replays", ["model", "version", "at"])
