//! Writes and parses integers as decimal text. This module does not write with `core::fmt`, because
//! `core::fmt` is slower and every entry has several integers.

use crate::sink::Sink;

/// Appends `value`, padded with leading zeros to at least `width` digits.
pub(crate) fn write_padded(out: &mut impl Sink, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while value != 0 {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.append(&digits[start.min(digits.len() - width)..]);
}

/// Appends `value` in decimal.
pub(crate) fn write_u64(out: &mut impl Sink, value: u64) {
    write_padded(out, value, 1);
}

/// Appends `value` in decimal.
pub fn write_i64(out: &mut impl Sink, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    write_padded(out, value.unsigned_abs(), 1);
}

/// Parses a number that is written in ASCII digits, without a sign and without leading zeros.
/// Returns None for any other text.
pub(crate) fn parse_u64(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    // `parse` refuses an empty text, and a number that exceeds `u64`.
    if canonical { text.parse().ok() } else { None }
}

/// Parses an integer that is written without a plus sign and without leading zeros. Returns None
/// for any other text.
pub fn parse_integer<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_core_writes_it(n in any::<i64>(), small in -1000..1000i64, width in 1..=20usize) {
            for n in [n, small, 0, i64::MIN, i64::MAX] {
                let mut out = Vec::new();
                write_i64(&mut out, n);
                out.push(b' ');
                write_u64(&mut out, n as u64);
                out.push(b' ');
                write_padded(&mut out, n.unsigned_abs(), width);
                let expected = format!("{n} {} {:0width$}", n as u64, n.unsigned_abs());
                prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }
    #[test]
    fn one_spelling() {
        assert_eq!(parse_u64("0"), Some(0));
        assert_eq!(parse_u64("10"), Some(10));
        assert_eq!(parse_u64("18446744073709551615"), Some(u64::MAX));
        for text in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            "-0",
            " 1",
            "1 ",
            "1.0",
            "1_0",
            "0x1",
            "18446744073709551616",
            "١",
        ] {
            assert_eq!(parse_u64(text), None, "{text}");
        }
    }
}
