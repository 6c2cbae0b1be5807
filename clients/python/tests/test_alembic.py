"""Tests of op.enable_audit() and op.disable_audit(): executed, reversed, rendered, and as SQL."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import api
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import ops
from sqlalchemy import create_engine

from lead_audit.alembic import DisableAuditOp, EnableAuditOp, include_name

from .cluster import Database
from .drivers import SYNC

ENV = """
from alembic import context
from sqlalchemy import create_engine
import lead_audit.alembic
from lead_audit.alembic import include_name
if context.is_offline_mode():
    context.configure(url=context.config.get_main_option("sqlalchemy.url"), literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
        metadata = context.config.attributes.get("metadata")
        context.configure(connection=connection, target_metadata=metadata,
                          include_schemas=True, include_name=include_name)
        with context.begin_transaction():
            context.run_migrations()
"""
MIGRATION = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "0001", None
def upgrade():
    id_column = sa.Column("id", sa.Integer, primary_key=True)
    op.create_table("accounts", id_column, sa.Column("Gone", sa.Boolean))
    op.enable_audit("accounts", schema="public", soft_delete_column="Gone")
def downgrade():
    op.disable_audit("accounts", schema="public")
    op.drop_table("accounts")
"""


@pytest.fixture
def config(tmp_path: Path, database: Database) -> Config:
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENV)
    (tmp_path / "script.py.mako").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n${imports}\n"
        "revision = ${repr(up_revision)}\ndown_revision = ${repr(down_revision)}\n"
        "def upgrade():\n    ${upgrades}\ndef downgrade():\n    ${downgrades}\n"
    )
    (tmp_path / "versions" / "0001.py").write_text(MIGRATION)
    made = Config(output_buffer=io.StringIO(), stdout=io.StringIO())
    made.set_main_option("script_location", str(tmp_path))
    made.set_main_option(
        "sqlalchemy.url",
        Database(database.socket, database.name, "postgres").url(SYNC[-1]).replace("%", "%%"),
    )
    return made


def watched(database: Database) -> list[Any]:
    return [
        row[0]
        for row in database.query(
            "SELECT relation::regclass::text FROM lead_audit.watched WHERE row_trigger_on"
            " ORDER BY 1"
        )
    ]


def test_upgrade_and_downgrade(config: Config, database: Database) -> None:
    command.upgrade(config, "head")
    assert watched(database) == ["accounts", "leads"]
    database.query('INSERT INTO accounts VALUES (1, false); UPDATE accounts SET "Gone" = true')
    assert database.query("SELECT soft_delete FROM lead_audit.log ORDER BY id")[-1] == ("deleted",)
    command.downgrade(config, "base")
    assert watched(database) == ["leads"]
    operations = [
        entry[0] for entry in database.query("SELECT operation FROM lead_audit.log ORDER BY id")
    ]
    assert operations[:2] == ["INSERT", "UPDATE"] and "DDL" in operations
    command.upgrade(config, "head")
    assert watched(database) == ["accounts", "leads"]


def test_offline(config: Config, database: Database) -> None:
    command.upgrade(config, "head", sql=True)
    script = config.output_buffer.getvalue()  # type: ignore[attr-defined]
    assert "lead_audit.enable(" in script and "'Gone'" in script
    database.query(script)
    assert watched(database) == ["accounts", "leads"]


def test_autogenerate_leaves_the_extension_alone(config: Config, database: Database) -> None:
    from sqlalchemy import Column, Integer, MetaData, Table

    config.attributes["metadata"] = MetaData()
    command.upgrade(config, "head")
    made: Any = command.revision(config, autogenerate=True, rev_id="0002")
    text = Path(made.path).read_text()
    assert "drop_table('accounts')" in text and "lead_audit" not in text
    Table("accounts", config.attributes["metadata"], Column("id", Integer, primary_key=True))
    assert include_name("public", "schema", {}) and not include_name("lead_audit", "schema", {})


def test_rendering_and_reversing(database: Database) -> None:
    engine = create_engine(database.url(SYNC[0]))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"alembic_module_prefix": "op.", "target_metadata": None}
        )
        rendering = api.AutogenContext(context)
        enable = EnableAuditOp("my leads", "crm", soft_delete_column="gone", baseline=True)
        text = api.render_python_code(
            ops.UpgradeOps([enable, enable.reverse()]), migration_context=context
        )
        assert (
            "op.enable_audit('my leads', schema='crm', soft_delete_column='gone', baseline=True)"
            in text
        )
        assert "op.disable_audit('my leads', schema='crm')" in text
        again = enable.reverse().reverse()
        assert (again.table_name, again.schema, again.soft_delete_column, again.baseline) == (
            "my leads",
            "crm",
            "gone",
            True,
        )
        assert (
            isinstance(DisableAuditOp("leads").reverse(), EnableAuditOp) and rendering is not None
        )
    engine.dispose()
