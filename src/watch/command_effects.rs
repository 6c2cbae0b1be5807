//! What the parse tree of a DDL command tells the guard.

use super::catalog::is_audit_trigger_name;
use crate::pg::owns_relation;
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// What a command does besides what the catalog shows afterwards.
#[derive(Clone, Copy, Default)]
pub struct Effects {
    /// A partition or child table was created.
    pub made: bool,
    /// A table that was there became a partition or child table.
    pub joined: bool,
    /// A partition or child table became a table of its own.
    pub parted: bool,
    /// Triggers were switched off, if only until another part of the command switched them on
    /// again.
    pub disabled: bool,
    /// Values are others, or will be, though the columns may be the same: a column was given a type
    /// or an expression, a label of an enum another name, the table became unlogged.
    pub rewritten: bool,
    /// PostgreSQL may have copied the rows to another file.
    pub may_rewrite: bool,
}

/// The effects of a command; `None` for CREATE TABLE of neither a partition nor a child table
/// (frequent, where sessions make temporary tables) and for CREATE SCHEMA of an empty one: no
/// concern of the guard's.
///
/// # Safety
/// `statement` must be null or a statement.
pub unsafe fn effects(statement: *mut pg_sys::Node) -> Option<Effects> {
    // SAFETY: as the caller promises; a node's tag says what it is.
    unsafe {
        if statement.is_null() {
            return Some(Effects { made: true, joined: true, parted: true, ..Effects::default() });
        }
        match (*statement).type_ {
            // A foreign table's node begins with that of a table.
            pg_sys::NodeTag::T_CreateStmt | pg_sys::NodeTag::T_CreateForeignTableStmt => {
                let create = statement.cast::<pg_sys::CreateStmt>();
                // A partition, too, says what it is one of in this list.
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
                        // An unlogged table loses its rows by a crash.
                        Kind::AT_AlterColumnType | Kind::AT_SetUnLogged | Kind::AT_SetLogged => {
                            effects.rewritten = true
                        }
                        // ALTER COLUMN … SET EXPRESSION is new in 17.
                        #[cfg(any(feature = "pg17", feature = "pg18"))]
                        Kind::AT_SetExpression => effects.rewritten = true,
                        _ => {}
                    }
                }
                Some(effects)
            }
            // The elements of a schema have no event triggers of their own.
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
            // A new view is no column's type yet.
            pg_sys::NodeTag::T_ViewStmt => {
                (*statement.cast::<pg_sys::ViewStmt>()).replace.then(Effects::default)
            }
            _ => Some(Effects::default()),
        }
    }
}

/// What is of concern before a command begins.
pub enum Beginning {
    /// A table is about to become a partition of the first. Both are locked as the command itself
    /// will lock them.
    Attach(pg_sys::Oid, pg_sys::Oid),
    /// A partition is about to become a table of its own.
    Detach {
        /// Whether the command commits on its way.
        is_concurrent: bool,
    },
    /// A table may be rewritten.
    Rewrite,
}

/// What a command is about to do. `None` for most commands, and for an ATTACH PARTITION that will
/// be refused: it must not wait for locks, nor take any, on tables that are not the caller's.
///
/// # Safety
/// `statement` must be null or a statement.
pub unsafe fn beginning(statement: *mut pg_sys::Node) -> Option<Beginning> {
    use pg_sys::AlterTableType as Kind;
    // SAFETY: as the caller promises; a node's tag says what it is.
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
    // ALTER COLUMN … SET EXPRESSION is new in 17.
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
    // SAFETY: as the caller promises.
    unsafe { PgList::from_pg((*statement.cast::<pg_sys::AlterTableStmt>()).cmds) }
}

/// The relation of this name, locked, if there is one and it belongs to the current user.
///
/// # Safety
/// `name` must be null or a name.
unsafe fn own_relation(name: *mut pg_sys::RangeVar, lock: u32) -> Option<pg_sys::Oid> {
    // SAFETY: as the caller promises; the look-ups take any oid. The flag has it return an invalid
    // oid for a name of nothing.
    unsafe {
        if name.is_null() {
            return None;
        }
        let find = |lock: u32| {
            let flags = pg_sys::RVROption::RVR_MISSING_OK;
            pg_sys::RangeVarGetRelidExtended(
                name,
                lock as pg_sys::LOCKMODE,
                flags,
                None,
                std::ptr::null_mut(),
            )
        };
        let is_own =
            |relation: pg_sys::Oid| relation != pg_sys::InvalidOid && owns_relation(relation);
        if !is_own(find(pg_sys::NoLock)) {
            return None;
        }
        let relation = find(lock);
        is_own(relation).then_some(relation)
    }
}
