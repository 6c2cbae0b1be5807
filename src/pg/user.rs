//! Wrappers for roles and databases, and functions that run code with the rights of another role or
//! with another search_path.

use super::{Text, catalog_column};
use pgrx::pg_sys;
use std::ffi::CStr;

/// Returns the session's database. The result is InvalidOid in the launcher, which is not connected
/// to a database.
pub fn current_database() -> pg_sys::Oid {
    // SAFETY: the code only reads a variable of this process.
    unsafe { pg_sys::MyDatabaseId }
}

/// Returns the role's name, or `None` if the role does not exist.
pub fn role_name(role: pg_sys::Oid) -> Option<Text> {
    // SAFETY: the second argument (`noerr`) makes the function return null for an unknown oid. For
    // a known oid, GetUserNameFromId() returns a C string in the current memory context.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| Text::from_server(CStr::from_ptr(name).to_bytes()))
    }
}

/// Returns whether the current role owns the database or has the rights of the owner.
pub fn owns_database(database: pg_sys::Oid) -> bool {
    // SAFETY: the catalog look-ups run within a transaction. The caller has found the database in
    // the catalog.
    unsafe {
        // Since PostgreSQL 16, object_ownercheck() checks the owner of objects of all kinds.
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

/// Returns whether the current role may create databases. PostgreSQL added its own function for
/// this check in a minor version. If this library called PostgreSQL's function, a server of an
/// earlier minor version could not load the library.
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

/// Returns whether the database is a template. Every role that may create databases may copy a
/// template.
pub fn is_template(database: pg_sys::Oid) -> bool {
    let column = pg_sys::Anum_pg_database_datistemplate;
    let cache = pg_sys::SysCacheIdentifier::DATABASEOID;
    // SAFETY: the key is the oid of a database, and the column is a boolean.
    unsafe { catalog_column(cache, database, column) }.is_some_and(|is| is.value() as u8 != 0)
}

/// Returns whether the current role owns the relation or has the rights of the owner. The relation
/// must exist in the catalog.
pub fn owns_relation(relation: pg_sys::Oid) -> bool {
    // SAFETY: the catalog look-ups run within a transaction.
    unsafe {
        // Since PostgreSQL 16, object_ownercheck() checks the owner of objects of all kinds.
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

/// Runs `work` with the rights of `role`, in the way in which PostgreSQL runs a SECURITY DEFINER
/// function with the rights of its owner.
pub fn as_user<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: both functions only access variables of the session. If `work` raises an error, the
    // abort of the (sub)transaction restores the former user.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
        let result = work();
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

/// Runs `work` with the rights of the relation's owner, in a security-restricted operation. `work`
/// may run code that the owner wrote, for example a cast or the check of a domain. In a
/// security-restricted operation, the owner's code gains no rights. PostgreSQL's maintenance
/// commands, for example REINDEX, also run code of a table's owner in a security-restricted
/// operation.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn as_owner_restricted<R>(relation: pg_sys::Relation, work: impl FnOnce() -> R) -> R {
    // SAFETY: the relation is open (see # Safety).
    as_user_restricted(unsafe { (*(*relation).rd_rel).relowner }, work)
}

/// Runs `work` with the rights of `role`, in a security-restricted operation. The comment of
/// [`as_owner_restricted`] gives the reason for the restriction.
pub fn as_user_restricted<R>(role: pg_sys::Oid, work: impl FnOnce() -> R) -> R {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: the functions only access variables of the session. If `work` raises an error, the
    // abort of the (sub)transaction restores the former user and ends the nest level.
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

/// Runs `work` with this search_path. If `work` raises an error, the abort of the (sub)transaction
/// restores the former search_path.
pub fn with_search_path<R>(path: &CStr, work: impl FnOnce() -> R) -> R {
    // SAFETY: the changed setting belongs to a new nest level, which ends in this function or with
    // the (sub)transaction. The name and the path are C strings.
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

/// Returns the current role.
pub fn current_role() -> pg_sys::Oid {
    // SAFETY: the call only reads a variable of the session.
    unsafe { pg_sys::GetUserId() }
}

/// Returns whether the role is a superuser. Returns false if the role does not exist.
pub fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: the catalog look-up runs within a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}
