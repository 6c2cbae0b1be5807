//! A row, taken apart and written as JSON.

use super::plan::Column;
use crate::server::{ServerError, Text, detoasted};
use pgrx::{PgSqlErrorCode, pg_sys};

/// Longest JSON of a row: what jsonb can hold, so that lead_audit.log can show it.
const ROW_LIMIT: usize = super::encode::JSONB_LIMIT;

/// A tuple taken apart. The buffers are used again for the next one.
#[derive(Default)]
pub struct RowImage {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl RowImage {
    /// Takes `tuple` apart.
    ///
    /// # Safety
    /// `tuple` must be a tuple of `descriptor`'s row type, and outlive the use of this image.
    pub unsafe fn take(&mut self, tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) {
        // SAFETY: the buffers are made as long as the row type, which is what heap_deform_tuple fills.
        unsafe {
            let attributes = (*descriptor).natts as usize;
            self.values.resize(attributes, pg_sys::Datum::from(0));
            self.nulls.resize(attributes, true);
            pg_sys::heap_deform_tuple(tuple, descriptor, self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
        }
    }

    /// The column's value, or `None` for NULL.
    fn value(&self, column: &Column) -> Option<pg_sys::Datum> {
        (!self.nulls[column.index]).then(|| self.values[column.index])
    }

    /// Whether a boolean column is true.
    pub fn is_true(&self, column: &Column) -> bool {
        self.value(column).is_some_and(|value| value.value() as u8 != 0)
    }

    /// Appends one column's value.
    ///
    /// # Safety
    /// The image must be of a row of the column's relation.
    unsafe fn write_value(&self, out: &mut Vec<u8>, column: &Column) -> Result<(), ServerError> {
        match self.value(column) {
            // SAFETY: the encoder was made for this column.
            Some(value) => unsafe { column.encoder.write(out, value) },
            None => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }

    /// Writes the object of the given columns, which must be in canonical order, and notes where each value is.
    ///
    /// # Safety
    /// The image must be of a row of the columns' relation.
    pub unsafe fn write_object<'p>(
        &self,
        out: &mut Text,
        columns: impl Iterator<Item = &'p Column>,
        mut each: impl FnMut(usize, usize),
    ) -> Result<(), ServerError> {
        let out = out.buffer();
        let mut separator = b'{';
        for column in columns {
            out.push(separator);
            separator = b',';
            out.extend_from_slice(&column.member);
            let start = out.len();
            // SAFETY: as the caller promises.
            unsafe { self.write_value(out, column)? };
            each(start, out.len());
            if out.len() > ROW_LIMIT {
                return Err(too_large(out.len()));
            }
        }
        if separator == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes the columns of `new` that differ from this, the old row, as an object. `columns` are the columns of both rows, `old`
    /// is this row's JSON and `old_values` says where in its buffer each column's value is.
    ///
    /// A column whose stored bytes differ but whose JSON does not (white space in a json value, −0 for 0) did not change
    /// in any way that an entry can show.
    ///
    /// # Safety
    /// The images must be of rows of the columns' relations.
    pub unsafe fn write_changes<'p>(
        &self,
        out: &mut Text,
        columns: impl Iterator<Item = (&'p Column, &'p Column)>,
        new: &RowImage,
        old: &mut Text,
        old_values: &[(usize, usize)],
    ) -> Result<(), ServerError> {
        let old: &[u8] = old.buffer();
        let out = out.buffer();
        out.push(b'{');
        let empty = out.len();
        for ((old_column, column), &(start, end)) in columns.zip(old_values) {
            // SAFETY: as the caller promises.
            if unsafe { same(column, self.value(old_column), new.value(column)) } {
                continue;
            }
            let before = out.len();
            if before > empty {
                out.push(b',');
            }
            out.extend_from_slice(&column.member);
            let value = out.len();
            // SAFETY: as the caller promises.
            unsafe { new.write_value(out, column)? };
            if out[value..] == old[start..end] && column.encoder.tells_apart() {
                out.truncate(before);
            } else if out.len() > ROW_LIMIT {
                return Err(too_large(out.len()));
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// Whether two values of a column are the same bytes.
///
/// # Safety
/// Both must be values of the column.
unsafe fn same(column: &Column, old: Option<pg_sys::Datum>, new: Option<pg_sys::Datum>) -> bool {
    let (old, new) = match (old, new) {
        (None, None) => return true,
        (Some(old), Some(new)) => (old, new),
        _ => return false,
    };
    if column.by_value {
        return old == new;
    }
    // SAFETY: the column's length tells how its values are read: fixed, a C string (-2) or a varlena (-1). Of two
    // varlenas that are out of line the pointers are compared first: an UPDATE keeps those that it leaves alone.
    unsafe {
        match column.length {
            -2 => std::ffi::CStr::from_ptr(old.cast_mut_ptr()) == std::ffi::CStr::from_ptr(new.cast_mut_ptr()),
            -1 => {
                let stored = |datum: pg_sys::Datum| {
                    let value = datum.cast_mut_ptr::<pg_sys::varlena>();
                    std::slice::from_raw_parts(value.cast::<u8>().cast_const(), pgrx::varlena::varsize_any(value))
                };
                stored(old) == stored(new)
                    || (pg_sys::toast_raw_datum_size(old) == pg_sys::toast_raw_datum_size(new)
                        && detoasted(old) == detoasted(new))
            }
            length => {
                let bytes =
                    |datum: pg_sys::Datum| std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>().cast_const(), length as usize);
                bytes(old) == bytes(new)
            }
        }
    }
}

fn too_large(length: usize) -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        message: format!("the row's JSON is longer than an audit entry can hold ({length} of {ROW_LIMIT} bytes)"),
        detail: None,
    }
}
