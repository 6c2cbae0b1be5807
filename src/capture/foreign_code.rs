//! Finds the types whose values cannot be written as JSON, or read from text, without running code
//! of a table's owner. A role with more rights than the table's owner must not run the owner's
//! code.
//!
//! Output functions of base types, ranges, enums and domains are written in C, so only PostgreSQL
//! or a superuser can have provided them. Two kinds of objects can contain code of a table's owner:
//! casts to json, and CHECK constraints of domains. to_jsonb calls the cast of a type to json.
//! PostgreSQL evaluates the CHECK constraint of a domain when it reads a value of the domain.

use super::type_search::{TypeSearch, attribute_types};
use crate::pg::{ServerError, as_user_restricted, catalog_column, current_role, is_superuser};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::{Cell, RefCell};

/// Answers whether writing or reading values of a type can run code of a table's owner. Caches the
/// answers as long as this `ForeignCode` lives. Code that uses a `ForeignCode` does not change
/// types itself, so only another transaction can make an answer wrong.
#[derive(Default)]
pub struct ForeignCode {
    writing: TypeSearch,
}

impl ForeignCode {
    /// Returns whether writing a value of the type as JSON can run code that is neither written in
    /// C nor part of PostgreSQL.
    pub fn writes(&mut self, type_oid: pg_sys::Oid) -> bool {
        self.writing.finds(type_oid, has_foreign_cast, parts)
    }

    /// Returns whether reading a value of the type from text can run code that is neither written
    /// in C nor part of PostgreSQL.
    pub fn reads(&self, type_oid: pg_sys::Oid) -> bool {
        // SAFETY: the call only looks up the type in the catalog.
        !is_built_in(type_oid)
            && unsafe { pg_sys::get_typtype(type_oid) } as u8 != pg_sys::TYPTYPE_ENUM
    }
}

/// Returns a type and its modifier. The input function of the returned type can read a value of
/// `type_oid` from text. Reading the value as the returned type runs only code that is written in C
/// or part of PostgreSQL. The function replaces a domain by the domain's base type, so that
/// PostgreSQL does not evaluate the domain's CHECK constraint. Returns `None` if reading a value of
/// `type_oid` would run code that a user wrote in another language than C.
pub fn readable_type(type_oid: pg_sys::Oid, modifier: i32) -> Option<(pg_sys::Oid, i32)> {
    let without_domain = |type_oid: pg_sys::Oid, mut modifier: i32| {
        // SAFETY: the call only looks up the type in the catalog. If the type is a domain, the call
        // replaces `modifier` by the modifier of the domain's base type.
        let base = unsafe { pg_sys::getBaseTypeAndTypmod(type_oid, &mut modifier) };
        (base, modifier)
    };
    let reads_domains = |type_oid| TypeSearch::default().finds(type_oid, is_domain, parts_to_read);
    let (base, modifier) = without_domain(type_oid, modifier);
    if !reads_domains(base) {
        return Some((base, modifier));
    }
    // SAFETY: the call only looks up the type in the catalog. get_element_type() returns an invalid
    // oid if the type is not an array.
    let element = unsafe { pg_sys::get_element_type(base) };
    if element == pg_sys::InvalidOid {
        return None;
    }
    let (element, modifier) = without_domain(element, -1);
    // SAFETY: the call only looks up the type in the catalog.
    let array = unsafe { pg_sys::get_array_type(element) };
    (array != pg_sys::InvalidOid && !reads_domains(element)).then_some((array, modifier))
}

fn is_domain(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: the call only looks up the type in the catalog.
    !is_built_in(type_oid)
        && unsafe { pg_sys::get_typtype(type_oid) } as u8 == pg_sys::TYPTYPE_DOMAIN
}

/// Adds to `to` the types whose input functions PostgreSQL calls when it reads a value of
/// `type_oid`.
fn parts_to_read(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    if is_built_in(type_oid) {
        return;
    }
    // SAFETY: the calls only look up types in the catalog. The calls return an invalid oid if they
    // find no type.
    let part = unsafe {
        match pg_sys::get_typtype(type_oid) as u8 {
            pg_sys::TYPTYPE_COMPOSITE => return attribute_types(type_oid, to),
            pg_sys::TYPTYPE_RANGE => pg_sys::get_range_subtype(type_oid),
            pg_sys::TYPTYPE_MULTIRANGE => pg_sys::get_multirange_range(type_oid),
            _ => pg_sys::get_element_type(type_oid),
        }
    };
    if part != pg_sys::InvalidOid {
        to.push(part);
    }
}

fn is_built_in(type_oid: pg_sys::Oid) -> bool {
    type_oid.to_u32() < pg_sys::FirstNormalObjectId
}

/// The way in which to_jsonb decomposes a value of a type.
enum Shape {
    BuiltIn,
    Domain(pg_sys::Oid),
    Array(pg_sys::Oid),
    Composite,
    /// A value that to_jsonb does not decompose. A cast to json or the type's output function
    /// writes the whole value.
    Whole,
}

fn shape(type_oid: pg_sys::Oid) -> Shape {
    // SAFETY: the calls only look up types in the catalog. The calls return an invalid oid if they
    // find no type.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        let element = pg_sys::get_element_type(base);
        match () {
            () if base != type_oid => Shape::Domain(base),
            () if is_built_in(base) => Shape::BuiltIn,
            () if element != pg_sys::InvalidOid => Shape::Array(element),
            () if pg_sys::get_typtype(base) as u8 == pg_sys::TYPTYPE_COMPOSITE => Shape::Composite,
            () => Shape::Whole,
        }
    }
}

fn parts(type_oid: pg_sys::Oid, to: &mut Vec<pg_sys::Oid>) {
    match shape(type_oid) {
        Shape::Domain(base) => to.push(base),
        Shape::Array(element) => to.push(element),
        Shape::Composite => attribute_types(type_oid, to),
        Shape::BuiltIn | Shape::Whole => {}
    }
}

/// The casts to json that PostgreSQL can run when it writes a value of a type as JSON. A cast whose
/// function is in C is left out, because only a superuser can create a function in C. The role that
/// writes to a table need not be the role that chose the column types. Therefore a cast of an
/// ordinary role must not run with the rights of the writing role.
pub struct ForeignCasts {
    type_oid: pg_sys::Oid,
    /// The value of `CATALOG` during the last search for the owners of the casts, and the result of
    /// this search. The field is `None` before the first search.
    known: Cell<Option<(u64, Runs)>>,
}

/// The role with whose rights the casts to json run.
#[derive(Clone, Copy)]
enum Runs {
    /// The role that writes the row, because the type has no casts to json, or because only
    /// superusers own them.
    AsWriter,
    /// The owner of the casts.
    As(pg_sys::Oid),
    /// No role, because the casts have several owners. If the casts ran with the rights of one
    /// owner, the code of the other owners would get this owner's rights.
    Never,
}

thread_local! {
    static CATALOG: Cell<u64> = const { Cell::new(0) };
}

/// Invalidates the cached owners of casts. The hooks call this function when a cast, a function, a
/// role or a relation may have changed.
pub fn casts_changed() {
    CATALOG.set(CATALOG.get().wrapping_add(1));
}

impl ForeignCasts {
    /// Returns the casts to json of `type_oid` and of the types within it, or `None` if all these
    /// types are built in.
    pub fn of(type_oid: pg_sys::Oid) -> Option<Self> {
        let holds_foreign_types =
            TypeSearch::default().finds(type_oid, |one| !is_built_in(one), parts);
        holds_foreign_types.then(|| ForeignCasts { type_oid, known: Cell::new(None) })
    }

    /// Runs `work`, which writes a value of the type. Raises an error if the casts to json have
    /// several owners.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        match self.known.get() {
            Some((catalog, runs)) if catalog == CATALOG.get() => self.run_as(runs, work),
            _ => {
                let catalog = CATALOG.get();
                let runs = owners(self.type_oid);
                self.known.set(Some((catalog, runs)));
                self.run_as(runs, work)
            }
        }
    }

    fn run_as<R>(&self, runs: Runs, work: impl FnOnce() -> R) -> R {
        match runs {
            Runs::AsWriter => work(),
            Runs::As(owner) if owner == current_role() => work(),
            Runs::As(owner) => as_user_restricted(owner, work),
            Runs::Never => ServerError {
                code: PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                message: "casts to json of several owners in one value are not executed".to_owned(),
                detail: Some(
                    "Each cast runs with the rights of its owner, but one value is converted with \
                     the rights of one role."
                        .to_owned(),
                ),
            }
            .raise(None),
        }
    }
}

fn owners(type_oid: pg_sys::Oid) -> Runs {
    let found = RefCell::new(Vec::new());
    let looks_on = |this: pg_sys::Oid| {
        let function = matches!(shape(this), Shape::Whole).then(|| cast_to_json(this)).flatten();
        // SAFETY: the calls only look up the function in the catalog.
        let owner = function.filter(|&function| !is_in_c(function)).map(owner_of);
        if let Some(owner) = owner.filter(|&owner| {
            owner != pg_sys::InvalidOid && !is_superuser(owner) && !found.borrow().contains(&owner)
        }) {
            found.borrow_mut().push(owner);
        }
        false
    };
    TypeSearch::default().finds(type_oid, looks_on, parts);
    match found.into_inner()[..] {
        [] => Runs::AsWriter,
        [owner] => Runs::As(owner),
        _ => Runs::Never,
    }
}

/// Returns the owner of a function, or an invalid oid if the function no longer exists.
fn owner_of(function: pg_sys::Oid) -> pg_sys::Oid {
    let column = pg_sys::Anum_pg_proc_proowner;
    // SAFETY: the key is the oid of a function, and the column is an oid.
    let owner = unsafe { catalog_column(pg_sys::SysCacheIdentifier::PROCOID, function, column) };
    owner.map_or(pg_sys::InvalidOid, |owner| pg_sys::Oid::from(owner.value() as u32))
}

fn has_foreign_cast(type_oid: pg_sys::Oid) -> bool {
    matches!(shape(type_oid), Shape::Whole)
        && cast_to_json(type_oid).is_some_and(|function| !is_in_c(function))
}

/// Returns the function of the cast to json that to_jsonb calls for a value of this type. The type
/// must not be a built-in type. Searches for the cast in the same way as PostgreSQL's
/// json_categorize_type().
fn cast_to_json(type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let mut function = pg_sys::InvalidOid;
    // SAFETY: the call only looks up the cast in the catalog.
    let path = unsafe {
        let explicit = pg_sys::CoercionContext::COERCION_EXPLICIT;
        pg_sys::find_coercion_pathway(pg_sys::JSONOID, type_oid, explicit, &mut function)
    };
    (path == pg_sys::CoercionPathType::COERCION_PATH_FUNC).then_some(function)
}

/// The oids of the languages `internal` and `c` are fixed in PostgreSQL's catalog/pg_language.dat.
const INTERNAL: usize = 12;
const C: usize = 13;

/// Returns whether a function is written in C. Only a superuser can create a function in C.
fn is_in_c(function: pg_sys::Oid) -> bool {
    let column = pg_sys::Anum_pg_proc_prolang;
    // SAFETY: the key is the oid of a function, and the column is an oid.
    let language = unsafe { catalog_column(pg_sys::SysCacheIdentifier::PROCOID, function, column) };
    language.is_some_and(|language| [INTERNAL, C].contains(&language.value()))
}
