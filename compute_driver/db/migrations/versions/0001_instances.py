"""Instances, what was asked of them, what went wrong, and their agents.

A migration is a record of the past: it repeats lengths and types instead of importing them from the models, which
move on.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    op.create_table(
        "instances",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("display_name", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("vm_state", sa.String(64), nullable=False),
        sa.Column("task_state", sa.String(64), nullable=True),
        sa.Column("power_state", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Integer(), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("root_gb", sa.Integer(), nullable=False),
        sa.Column("image_ref", sa.String(255), nullable=False),
        sa.Column("instance_metadata", sa.JSON(), nullable=False),
        sa.Column("system_metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("launched_at", MOMENT, nullable=True),
        sa.Column("terminated_at", MOMENT, nullable=True),
        sa.Column("deleted", IDENTITY, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("uuid", name="uq_instances_uuid"),
        **TABLE_OPTIONS,
    )
    op.create_index("ix_instances_host_deleted", "instances", ["host", "deleted"])
    op.create_index("ix_instances_display_name_deleted", "instances", ["display_name", "deleted"])

    op.create_table(
        "instance_actions",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("instance_uuid", sa.String(36), nullable=True),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("step", sa.String(64), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("outcome", sa.String(64), nullable=True),
        sa.Column("code", sa.String(128), nullable=False),
        sa.Column("message", sa.String(1024), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_instance_actions"),
        **TABLE_OPTIONS,
    )
    op.create_index("ix_instance_actions_instance_uuid_id", "instance_actions", ["instance_uuid", "id"])
    op.create_index("ix_instance_actions_request_id", "instance_actions", ["request_id"])
    op.create_index("ix_instance_actions_host_finished_at", "instance_actions", ["host", "finished_at"])

    op.create_table(
        "instance_faults",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("instance_uuid", sa.String(36), nullable=False),
        sa.Column("code", sa.String(128), nullable=False),
        sa.Column("message", sa.String(1024), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instance_faults"),
        sa.ForeignKeyConstraint(["instance_uuid"], ["instances.uuid"], name="fk_instance_faults_instance_uuid"),
        **TABLE_OPTIONS,
    )
    op.create_index("ix_instance_faults_instance_uuid_id", "instance_faults", ["instance_uuid", "id"])

    op.create_table(
        "agents",
        sa.Column("instance_uuid", sa.String(36), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.Column("protocol", sa.String(64), nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("instance_uuid", name="pk_agents"),
        sa.ForeignKeyConstraint(["instance_uuid"], ["instances.uuid"], name="fk_agents_instance_uuid"),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    for table in ("agents", "instance_faults", "instance_actions", "instances"):
        op.drop_table(table)
