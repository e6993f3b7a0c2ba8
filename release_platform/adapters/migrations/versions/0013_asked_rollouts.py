"""What a promotion request says of its own rollout."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; earlier requests say nothing but a strategy."""
    op.add_column("requests", sa.Column("asked", sa.JSON))
