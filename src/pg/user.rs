//! Wrappers for roles and the session's database. Runs code with another role's rights or another
//! search_path.

use super::{Text, catalog_column};
use pgrx::pg_sys;
use std::ffi::CStr;

/// The session's database. Invalid in the launcher, which is not connected to one.
pub fn current_database() -> pg_sys::Oid {
    // SAFETY: reads a variable of the process.
    unsafe { pg_sys::MyDatabaseId }
}

/// The role's name, or `None` if the role does not exist.
pub fn role_name(role: pg_sys::Oid) -> Option<Text> {
    // SAFETY: with noerr the function returns null for an unknown oid, else a string in the current
    // memory context.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| Text::from_server(CStr::from_ptr(name).to_bytes()))
    }
}

/// Whether the current role owns the database or has its owner's rights.
pub fn owns_database(database: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups within a transaction. The caller found the database in the catalog.
    unsafe {
        // PostgreSQL 16 has one function for all kinds of objects.
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(
            pg_sys::DatabaseRelationId,
            database,
            pg_sys::GetUserId(),
        );
    }
}

/// Whether the current role may create databases. PostgreSQL's own function for this came with a
/// minor version, so a library that calls it could not be loaded by earlier servers.
pub fn may_create_databases() -> bool {
    let column = pg_sys::Anum_pg_authid_rolcreatedb;
    // SAFETY: the key is the oid of a role, and the column is a boolean.
    unsafe {
        let role = pg_sys::GetUserId();
        pg_sys::superuser()
            || catalog_column(pg_sys::SysCacheIdentifier::AUTHOID, role, column)
                .is_some_and(|may| may.value() as u8 != 0)
    }
}

/// Whether the database is a template: every role that may create databases may copy it.
pub fn is_template(database: pg_sys::Oid) -> bool {
    let column = pg_sys::Anum_pg_database_datistemplate;
    let cache = pg_sys::SysCacheIdentifier::DATABASEOID;
    // SAFETY: the key is the oid of a database, and the column is a boolean.
    unsafe { catalog_column(cache, database, column) }.is_some_and(|is| is.value() as u8 != 0)
}

/// Whether the current role owns the relation or has its owner's rights. The caller found the
/// relation in the catalog.
pub fn owns_relation(relation: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups within a transaction.
    unsafe {
        // PostgreSQL 16 has one function for all kinds of objects.
        #[cfg(feature = "pg15")]
        return pg_sys::pg_class_ownercheck(relation, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(
            pg_sys::RelationRelationId,
            relation,
            pg_sys::GetUserId(),
        );
    }
}

/// Runs `work` with the rights of `role`, as a SECURITY DEFINER function would.
pub fn as_user<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: both functions access variables of the session. If `work` raises an error, the abort
    // of its (sub)transaction restores the former user.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
        let result = work();
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

/// Runs `work` as the relation's owner, in a security-restricted operation. PostgreSQL's
/// maintenance commands do the same, since they may run code that a table's owner wrote (a domain's
/// check, a cast). That code then gains no rights.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn as_owner_restricted<R>(relation: pg_sys::Relation, work: impl FnOnce() -> R) -> R {
    // SAFETY: the relation is open (see # Safety).
    as_user_restricted(unsafe { (*(*relation).rd_rel).relowner }, work)
}

/// Like [`as_owner_restricted`], with the given role instead of the owner.
pub fn as_user_restricted<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: as in `as_user`. The nest level ends here, or with the abort of the (sub)transaction.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let restricted =
            pg_sys::SECURITY_RESTRICTED_OPERATION | pg_sys::SECURITY_LOCAL_USERID_CHANGE;
        pg_sys::SetUserIdAndSecContext(role, context | restricted as i32);
        let level = pg_sys::NewGUCNestLevel();
        let result = work();
        pg_sys::AtEOXact_GUC(false, level);
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

/// Runs `work` with this search_path. After an error the abort of the (sub)transaction restores the
/// former one.
pub fn with_search_path<R>(path: &CStr, work: impl FnOnce() -> R) -> R {
    // SAFETY: a new nest level, which ends here or with the (sub)transaction. Both texts are C
    // strings.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"search_path".as_ptr(),
            path.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let result = work();
        pg_sys::AtEOXact_GUC(false, level);
        result
    }
}

/// The current role.
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: reads a variable of the session.
    unsafe { pg_sys::GetUserId() }
}

/// Whether the role is a superuser. False if the role does not exist.
pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up within a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}
