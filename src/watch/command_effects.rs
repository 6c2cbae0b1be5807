//! Derives the effects of a DDL command from its parse tree, for the DDL guard.

use super::catalog::is_audit_trigger_name;
use crate::pg::{owns_relation, relation_named};
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// Those effects of a DDL command that cannot be seen in the catalog after the command has ended.
#[derive(Clone, Copy, Default)]
pub struct Effects {
    /// Whether the command created a partition or child table.
    pub made: bool,
    /// Whether an existing table became a partition or child table.
    pub joined: bool,
    /// Whether a partition or child table became an independent table.
    pub parted: bool,
    /// Whether a part of the command disabled triggers. The field is true even if a later part of
    /// the same command enabled these triggers.
    pub disabled: bool,
    /// Whether the command changes values in a table, now or later, without firing row triggers.
    /// Examples are a new type or expression of a column, a new name of an enum label, SET
    /// UNLOGGED, and new options of a foreign server.
    pub rewritten: bool,
    /// Whether the command can have rewritten a table. A rewrite copies the rows to a new file.
    pub may_rewrite: bool,
}

/// Returns the effects of a command, or `None` if the DDL guard can ignore the command. The DDL
/// guard ignores CREATE SCHEMA without elements. The DDL guard also ignores CREATE TABLE of an
/// independent table, because sessions create temporary tables often.
///
/// # Safety
/// `statement` must be null or point to a statement.
pub unsafe fn effects(statement: *mut pg_sys::Node) -> Option<Effects> {
    // SAFETY: `statement` is null or a statement (see # Safety), and the tag of a statement tells
    // its type.
    unsafe {
        if statement.is_null() {
            return Some(Effects { made: true, joined: true, parted: true, ..Effects::default() });
        }
        match (*statement).type_ {
            // The node of CREATE FOREIGN TABLE begins with a `CreateStmt` node.
            pg_sys::NodeTag::T_CreateStmt | pg_sys::NodeTag::T_CreateForeignTableStmt => {
                let create = statement.cast::<pg_sys::CreateStmt>();
                // `inhRelations` contains the parents of a child table, and also the parent of a
                // partition.
                (!(*create).inhRelations.is_null())
                    .then(|| Effects { made: true, ..Effects::default() })
            }
            pg_sys::NodeTag::T_AlterTableStmt => {
                use pg_sys::AlterTableType as Kind;
                let mut effects = Effects::default();
                for command in alter_table_commands(statement).iter_ptr() {
                    effects.may_rewrite |= may_rewrite((*command).subtype);
                    match (*command).subtype {
                        Kind::AT_AttachPartition | Kind::AT_AddInherit => effects.joined = true,
                        Kind::AT_DetachPartition
                        | Kind::AT_DetachPartitionFinalize
                        | Kind::AT_DropInherit => effects.parted = true,
                        Kind::AT_DisableTrigAll | Kind::AT_DisableTrigUser => {
                            effects.disabled = true
                        }
                        Kind::AT_DisableTrig | Kind::AT_EnableReplicaTrig => {
                            let name = (*command).name;
                            effects.disabled |=
                                !name.is_null() && is_audit_trigger_name(CStr::from_ptr(name));
                        }
                        // A crash empties an unlogged table. SET LOGGED and SET UNLOGGED change
                        // whether a later crash can remove the rows.
                        Kind::AT_AlterColumnType | Kind::AT_SetUnLogged | Kind::AT_SetLogged => {
                            effects.rewritten = true
                        }
                        Kind::AT_GenericOptions | Kind::AT_AlterColumnGenericOptions => {
                            effects.rewritten = true
                        }
                        // ALTER COLUMN … SET EXPRESSION exists since PostgreSQL 17.
                        #[cfg(any(feature = "pg17", feature = "pg18"))]
                        Kind::AT_SetExpression => effects.rewritten = true,
                        _ => {}
                    }
                }
                Some(effects)
            }
            // PostgreSQL fires no separate event triggers for the tables that CREATE SCHEMA
            // creates. A CREATE SCHEMA with elements therefore counts as `made`, as if it had
            // created a child table.
            pg_sys::NodeTag::T_CreateSchemaStmt => {
                let elements = (*statement.cast::<pg_sys::CreateSchemaStmt>()).schemaElts;
                (!elements.is_null()).then(|| Effects { made: true, ..Effects::default() })
            }
            pg_sys::NodeTag::T_ImportForeignSchemaStmt => {
                Some(Effects { made: true, ..Effects::default() })
            }
            pg_sys::NodeTag::T_AlterEnumStmt => {
                let is_renamed = !(*statement.cast::<pg_sys::AlterEnumStmt>()).oldVal.is_null();
                Some(Effects { rewritten: is_renamed, ..Effects::default() })
            }
            // The rows of a foreign table depend on its server, and on the remote role of the user
            // mapping.
            pg_sys::NodeTag::T_AlterForeignServerStmt
            | pg_sys::NodeTag::T_AlterFdwStmt
            | pg_sys::NodeTag::T_CreateUserMappingStmt
            | pg_sys::NodeTag::T_AlterUserMappingStmt => {
                Some(Effects { rewritten: true, ..Effects::default() })
            }
            // A new view has no effect on tables, because no column can have the view's row type
            // yet.
            pg_sys::NodeTag::T_ViewStmt => {
                (*statement.cast::<pg_sys::ViewStmt>()).replace.then(Effects::default)
            }
            _ => Some(Effects::default()),
        }
    }
}

/// An effect of a command that the DDL guard must handle before the command begins.
pub enum Beginning {
    /// The second table is about to become a partition of the first table. Both tables are already
    /// locked in the modes that the command itself uses.
    Attach(pg_sys::Oid, pg_sys::Oid),
    /// A partition is about to become an independent table.
    Detach {
        /// Whether the command is DETACH PARTITION CONCURRENTLY, which commits once before its end.
        is_concurrent: bool,
    },
    /// The command can rewrite a table.
    Rewrite,
}

/// Returns the effect that the DDL guard must handle before a command begins. Returns `None` if the
/// DDL guard need not act before the command begins. Returns `None` also for an ATTACH PARTITION of
/// a table that the current user does not own. PostgreSQL refuses to attach a table of another
/// owner, so the DDL guard must not lock this table or wait for a lock on it.
///
/// # Safety
/// `statement` must be null or point to a statement.
pub unsafe fn beginning(statement: *mut pg_sys::Node) -> Option<Beginning> {
    use pg_sys::AlterTableType as Kind;
    // SAFETY: `statement` is null or a statement (see # Safety), and the tag of a statement tells
    // its type.
    unsafe {
        if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_AlterTableStmt {
            return None;
        }
        for command in alter_table_commands(statement).iter_ptr() {
            let partition = (*command).def.cast::<pg_sys::PartitionCmd>();
            match (*command).subtype {
                Kind::AT_AttachPartition => {
                    let above = (*statement.cast::<pg_sys::AlterTableStmt>()).relation;
                    let above = own_relation(above, pg_sys::ShareUpdateExclusiveLock)?;
                    return Some(Beginning::Attach(
                        above,
                        own_relation((*partition).name, pg_sys::AccessExclusiveLock)?,
                    ));
                }
                Kind::AT_DetachPartition => {
                    return Some(Beginning::Detach { is_concurrent: (*partition).concurrent });
                }
                Kind::AT_DetachPartitionFinalize => {
                    return Some(Beginning::Detach { is_concurrent: false });
                }
                _ if may_rewrite((*command).subtype) => return Some(Beginning::Rewrite),
                _ => {}
            }
        }
        None
    }
}

fn may_rewrite(subcommand: pg_sys::AlterTableType::Type) -> bool {
    use pg_sys::AlterTableType as Kind;
    // ALTER COLUMN … SET EXPRESSION exists since PostgreSQL 17.
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    if subcommand == Kind::AT_SetExpression {
        return true;
    }
    matches!(
        subcommand,
        Kind::AT_AddColumn
            | Kind::AT_AlterColumnType
            | Kind::AT_SetUnLogged
            | Kind::AT_SetLogged
            | Kind::AT_SetAccessMethod
    )
}

/// # Safety
/// `statement` must be an ALTER TABLE statement.
unsafe fn alter_table_commands(statement: *mut pg_sys::Node) -> PgList<pg_sys::AlterTableCmd> {
    // SAFETY: `statement` is an ALTER TABLE statement (see # Safety).
    unsafe { PgList::from_pg((*statement.cast::<pg_sys::AlterTableStmt>()).cmds) }
}

/// Locks and returns the relation with this name, if it exists and the current user owns it.
///
/// # Safety
/// `name` must be null or point to a valid name.
unsafe fn own_relation(name: *mut pg_sys::RangeVar, lock: u32) -> Option<pg_sys::Oid> {
    // SAFETY: `name` is null or a valid name (see # Safety), and `owns_relation` accepts any oid.
    // `relation_named` returns an invalid oid for an unknown name.
    unsafe {
        if name.is_null() {
            return None;
        }
        let is_own =
            |relation: pg_sys::Oid| relation != pg_sys::InvalidOid && owns_relation(relation);
        if !is_own(relation_named(name, pg_sys::NoLock)) {
            return None;
        }
        let relation = relation_named(name, lock);
        is_own(relation).then_some(relation)
    }
}
