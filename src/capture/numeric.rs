//! Writes a numeric's text straight from its stored bytes. The text equals the result of
//! PostgreSQL's numeric_out. numeric_out is slower than this module, because numeric_out allocates
//! memory for each value. Many tables have several numeric columns, so the time to write a numeric
//! matters.

use crate::pg::{TextWriter, detoasted, output_text};
use ledger::Sink;
use pgrx::pg_sys;

/// Writes a finite number as a JSON number, and NaN and the infinities as strings. The result is
/// that of to_jsonb.
///
/// # Safety
/// `datum` must be a numeric.
pub unsafe fn write_numeric(out: &mut TextWriter, datum: pg_sys::Datum) {
    // SAFETY: `datum` is a numeric (see # Safety).
    unsafe {
        if !write_finite(out, datum) {
            out.append_json_string(output_text(pg_sys::numeric_out, datum));
        }
    }
}

/// Appends the text of a finite numeric. Returns false and appends nothing for NaN and the
/// infinities.
///
/// # Safety
/// `numeric` must be a numeric.
unsafe fn write_finite(out: &mut TextWriter, numeric: pg_sys::Datum) -> bool {
    // SAFETY: `numeric` is a numeric (see # Safety). The detoasted value outlives `stored`.
    match Stored::read(unsafe { detoasted(numeric) }) {
        Some(stored) => {
            stored.write(out);
            true
        }
        None => false,
    }
}

/// The parts of a stored numeric (PostgreSQL, src/backend/utils/adt/numeric.c, "NumericData"). The
/// digits of a stored numeric have the base 10,000. The value of the first digit is the digit times
/// 10,000 to the power of `weight`. PostgreSQL does not store the leading and trailing zero digits.
struct Stored<'a> {
    negative: bool,
    weight: i32,
    /// The number of decimal digits after the decimal point.
    scale: usize,
    digits: &'a [u8],
}

impl<'a> Stored<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&header, rest) = bytes.split_first_chunk::<2>()?;
        let header = u16::from_ne_bytes(header);
        match header & 0xC000 {
            0xC000 => None, // NaN and the infinities
            0x8000 => {
                // The short form of a numeric has a single header word. The last seven bits of this
                // header word are the signed weight.
                let weight = i32::from(header & 0x3F) - i32::from(header & 0x40);
                let scale = usize::from((header & 0x1F80) >> 7);
                Some(Stored { negative: header & 0x2000 != 0, weight, scale, digits: rest })
            }
            sign => {
                let (&weight, digits) = rest.split_first_chunk::<2>()?;
                let weight = i32::from(i16::from_ne_bytes(weight));
                Some(Stored {
                    negative: sign != 0,
                    weight,
                    scale: usize::from(header & 0x3FFF),
                    digits,
                })
            }
        }
    }

    /// Returns the digit of base 10,000 that is multiplied by 10,000 to the power of `exponent`.
    fn digit(&self, exponent: i32) -> u16 {
        let digit = |index: usize| {
            self.digits.get(2 * index..2 * index + 2)?.try_into().ok().map(u16::from_ne_bytes)
        };
        usize::try_from(self.weight - exponent).ok().and_then(digit).unwrap_or(0)
    }

    fn write(&self, out: &mut TextWriter) {
        if self.negative {
            out.push(b'-');
        }
        let first = self.weight.max(0);
        let leading = four(self.digit(first));
        out.append(&leading[leading.iter().position(|&digit| digit != b'0').unwrap_or(3)..]);
        for exponent in (0..first).rev() {
            out.append(&four(self.digit(exponent)));
        }
        if self.scale > 0 {
            out.push(b'.');
            let end = out.len() + self.scale;
            for place in 1..=self.scale.div_ceil(4) as i32 {
                out.append(&four(self.digit(-place)));
            }
            out.truncate(end);
        }
    }
}

/// Splits a digit of base 10,000 into four decimal digits.
fn four(digit: u16) -> [u8; 4] {
    [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| b'0' + digit as u8)
}
