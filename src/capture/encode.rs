//! Writes a column value as canonical JSON. The JSON equals the result of PostgreSQL's `to_jsonb`
//! under fixed output settings, and does not depend on the settings of the session.
//!
//! Values of common types, for example integers, are written straight from their datum. Values of
//! all other types go through PostgreSQL's `to_jsonb`, so that lead_audit defines no JSON form of
//! its own for arrays, composites and types of extensions.

use super::foreign_code::ForeignCasts;
use super::jsonb;
use super::numeric::write_numeric;
use super::output_settings::OutputSettings;
use crate::pg::{OutputFunction, TextWriter, call_foreign, detoasted, output_text};
use ledger::time::write_timestamp;
use ledger::{Sink, write_i64, write_uuid};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ops::Range;

/// The way in which values of a type are written as JSON.
pub enum Encoder {
    /// boolean
    Bool,
    /// smallint
    Int2,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// text, varchar and char(n), whose bytes become a JSON string
    Text,
    /// uuid
    Uuid,
    /// bytea, as hexadecimal
    Bytea,
    /// numeric
    Numeric,
    /// real
    Float4,
    /// double precision
    Float8,
    /// date, timestamp and timestamptz, as ISO 8601. timestamptz is written in UTC.
    DateTime(pg_sys::Oid),
    /// jsonb
    Jsonb,
    /// Any other type, whose values PostgreSQL's to_jsonb writes.
    ToJsonb {
        /// The call information (`FmgrInfo`) for to_jsonb, which includes the type of the argument.
        call: Box<pg_sys::FmgrInfo>,
        /// Whether values of the type can contain money. The text of money depends on lc_monetary.
        monetary: bool,
        /// The casts to json of the type and of the types within it. `None` if all these types are
        /// built in, because only a superuser can define a cast of a built-in type to json.
        casts: Option<ForeignCasts>,
    },
}

impl Encoder {
    /// Returns whether writing a value can raise an error. A user-defined cast can raise an error.
    /// PostgreSQL itself raises an error for a value that is nested too deeply.
    pub fn may_raise(&self) -> bool {
        matches!(self, Encoder::ToJsonb { .. } | Encoder::Jsonb)
    }

    /// Appends `datum` as JSON to `out`.
    ///
    /// # Safety
    /// `datum` must be a non-NULL value of the type that the encoder was made for.
    pub unsafe fn write(&self, out: &mut TextWriter, datum: pg_sys::Datum) {
        // SAFETY: `datum` is of the encoder's type (see # Safety), and each arm reads the datum as
        // this type requires.
        unsafe {
            match self {
                Encoder::Bool => {
                    out.append(if datum.value() as u8 != 0 { b"true" } else { b"false" })
                }
                Encoder::Int2 => write_i64(out, i64::from(datum.value() as i16)),
                Encoder::Int4 => write_i64(out, i64::from(datum.value() as i32)),
                Encoder::Int8 => write_i64(out, datum.value() as i64),
                Encoder::Text => out.append_json_string(detoasted(datum)),
                Encoder::Uuid => {
                    out.push(b'"');
                    write_uuid(out, &*datum.cast_mut_ptr::<[u8; 16]>());
                    out.push(b'"');
                }
                Encoder::Bytea => write_bytea(out, detoasted(datum)),
                Encoder::Numeric => write_numeric(out, datum),
                Encoder::Float4 => write_float(
                    out,
                    f64::from(f32::from_bits(datum.value() as u32)),
                    datum,
                    pg_sys::float4out,
                ),
                Encoder::Float8 => {
                    write_float(out, f64::from_bits(datum.value() as u64), datum, pg_sys::float8out)
                }
                Encoder::DateTime(type_oid) => write_date_time(out, datum, *type_oid),
                Encoder::Jsonb => {
                    jsonb::write(out, pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast())
                }
                Encoder::ToJsonb { call, monetary, casts: None } => {
                    write_to_jsonb(out, datum, call, *monetary)
                }
                Encoder::ToJsonb { call, monetary, casts: Some(casts) } => {
                    casts.run(|| write_to_jsonb(out, datum, call, *monetary));
                }
            }
        }
    }
}

fn write_bytea(out: &mut TextWriter, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len().saturating_mul(2));
    if out.has_overflowed() {
        return;
    }
    out.append(br#""\\x"#);
    for byte in bytes {
        out.append(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
    }
    out.push(b'"');
}

/// Writes a float in the form of to_jsonb. Converts the float to the shortest text that identifies
/// its value, and converts this text to numeric.
///
/// # Safety
/// `datum` must be of the type whose output function is `output`.
unsafe fn write_float(
    out: &mut TextWriter,
    value: f64,
    datum: pg_sys::Datum,
    output: OutputFunction,
) {
    if value == 0.0 {
        // to_jsonb writes −0 as 0 too, because numeric has no −0.
        return out.push(b'0');
    }
    // SAFETY: `datum` is of the type of `output` (see # Safety). numeric_in takes a C string, an
    // oid that it ignores, and -1 for any precision.
    unsafe {
        let text = {
            let _settings = OutputSettings::new();
            output_text(output, datum)
        };
        if !value.is_finite() {
            return out.append_json_string(text);
        }
        let arguments = [
            pg_sys::Datum::from(text.as_ptr()),
            pg_sys::Datum::from(0),
            pg_sys::Datum::from(-1_i32),
        ];
        match pgrx::direct_function_call_as_datum(pg_sys::numeric_in, &arguments.map(Some)) {
            Some(numeric) => write_numeric(out, numeric),
            None => out.append(b"null"),
        }
    }
}

/// The timestamps of the years 1 to 9999, in microseconds since 2000-01-01. The texts of these
/// timestamps all have the same form, with four digits for the year.
const FOUR_DIGIT_YEARS: Range<i64> = -63_082_281_600_000_000..252_455_616_000_000_000;

/// # Safety
/// `type_oid` must be date, timestamp or timestamptz, and `datum` a value of that type.
unsafe fn write_date_time(out: &mut TextWriter, datum: pg_sys::Datum, type_oid: pg_sys::Oid) {
    const UTC: i32 = 0;
    let zone: Option<&[u8]> = match type_oid {
        pg_sys::TIMESTAMPOID => Some(b""),
        pg_sys::TIMESTAMPTZOID => Some(b"+00:00"),
        _ => None,
    };
    let micros = datum.value() as i64;
    if let Some(zone) = zone
        && FOUR_DIGIT_YEARS.contains(&micros)
    {
        out.push(b'"');
        write_timestamp(out, micros);
        // PostgreSQL omits the trailing zeros of a fraction of a second, and the whole fraction if
        // it is zero.
        let written = out.bytes();
        let last = written.iter().rposition(|byte| !matches!(byte, b'Z' | b'0')).unwrap_or(0);
        let end = if written.get(last) == Some(&b'.') { last } else { last + 1 };
        out.truncate(end);
        out.append(zone);
        out.push(b'"');
        return;
    }
    let mut buffer = [0_u8; pg_sys::MAXDATELEN as usize + 1];
    // SAFETY: the buffer has the size that JsonEncodeDateTime() requires. JsonEncodeDateTime()
    // leaves a C string in the buffer.
    let text = unsafe {
        pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr().cast(), datum, type_oid, &UTC);
        CStr::from_ptr(buffer.as_ptr().cast())
    };
    out.push(b'"');
    out.append(text.to_bytes());
    out.push(b'"');
}

/// # Safety
/// `datum` must be of the type that `call` was made for.
unsafe fn write_to_jsonb(
    out: &mut TextWriter,
    datum: pg_sys::Datum,
    call: &pg_sys::FmgrInfo,
    monetary: bool,
) {
    // SAFETY: `datum` is of the type that `call` was made for. A function call can change only the
    // field fn_extra of its FmgrInfo, and to_jsonb does not use fn_extra. to_jsonb returns a new
    // jsonb in the current memory context. A new jsonb is not toasted.
    let value = unsafe {
        let _settings = if monetary { OutputSettings::with_money() } else { OutputSettings::new() };
        call_foreign(call, datum)
    };
    // SAFETY: `value` is the new jsonb that to_jsonb returned.
    unsafe { jsonb::write(out, value.cast_mut_ptr()) }
}
