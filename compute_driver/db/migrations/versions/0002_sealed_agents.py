"""What the sealed protocol needs to remember of an agent: its identity, its next key, its clock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("agents") as agents:
        agents.add_column(sa.Column("identity", sa.String(64), nullable=True))
        agents.add_column(sa.Column("key_id", sa.String(64), nullable=True))
        agents.add_column(sa.Column("key_public", sa.String(64), nullable=True))
        agents.add_column(sa.Column("clock_offset", sa.Integer(), nullable=False, server_default="0"))
        agents.add_column(sa.Column("guest", sa.String(64), nullable=False, server_default=""))
    with op.batch_alter_table("agents") as agents:
        agents.alter_column("clock_offset", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
        agents.alter_column("guest", existing_type=sa.String(64), existing_nullable=False, server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("agents") as agents:
        for name in ("guest", "clock_offset", "key_public", "key_id", "identity"):
            agents.drop_column(name)
