//! Decimal text of integers into a buffer, without the machinery of `core::fmt`: several for every entry.

/// Appends `value`, with zeros in front up to `width` digits.
pub(crate) fn write_padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while value != 0 {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&digits[start.min(digits.len() - width)..]);
}

/// Appends `value`.
pub(crate) fn write_u64(out: &mut Vec<u8>, value: u64) {
    write_padded(out, value, 1);
}

/// Appends `value`.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    write_padded(out, value.unsigned_abs(), 1);
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
}
