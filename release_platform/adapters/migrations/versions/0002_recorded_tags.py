"""What the registry must show of each version, removals, policies, and approvals that may be given again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the tags of a registration, removals and policies; an approval's time becomes part of its key."""
    op.add_column("registrations", sa.Column("tags", sa.JSON))
    op.create_table(
        "removals",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.String(20), primary_key=True),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
    )
    op.create_table(
        "policies",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("terms", sa.JSON, nullable=False),
    )
    op.rename_table("approvals", "approvals_0001")
    op.create_table(
        "approvals",
        sa.Column("request_id", sa.String(100), primary_key=True),
        sa.Column("actor", sa.String(200), primary_key=True),
        sa.Column("binding", sa.String(71), primary_key=True),
        sa.Column("approved_at", sa.String(40), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.execute(
        "INSERT INTO approvals (request_id, actor, binding, approved_at, reason) "
        "SELECT request_id, actor, binding, approved_at, reason FROM approvals_0001"
    )
    op.drop_table("approvals_0001")
