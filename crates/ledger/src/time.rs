//! Formats a timestamp for the preimage: in UTC, in the proleptic Gregorian calendar, with
//! microseconds, independent of the session's settings.
//!
//! The function can format every `i64`, so a preimage can be written for every stored timestamp.

use crate::decimal::write_u64;
use crate::sink::Sink;

/// The value that PostgreSQL stores for the timestamp `infinity`.
pub const INFINITY: i64 = i64::MAX;
/// The value that PostgreSQL stores for the timestamp `-infinity`.
pub const NEGATIVE_INFINITY: i64 = i64::MIN;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// 2000-01-01, PostgreSQL's epoch, in days since 0000-03-01.
const EPOCH: i64 = 730_425;
const DAYS_PER_400_YEARS: i64 = 146_097;

/// Appends `YYYY-MM-DDTHH:MM:SS.ffffffZ` (no quotes) for `micros` microseconds since
/// 2000-01-01T00:00:00Z.
///
/// The year has at least four digits, and more if necessary. Years before 1 are astronomical:
/// `0000` is 1 BC, and `-0001` is 2 BC. The two infinities become `infinity` and `-infinity`.
pub fn write_timestamp(out: &mut impl Sink, micros: i64) {
    match micros {
        INFINITY => return out.append(b"infinity"),
        NEGATIVE_INFINITY => return out.append(b"-infinity"),
        _ => {}
    }
    let (year, month, day) = civil(micros.div_euclid(MICROS_PER_DAY));
    let micros = micros.rem_euclid(MICROS_PER_DAY) as u64;
    let seconds = micros / 1_000_000;
    if year < 0 {
        out.push(b'-');
    }
    // The code writes the timestamp into an array and appends the array in one piece. Speed
    // matters, because every entry has a timestamp, and the row of an entry can have many more
    // timestamps.
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let short_year = year.unsigned_abs() < 10_000;
    put(&mut text[..4], if short_year { year.unsigned_abs() } else { 0 });
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], seconds / 3600);
    put(&mut text[14..16], seconds / 60 % 60);
    put(&mut text[17..19], seconds % 60);
    put(&mut text[20..26], micros % 1_000_000);
    if short_year {
        out.append(&text);
    } else {
        write_u64(out, year.unsigned_abs());
        out.append(&text[4..]);
    }
}

/// Overwrites `digits` with the last decimal digits of `value`.
#[inline(always)]
fn put(digits: &mut [u8], value: u64) {
    let mut value = value as u32;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Returns the year, month and day of `day`, which is the number of days since 2000-01-01. The
/// computation uses years that begin in March. The leap day is the last day of a year that begins
/// in March, so no table of month lengths is necessary.
fn civil(day: i64) -> (i64, u64, u64) {
    let day = day + EPOCH;
    let era = day.div_euclid(DAYS_PER_400_YEARS);
    let day = day.rem_euclid(DAYS_PER_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month as u64, day as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(micros: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(&mut out, micros);
        String::from_utf8(out).unwrap()
    }

    /// Each pair is the output of PostgreSQL 15 for `timestamptz_send(t)` and for `t AT TIME ZONE
    /// 'UTC'`. Years BC in the second output were converted to astronomical years.
    #[test]
    fn known_instants() {
        for (micros, text) in [
            (0, "2000-01-01T00:00:00.000000Z"),
            (-1, "1999-12-31T23:59:59.999999Z"),
            (-946_684_800_000_000, "1970-01-01T00:00:00.000000Z"),
            (762_226_245_123_456, "2024-02-26T01:30:45.123456Z"),
            (762_480_000_000_000, "2024-02-29T00:00:00.000000Z"),
            (-63_082_281_600_000_000, "0001-01-01T00:00:00.000000Z"),
            (-63_082_281_600_000_001, "0000-12-31T23:59:59.999999Z"),
            (-63_113_904_000_000_001, "-0001-12-31T23:59:59.999999Z"),
            (252_455_616_000_000_000, "10000-01-01T00:00:00.000000Z"),
            (-211_813_488_000_000_000, "-4713-11-24T00:00:00.000000Z"),
            (9_223_371_331_199_999_999, "294276-12-31T23:59:59.999999Z"),
            (i64::MAX, "infinity"),
            (i64::MIN, "-infinity"),
        ] {
            assert_eq!(written(micros), text);
        }
    }

    #[test]
    fn every_day_of_eight_hundred_years_follows_the_one_before() {
        let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for n in -146_097..146_097 {
            assert_eq!(civil(n), (year, month, day));
            let length = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    proptest! {
        #[test]
        fn different_instants_have_different_texts(a in any::<i64>(), step in 1..10_000_000i64) {
            prop_assert_ne!(written(a), written(a.wrapping_add(step)));
        }

        #[test]
        fn four_hundred_years_change_only_the_year(
            a in -100_000_000_000_000_000..100_000_000_000_000_000i64,
        ) {
            let (early, late) = (written(a), written(a + DAYS_PER_400_YEARS * MICROS_PER_DAY));
            let split = |s: &str| {
                let at = s[1..].find('-').unwrap() + 1;
                (s[..at].parse::<i64>().unwrap(), s[at..].to_owned())
            };
            let ((early_year, early_rest), (late_year, late_rest)) = (split(&early), split(&late));
            prop_assert_eq!(early_rest, late_rest);
            prop_assert_eq!(early_year + 400, late_year);
        }
    }
}
