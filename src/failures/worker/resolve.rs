//! Finds the watched table of a statement that failed before PostgreSQL knew the table. Parses the
//! statement's text, and looks up the table's name with the search_path and the role of the session
//! that ran the statement. The worker runs no part of the statement.

use crate::failures::queue::record::{Table, Unresolved};
use crate::failures::session::watched;
use crate::pg::{as_user, relation_named, role_name, with_search_path};
use pgrx::{PgList, pg_sys};
use std::ffi::{CStr, CString};

/// The watched table and the operation of a statement.
pub struct Resolved {
    pub table: Table,
    pub operation: &'static str,
    /// The part of the statement's text that the entry contains.
    pub statement: Option<String>,
}

/// Finds the watched table that a statement writes to. Returns `None` if the statement writes to no
/// watched table. Raises the errors of the parser and of the look-ups of names.
pub fn resolve(unresolved: &Unresolved, role: pg_sys::Oid) -> Option<Resolved> {
    let text = CString::new(unresolved.redacted.as_str()).ok()?;
    // SAFETY: the parser takes a C string and returns a list of raw statements in the current
    // memory context.
    let statements = unsafe {
        let list = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        PgList::<pg_sys::RawStmt>::from_pg(list)
    };
    let mut found = None;
    for statement in statements.iter_ptr() {
        // SAFETY: the parser made the statement, so its fields are valid.
        let (node, location, length) =
            unsafe { ((*statement).stmt, (*statement).stmt_location, (*statement).stmt_len) };
        let start = usize::try_from(location).unwrap_or(0);
        if unresolved.position.is_some_and(|position| start > position) {
            break;
        }
        // SAFETY: the parser made the node.
        if let Some((table, operation)) = unsafe { target_of(node, unresolved, role) } {
            let own = |text: &String| {
                let end = usize::try_from(length)
                    .ok()
                    .filter(|&length| length > 0)
                    .map_or(text.len(), |length| start + length);
                let end = text.floor_char_boundary(end.min(text.len()));
                // `text` is the beginning of the original text. If `text` ends before this
                // statement, the result is `None`, and the entry contains the redacted text.
                text.get(start..end).filter(|own| !own.is_empty()).map(|own| own.trim().to_owned())
            };
            let statement = unresolved
                .text
                .as_ref()
                .and_then(|text| own(text).or_else(|| own(&unresolved.redacted)));
            found = Some(Resolved { table, operation, statement });
        } else if unresolved.position.is_some() {
            found = None; // The error is not in the statement that was found before.
        }
    }
    found
}

/// # Safety
/// `node` must be null or a raw statement.
unsafe fn target_of(
    node: *mut pg_sys::Node,
    unresolved: &Unresolved,
    role: pg_sys::Oid,
) -> Option<(Table, &'static str)> {
    use pg_sys::NodeTag as Tag;
    if node.is_null() {
        return None;
    }
    // SAFETY: `node` is a raw statement (see # Safety), and its tag identifies its type.
    unsafe {
        pg_sys::check_stack_depth();
        let (relation, operation, with) = match (*node).type_ {
            Tag::T_InsertStmt => {
                let statement = &*node.cast::<pg_sys::InsertStmt>();
                (statement.relation, "INSERT", statement.withClause)
            }
            Tag::T_UpdateStmt => {
                let statement = &*node.cast::<pg_sys::UpdateStmt>();
                (statement.relation, "UPDATE", statement.withClause)
            }
            Tag::T_DeleteStmt => {
                let statement = &*node.cast::<pg_sys::DeleteStmt>();
                (statement.relation, "DELETE", statement.withClause)
            }
            Tag::T_MergeStmt => {
                let statement = &*node.cast::<pg_sys::MergeStmt>();
                (statement.relation, "MERGE", statement.withClause)
            }
            Tag::T_CopyStmt => {
                let statement = &*node.cast::<pg_sys::CopyStmt>();
                (
                    if statement.is_from { statement.relation } else { std::ptr::null_mut() },
                    "COPY",
                    std::ptr::null_mut(),
                )
            }
            Tag::T_TruncateStmt => {
                let names = PgList::<pg_sys::RangeVar>::from_pg(
                    (*node.cast::<pg_sys::TruncateStmt>()).relations,
                );
                return names
                    .iter_ptr()
                    .find_map(|name| Some((table_of(name, unresolved, role)?, "TRUNCATE")));
            }
            Tag::T_SelectStmt => {
                (std::ptr::null_mut(), "", (*node.cast::<pg_sys::SelectStmt>()).withClause)
            }
            Tag::T_ExplainStmt => {
                return target_of((*node.cast::<pg_sys::ExplainStmt>()).query, unresolved, role);
            }
            Tag::T_PrepareStmt => {
                return target_of((*node.cast::<pg_sys::PrepareStmt>()).query, unresolved, role);
            }
            _ => return None,
        };
        if !relation.is_null()
            && let Some(table) = table_of(relation, unresolved, role)
        {
            return Some((table, operation));
        }
        if with.is_null() {
            return None;
        }
        let expressions = PgList::<pg_sys::CommonTableExpr>::from_pg((*with).ctes);
        expressions
            .iter_ptr()
            .find_map(|expression| target_of((*expression).ctequery, unresolved, role))
    }
}

/// Looks up the name of a table with the search_path and the role of the session whose statement
/// failed. Returns `None` if the name is not that of a watched table.
///
/// # Safety
/// `name` must be a RangeVar that the parser has made.
unsafe fn table_of(
    name: *mut pg_sys::RangeVar,
    unresolved: &Unresolved,
    role: pg_sys::Oid,
) -> Option<Table> {
    // SAFETY: the parser made the name (see # Safety), so its fields are C strings or null.
    unsafe {
        let find = || relation_named(name, pg_sys::NoLock);
        let relation = if (*name).schemaname.is_null() {
            let temporary = pg_sys::Oid::from(unresolved.temporary_schema);
            let plain = CStr::from_ptr((*name).relname).to_string_lossy();
            if unresolved.temporary_tables.iter().any(|table| *table == plain) {
                return None;
            }
            if temporary != pg_sys::InvalidOid
                && pg_sys::get_relname_relid((*name).relname, temporary) != pg_sys::InvalidOid
            {
                return None; // The session's temporary table hides all other tables of this name.
            }
            role_name(role)?;
            let path = CString::new(unresolved.search_path.as_str()).ok()?;
            with_search_path(&path, || as_user(role, find))
        } else {
            if CStr::from_ptr((*name).schemaname).to_bytes().starts_with(b"pg_temp") {
                return None;
            }
            find()
        };
        if relation == pg_sys::InvalidOid {
            return None;
        }
        let found = watched(relation);
        (!found.is_null()).then(|| (*found).table.clone())
    }
}
