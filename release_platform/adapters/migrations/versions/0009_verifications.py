"""What verifications of live servers showed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of verifications."""
    op.create_table(
        "verifications",
        sa.Column("verification_id", sa.String(80), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_index("verifications_by_time", "verifications", ["model", "at"])
