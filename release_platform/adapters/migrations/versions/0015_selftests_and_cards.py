"""The proofs that a model's gates stop spoilt models, signed; and what the kept model cards say."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the tables of what each selftest found, and of the state that each card was written in."""
    op.create_table(
        "selftests",
        sa.Column("selftest_id", sa.String(40), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(100), nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_index("selftests_of_a_model", "selftests", ["model", "at"])
    op.create_table(
        "cards",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.String(20), primary_key=True),
        sa.Column("state", sa.String(100), nullable=False),
    )
