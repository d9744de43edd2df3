"""What a service needs that shares its host with others, and goes on after a crash: leases, orders, devices, moves."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
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
    _add_columns()
    op.create_table(
        "hosts",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_hosts"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "hypervisor_sessions",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("session", sa.String(255), nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hypervisor_sessions"),
        **TABLE_OPTIONS,
    )
    op.create_index("ix_hypervisor_sessions_host_epoch", "hypervisor_sessions", ["host", "epoch"])
    op.create_table(
        "services",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("topic", sa.String(255), nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.Column("stopped_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_services"),
        **TABLE_OPTIONS,
    )
    op.create_index("ix_services_last_seen_at", "services", ["last_seen_at"])
    _make_tables_of_instances()


def _add_columns() -> None:
    with op.batch_alter_table("instances") as instances:
        instances.add_column(sa.Column("node", sa.String(255), nullable=False, server_default=""))
        instances.add_column(sa.Column("task_action", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("instance_actions") as actions:
        actions.add_column(sa.Column("order_id", sa.String(64), nullable=True))
        actions.add_column(sa.Column("epoch", sa.BigInteger(), nullable=False, server_default="0"))
        actions.create_unique_constraint("uq_instance_actions_order_id", ["order_id"])
    op.create_index("ix_instances_task_action", "instances", ["task_action"])
    # The defaults were for the rows that are there; a new row that lacks a value is a mistake.
    with op.batch_alter_table("instances") as instances:
        instances.alter_column("node", existing_type=sa.String(255), existing_nullable=False, server_default=None)
    with op.batch_alter_table("instance_actions") as actions:
        actions.alter_column("epoch", existing_type=sa.BigInteger(), existing_nullable=False, server_default=None)


def _make_tables_of_instances() -> None:
    sizes = [f"{age}_{what}" for age in ("old", "new") for what in ("memory_mb", "vcpus", "root_gb")]
    op.create_table(
        "migrations",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("instance_uuid", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("source_node", sa.String(255), nullable=False),
        sa.Column("dest_node", sa.String(255), nullable=False),
        *(sa.Column(size, sa.Integer(), nullable=False) for size in sizes),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_migrations"),
        sa.ForeignKeyConstraint(["instance_uuid"], ["instances.uuid"], name="fk_migrations_instance_uuid"),
        **TABLE_OPTIONS,
    )
    op.create_index("ix_migrations_instance_uuid_id", "migrations", ["instance_uuid", "id"])
    op.create_table(
        "block_device_mappings",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("instance_uuid", sa.String(36), nullable=False),
        sa.Column("volume_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("connection", sa.JSON(), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("boot_index", sa.Integer(), nullable=True),
        sa.Column("read_only", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_block_device_mappings"),
        sa.ForeignKeyConstraint(["instance_uuid"], ["instances.uuid"], name="fk_block_device_mappings_instance_uuid"),
        sa.UniqueConstraint("instance_uuid", "volume_id", name="uq_block_device_mappings_instance_uuid_volume_id"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "virtual_interfaces",
        sa.Column("id", IDENTITY, nullable=False),
        sa.Column("instance_uuid", sa.String(36), nullable=False),
        sa.Column("interface_id", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("description", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_virtual_interfaces"),
        sa.ForeignKeyConstraint(["instance_uuid"], ["instances.uuid"], name="fk_virtual_interfaces_instance_uuid"),
        sa.UniqueConstraint("instance_uuid", "interface_id", name="uq_virtual_interfaces_instance_uuid_interface_id"),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    new = ("virtual_interfaces", "block_device_mappings", "migrations", "services", "hypervisor_sessions", "hosts")
    for table in new:
        op.drop_table(table)
    with op.batch_alter_table("instance_actions") as actions:
        actions.drop_constraint("uq_instance_actions_order_id", type_="unique")
        actions.drop_column("epoch")
        actions.drop_column("order_id")
    op.drop_index("ix_instances_task_action", "instances")
    with op.batch_alter_table("instances") as instances:
        instances.drop_column("task_action")
        instances.drop_column("node")
