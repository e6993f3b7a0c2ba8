"""What a rollout was aborted on, and a version taken back on."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of what ledger rows name as their evidence."""
    op.create_table(
        "assessments",
        sa.Column("digest", sa.String(100), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
