//! Decides whether the library works with the version of the installed SQL objects.
//!
//! The version of the SQL objects can differ from the version of the library:
//!
//! - *Older objects*: a newer package is installed, and `ALTER EXTENSION lead_audit UPDATE` has not
//!   run yet. The library works with older SQL objects from version 1.0 on.
//! - *Newer objects*: the session loaded its library before the SQL objects were updated, or an
//!   older package was installed again. The library still records writes if the newer SQL objects
//!   have the library's major version, because a minor version only adds columns to the table
//!   `lead_audit.entry`. With newer SQL objects, the library refuses every operation except the
//!   recording of writes.

use crate::pg::{ServerError, extension_version};
use pgrx::{PgSqlErrorCode, pg_extern};

/// The first released version of lead_audit.
const FIRST: (u32, u32) = (1, 0);

/// The first version with the schema lead_audit_internal, which contains the internal functions.
const INTERNAL_SCHEMA: (u32, u32) = (1, 1);

/// The version of the library, for example 1.2.0. The version of the SQL objects has only two
/// numbers, for example 1.2.
const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The hint of the error for SQL objects that are newer than the library.
pub const INSTALL: &str = "Install the library of the SQL objects' version, or connect again if \
                           that was done since this session began";

/// The kind of operation for which the library needs the SQL objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The library writes entries.
    Writing,
    /// Any operation of the library, not only the writing of entries.
    Everything,
}

/// Returns an error if the library cannot do the operation with the installed version of the SQL
/// objects. Succeeds if the extension does not exist in this database.
pub fn check(need: Need) -> Result<(), ServerError> {
    match extension_version() {
        Some(objects) if !fits(LIBRARY, &objects, need) => Err(mismatch(&objects)),
        _ => Ok(()),
    }
}

/// Raises an error if the library cannot do all operations with the installed version of the SQL
/// objects.
pub fn require() {
    if let Err(error) = check(Need::Everything) {
        error.raise(Some(format!("{INSTALL}.")));
    }
}

/// Implements `lead_audit_internal.require_library()`, which calls [`require`]. The extension's
/// functions in SQL call `require_library()`, because they would otherwise run with a library of
/// any version.
#[pg_extern(sql = false)]
fn require_library() {
    require();
}

/// Returns the schema of the internal functions, which only the library and other SQL functions
/// call.
///
/// The function looks at the version of the SQL objects, because the existence of the schema proves
/// nothing. Before the update from version 1.0, any role that can create schemas can have created a
/// schema with this name.
pub fn internal_schema() -> &'static str {
    match extension_version().as_deref().and_then(numbers) {
        Some(objects) if objects < INTERNAL_SCHEMA => "lead_audit",
        _ => "lead_audit_internal",
    }
}

/// Returns the version of the SQL objects if they are older than the library.
pub fn update_awaited() -> Option<String> {
    extension_version().filter(|objects| numbers(objects) < numbers(LIBRARY))
}

fn mismatch(objects: &str) -> ServerError {
    let (major, minor) = numbers(LIBRARY).unwrap_or_default();
    ServerError {
        code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!(
            "the library lead_audit {major}.{minor} cannot work with SQL objects of version \
             {objects}"
        ),
        detail: Some(format!(
            "The library that this server process has loaded works with versions {}.{} to \
             {major}.{minor}.",
            FIRST.0, FIRST.1
        )),
    }
}

/// Returns whether a library of version `library` can do an operation with SQL objects of version
/// `objects`. Returns false if a version does not begin with two numbers.
fn fits(library: &str, objects: &str, need: Need) -> bool {
    let (Some(library), Some(objects)) = (numbers(library), numbers(objects)) else { return false };
    let newest = match need {
        Need::Everything => library,
        Need::Writing => (library.0, u32::MAX),
    };
    (FIRST..=newest).contains(&objects)
}

/// Returns the first two numbers of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_objects_fit_and_newer_ones_do_not() {
        for (library, objects, writing, everything) in [
            ("1.2.0", "1.2", true, true),
            ("1.2.3", "1.2", true, true),
            ("1.2.0", "1.0", true, true),
            ("1.2.0", "0.2", false, false),
            ("2.0.0", "1.10", true, true),
            ("1.2.0", "1.10", true, false),
            ("1.2.0", "2.0", false, false),
            ("1.0.0", "unknown", false, false),
            ("1.0.0", "1", false, false),
        ] {
            assert_eq!(
                fits(library, objects, Need::Writing),
                writing,
                "{library} with {objects}, writing"
            );
            assert_eq!(
                fits(library, objects, Need::Everything),
                everything,
                "{library} with {objects}"
            );
        }
    }
}
