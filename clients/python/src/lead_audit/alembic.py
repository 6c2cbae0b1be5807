"""Watches tables in Alembic migrations: `op.enable_audit()` and its reverse, `op.disable_audit()`.

    import lead_audit.alembic  # in env.py: registers the operations, also for autogenerate

    def upgrade():
        op.enable_audit("leads")

    def downgrade():
        op.disable_audit("leads")

The role that runs the migration needs EXECUTE on lead_audit.enable() and lead_audit.disable(). An
entry records each call of disable(), and each call of enable() that resumes the watching or changes
an option.
"""

from __future__ import annotations

from typing import Any, Optional

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations

from .watching import disable_statement, enable_statement

__all__ = ["DisableAuditOp", "EnableAuditOp", "include_name"]


def include_name(name: Optional[str], type_: str, parent_names: Any) -> bool:
    """Hides the schema lead_audit from autogenerate.

    In env.py, pass this function as `context.configure(include_name=…)`.
    """
    return not (type_ == "schema" and name == "lead_audit")


@Operations.register_operation("enable_audit")
class EnableAuditOp(MigrateOperation):
    """Starts watching a table."""

    def __init__(
        self,
        table_name: str,
        schema: Optional[str] = None,
        soft_delete_column: Optional[str] = None,
        baseline: bool = False,
    ) -> None:
        self.table_name = table_name
        self.schema = schema
        self.soft_delete_column = soft_delete_column
        self.baseline = baseline

    @classmethod
    def enable_audit(
        cls,
        operations: Operations,
        table_name: str,
        *,
        schema: Optional[str] = None,
        soft_delete_column: Optional[str] = None,
        baseline: bool = False,
    ) -> Any:
        """Starts watching a table.

        soft_delete_column: the default is is_deleted, if the table has a boolean column with the
        name is_deleted. baseline: whether enable() first writes a SNAPSHOT entry for each existing
        row.
        """
        return operations.invoke(cls(table_name, schema, soft_delete_column, baseline))

    def reverse(self) -> DisableAuditOp:
        return DisableAuditOp(self.table_name, self.schema, self.soft_delete_column, self.baseline)

    def to_diff_tuple(self) -> tuple[str, str, Optional[str]]:
        return ("enable_audit", self.table_name, self.schema)


@Operations.register_operation("disable_audit")
class DisableAuditOp(MigrateOperation):
    """Stops watching a table.

    The entries of the table stay. The operation has the arguments of EnableAuditOp, because
    reverse() makes an EnableAuditOp from them.
    """

    def __init__(
        self,
        table_name: str,
        schema: Optional[str] = None,
        soft_delete_column: Optional[str] = None,
        baseline: bool = False,
    ) -> None:
        self.table_name = table_name
        self.schema = schema
        self.soft_delete_column = soft_delete_column
        self.baseline = baseline

    @classmethod
    def disable_audit(
        cls, operations: Operations, table_name: str, *, schema: Optional[str] = None
    ) -> Any:
        """Stops watching a table. The entries of the table stay."""
        return operations.invoke(cls(table_name, schema))

    def reverse(self) -> EnableAuditOp:
        return EnableAuditOp(self.table_name, self.schema, self.soft_delete_column, self.baseline)

    def to_diff_tuple(self) -> tuple[str, str, Optional[str]]:
        return ("disable_audit", self.table_name, self.schema)


@Operations.implementation_for(EnableAuditOp)
def _enable(operations: Operations, operation: EnableAuditOp) -> None:
    operations.execute(
        enable_statement(
            operation.schema, operation.table_name, operation.soft_delete_column, operation.baseline
        )
    )


@Operations.implementation_for(DisableAuditOp)
def _disable(operations: Operations, operation: DisableAuditOp) -> None:
    operations.execute(disable_statement(operation.schema, operation.table_name))


@renderers.dispatch_for(EnableAuditOp)
def _render_enable(autogenerate: Any, operation: EnableAuditOp) -> str:
    arguments = [repr(operation.table_name)]
    if operation.schema is not None:
        arguments.append(f"schema={operation.schema!r}")
    if operation.soft_delete_column is not None:
        arguments.append(f"soft_delete_column={operation.soft_delete_column!r}")
    if operation.baseline:
        arguments.append("baseline=True")
    return _render(autogenerate, "enable_audit", arguments)


@renderers.dispatch_for(DisableAuditOp)
def _render_disable(autogenerate: Any, operation: DisableAuditOp) -> str:
    arguments = [repr(operation.table_name)]
    if operation.schema is not None:
        arguments.append(f"schema={operation.schema!r}")
    return _render(autogenerate, "disable_audit", arguments)


def _render(autogenerate: Any, name: str, arguments: list[str]) -> str:
    autogenerate.imports.add("import lead_audit.alembic  # noqa: F401 (registers its operations)")
    prefix = autogenerate.opts.get("alembic_module_prefix") or ""
    return f"{prefix}{name}({', '.join(arguments)})"
