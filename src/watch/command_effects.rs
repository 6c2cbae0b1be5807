//! Derives the effects of a DDL command from its parse tree, for the DDL guard.

use super::catalog::is_audit_trigger_name;
use crate::pg::{owns_relation, relation_named};
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// Effects of a command that the catalog no longer shows when the command has ended.
#[derive(Clone, Copy, Default)]
pub struct Effects {
    /// The command created a partition or child table.
    pub made: bool,
    /// An existing table became a partition or child table.
    pub joined: bool,
    /// A partition or child table became an independent table.
    pub parted: bool,
    /// The command disabled triggers. True even if another part of the command enabled them again.
    pub disabled: bool,
    /// Values change now or later, although the list of columns may stay the same. Causes: a column
    /// got a different type or expression, an enum label a different name, the table became logged
    /// or unlogged, or a foreign table may show other rows.
    pub rewritten: bool,
    /// PostgreSQL may have rewritten the table, that is, copied its rows to a new file.
    pub may_rewrite: bool,
}

/// Returns the effects of a command, or `None` if the guard can ignore the command. It ignores
/// CREATE TABLE for a table that is neither a partition nor a child table, because sessions create
/// temporary tables often, and CREATE SCHEMA without elements.
///
/// # Safety
/// `statement` must be null or a statement.
pub unsafe fn effects(statement: *mut pg_sys::Node) -> Option<Effects> {
    // SAFETY: the node is null or a statement (see # Safety), and its tag tells its type.
    unsafe {
        if statement.is_null() {
            return Some(Effects { made: true, joined: true, parted: true, ..Effects::default() });
        }
        match (*statement).type_ {
            // The node of CREATE FOREIGN TABLE begins with a node of CREATE TABLE.
            pg_sys::NodeTag::T_CreateStmt | pg_sys::NodeTag::T_CreateForeignTableStmt => {
                let create = statement.cast::<pg_sys::CreateStmt>();
                // For a partition, too, `inhRelations` contains the parent.
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
                        // A crash empties an unlogged table.
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
            // The elements of CREATE SCHEMA fire no event triggers of their own.
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
            // The rows that a foreign table shows depend on its server and on the role used there.
            pg_sys::NodeTag::T_AlterForeignServerStmt
            | pg_sys::NodeTag::T_AlterFdwStmt
            | pg_sys::NodeTag::T_CreateUserMappingStmt
            | pg_sys::NodeTag::T_AlterUserMappingStmt => {
                Some(Effects { rewritten: true, ..Effects::default() })
            }
            // A new view cannot affect a table: no column can have its row type yet.
            pg_sys::NodeTag::T_ViewStmt => {
                (*statement.cast::<pg_sys::ViewStmt>()).replace.then(Effects::default)
            }
            _ => Some(Effects::default()),
        }
    }
}

/// An effect that the guard must handle before the command begins.
pub enum Beginning {
    /// The second table is about to become a partition of the first. Both tables are already
    /// locked, in the modes that the command itself uses.
    Attach(pg_sys::Oid, pg_sys::Oid),
    /// A partition is about to become an independent table.
    Detach {
        /// Whether it is DETACH PARTITION CONCURRENTLY, which commits once before its end.
        is_concurrent: bool,
    },
    /// The command may rewrite a table.
    Rewrite,
}

/// Returns the effect of a command that is about to begin, or `None` for most commands. Also
/// returns `None` for an ATTACH PARTITION that PostgreSQL will refuse: for such a command, the
/// guard must not lock tables that the caller does not own, nor wait for their locks.
///
/// # Safety
/// `statement` must be null or a statement.
pub unsafe fn beginning(statement: *mut pg_sys::Node) -> Option<Beginning> {
    use pg_sys::AlterTableType as Kind;
    // SAFETY: the node is null or a statement (see # Safety), and its tag tells its type.
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
/// `statement` must be an ALTER TABLE.
unsafe fn alter_table_commands(statement: *mut pg_sys::Node) -> PgList<pg_sys::AlterTableCmd> {
    // SAFETY: `statement` is an ALTER TABLE (see # Safety).
    unsafe { PgList::from_pg((*statement.cast::<pg_sys::AlterTableStmt>()).cmds) }
}

/// Locks and returns the relation of this name, if it exists and belongs to the current user.
///
/// # Safety
/// `name` must be null or a name.
unsafe fn own_relation(name: *mut pg_sys::RangeVar, lock: u32) -> Option<pg_sys::Oid> {
    // SAFETY: `name` is null or a name (see # Safety), and the look-ups take any oid. With the
    // flag, the look-up by name returns an invalid oid for an unknown name.
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
