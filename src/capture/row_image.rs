//! Deforms a row and writes its values as JSON.

use super::row_layout::{Column, RowLayout};
use crate::pg::{NotWritten, ServerError, Text, TextWriter, detoasted};
use ledger::Sink;
use pgrx::pg_sys;
use std::rc::Rc;

/// A tuple, with its row type and layout.
pub struct RowVersion {
    /// The row.
    pub tuple: pg_sys::HeapTuple,
    /// The tuple's row type.
    pub descriptor: pg_sys::TupleDesc,
    /// The layout of the tuple's relation.
    pub layout: Rc<RowLayout>,
}

/// The form in which a column's value is written in the text of a row.
#[derive(Clone, Copy)]
pub struct Place {
    /// Whether the column's value is percent-encoded because its bytes are not valid text.
    pub is_encoded: bool,
}

/// The way in which the values of a row are written.
#[derive(Clone, Copy)]
enum Mode {
    /// All values go straight into the row's text, and the whole text is checked for invalid bytes
    /// at the end. Almost no row contains invalid bytes.
    Together,
    /// Each value goes into a text of its own, so that the values with invalid bytes can be found.
    Apart,
}

/// A deformed tuple, whose buffers are reused for the next tuple.
#[derive(Default)]
pub struct RowImage {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl RowImage {
    /// Deforms `tuple` into this image.
    ///
    /// # Safety
    /// `tuple` must be a tuple of `descriptor`'s row type, and live as long as this image is used.
    pub unsafe fn take(&mut self, tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) {
        // SAFETY: the buffers are as long as the row type, as heap_deform_tuple requires.
        unsafe {
            let attributes = (*descriptor).natts as usize;
            self.values.resize(attributes, pg_sys::Datum::from(0));
            self.nulls.resize(attributes, true);
            pg_sys::heap_deform_tuple(
                tuple,
                descriptor,
                self.values.as_mut_ptr(),
                self.nulls.as_mut_ptr(),
            );
        }
    }

    /// Returns the column's value, or `None` for NULL.
    fn value(&self, column: &Column) -> Option<pg_sys::Datum> {
        (!self.nulls[column.index]).then(|| self.values[column.index])
    }

    /// Returns whether a boolean column is true.
    pub fn is_true(&self, column: &Column) -> bool {
        self.value(column).is_some_and(|value| value.value() as u8 != 0)
    }

    /// Appends one column's value to `out`. Returns whether the value is percent-encoded.
    ///
    /// # Safety
    /// The image must be of a row of the column's relation.
    unsafe fn write_value(&self, out: &mut TextWriter, column: &Column, mode: Mode) -> bool {
        match (self.value(column), mode) {
            (None, _) => out.append(b"null"),
            // SAFETY: the encoder was made for this column, and `value` is from this column.
            (Some(value), Mode::Together) => unsafe { column.encoder.write(out, value) },
            (Some(value), Mode::Apart) => {
                let mut apart = TextWriter::apart();
                // SAFETY: the encoder was made for this column, and `value` is a value of this
                // column.
                unsafe { column.encoder.write(&mut apart, value) };
                return !out.append_value(&apart);
            }
        }
        false
    }

    /// Writes a JSON object with the values of `columns`, which must be in canonical order. Fills
    /// `places` with one element for each column that was written. Returns whether any value is
    /// percent-encoded.
    ///
    /// # Safety
    /// The image must be of a row of the columns' relation.
    pub unsafe fn write_object<'p>(
        &self,
        text: &mut Text,
        columns: impl Iterator<Item = &'p Column> + Clone,
        places: &mut Vec<Place>,
    ) -> Result<bool, ServerError> {
        in_either_mode(text, |out, mode| {
            places.clear();
            let mut separator = b'{';
            for column in columns.clone() {
                out.push(separator);
                separator = b',';
                out.append(&column.member);
                // SAFETY: the image is a row of the columns' relation (see # Safety).
                let is_encoded = unsafe { self.write_value(out, column, mode) };
                places.push(Place { is_encoded });
                if out.has_overflowed() {
                    break;
                }
            }
            if separator == b'{' {
                out.push(b'{');
            }
            out.push(b'}');
            places.iter().any(|place| place.is_encoded)
        })
    }

    /// Writes a JSON object with the new values of the columns that an UPDATE changed. This image
    /// is the old row, and `new` is the image of the new row. `columns` contains pairs: a column of
    /// the old row's layout, and the same column of the new row's layout. Returns the positions in
    /// `columns` of the values that are percent-encoded.
    ///
    /// A column counts as changed if the bytes of its old and new value differ. Two different
    /// values can have the same JSON, and every change must be recorded. For example, two json
    /// values with the same canonical JSON can differ in white space or in a hidden duplicate key.
    /// Two arrays with the same JSON can differ in their bounds, and the floats −0 and 0 have the
    /// same JSON.
    ///
    /// # Safety
    /// The images must be of rows of the columns' relations.
    pub unsafe fn write_changes<'p>(
        &self,
        text: &mut Text,
        columns: impl Iterator<Item = (&'p Column, &'p Column)> + Clone,
        new: &RowImage,
    ) -> Result<Vec<usize>, ServerError> {
        in_either_mode(text, |out, mode| {
            let mut encoded = Vec::new();
            out.push(b'{');
            let empty = out.len();
            for (index, (old_column, column)) in columns.clone().enumerate() {
                // SAFETY: both images are rows of the columns' relations (see # Safety).
                if unsafe { same(column, self.value(old_column), new.value(column)) } {
                    continue;
                }
                if out.len() > empty {
                    out.push(b',');
                }
                out.append(&column.member);
                // SAFETY: `new` is an image of a row of the column's relation (see # Safety).
                if unsafe { new.write_value(out, column, mode) } {
                    encoded.push(index);
                }
                if out.has_overflowed() {
                    break;
                }
            }
            out.push(b'}');
            encoded
        })
    }
}

/// Calls `write` in `Mode::Together`, which writes all values straight into one text. If this text
/// contains invalid bytes, calls `write` a second time in `Mode::Apart`, which first writes each
/// value into a text of its own.
fn in_either_mode<R>(
    text: &mut Text,
    mut write: impl FnMut(&mut TextWriter, Mode) -> R,
) -> Result<R, ServerError> {
    match text.write(|out| Ok(write(out, Mode::Together))) {
        Err(NotWritten::NotText) => Ok(text.write(|out| Ok(write(out, Mode::Apart)))?),
        result => Ok(result?),
    }
}

/// Returns whether two values of a column have the same bytes.
///
/// # Safety
/// `old` and `new` must be values of the column.
unsafe fn same(column: &Column, old: Option<pg_sys::Datum>, new: Option<pg_sys::Datum>) -> bool {
    let (old, new) = match (old, new) {
        (None, None) => return true,
        (Some(old), Some(new)) => (old, new),
        _ => return false,
    };
    if column.by_value {
        return old == new;
    }
    // SAFETY: `length` of the column tells how to read its values: as values of a fixed length, a C
    // string (-2) or a varlena (-1). For two varlenas that are stored out of line, the code
    // compares the TOAST pointers first. An UPDATE keeps the TOAST pointers of columns that it does
    // not change.
    unsafe {
        match column.length {
            -2 => {
                std::ffi::CStr::from_ptr(old.cast_mut_ptr())
                    == std::ffi::CStr::from_ptr(new.cast_mut_ptr())
            }
            -1 => {
                let stored = |datum: pg_sys::Datum| {
                    let value = datum.cast_mut_ptr::<pg_sys::varlena>();
                    std::slice::from_raw_parts(
                        value.cast::<u8>().cast_const(),
                        pgrx::varlena::varsize_any(value),
                    )
                };
                stored(old) == stored(new)
                    || (pg_sys::toast_raw_datum_size(old) == pg_sys::toast_raw_datum_size(new)
                        && detoasted(old) == detoasted(new))
            }
            length => {
                let bytes = |datum: pg_sys::Datum| {
                    std::slice::from_raw_parts(
                        datum.cast_mut_ptr::<u8>().cast_const(),
                        length as usize,
                    )
                };
                bytes(old) == bytes(new)
            }
        }
    }
}
