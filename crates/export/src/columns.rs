//! Reads the columns of an entry from its preimage. Checks that the preimage is valid for a row of
//! `lead_audit.entry`, and that the stored checksum matches the preimage. Verification runs this
//! code once for each entry, so the code neither allocates memory nor builds a tree of JSON values.

use ledger::canonical::members;
use ledger::{ColumnType, Entry, EntryColumn, FORMAT, Fault, KeyChange, time};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// A fault of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// An unknown column. This version of the program cannot judge an entry that has an unknown
    /// column.
    #[error("it has a column {0:?}, which format {FORMAT} does not have")]
    UnknownColumn(String),
    /// A column that is never NULL is missing.
    #[error("it has no {0}")]
    NoColumn(&'static str),
    /// A value that is invalid for its column's type.
    #[error("its {0} is not of that column's type")]
    Type(&'static str),
    /// A fault found by comparing the columns with each other and with the checksum.
    #[error(transparent)]
    Columns(#[from] Fault),
}

impl EntryFault {
    /// Returns whether the fault is only an unknown column or an unknown format. A later version of
    /// the program can know this column or format.
    pub fn is_unknown(&self) -> bool {
        matches!(self, EntryFault::UnknownColumn(_) | EntryFault::Columns(Fault::UnknownFormat(_)))
    }
}

/// The columns that a preimage contains, in the order of the preimage.
const COLUMNS: [EntryColumn; EntryColumn::COUNT - 1] = EntryColumn::IN_PREIMAGE;

/// The verdict on an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The entry's id. The value is None if the preimage has no valid id.
    pub id: Option<i64>,
    /// The SHA-256 of the preimage.
    pub computed: [u8; 32],
    /// The first fault of the entry, in the order of `docs/FORMAT.md`, section 7.
    pub fault: Option<EntryFault>,
    /// The change of the log's key or origin that the entry records. The value is None if the entry
    /// has a fault or is not a KEY entry.
    pub key_change: Option<Box<KeyChange>>,
}

/// Judges an entry by its preimage and its stored checksum. The preimage must be a canonical JSON
/// object. Reports only the first fault, in the order of `docs/FORMAT.md`, section 7. Empties the
/// buffer `scratch`, which the caller can reuse for the next entry.
pub fn judge_entry(preimage: &str, checksum: &[u8; 32], scratch: &mut Vec<u8>) -> Judged {
    judge(preimage, checksum, scratch).0
}

/// Judges the entry whose preimage is the canonical JSON object at the beginning of `preimage`.
/// Returns None if more text follows after the object.
pub(crate) fn judge_whole_entry(
    preimage: &str,
    checksum: &[u8; 32],
    scratch: &mut Vec<u8>,
) -> Option<Judged> {
    let (judged, length) = judge(preimage, checksum, scratch);
    (length == preimage.len()).then_some(judged)
}

/// Judges an entry. Returns the verdict, and the length of the entry's JSON object in bytes.
fn judge(preimage: &str, checksum: &[u8; 32], scratch: &mut Vec<u8>) -> (Judged, usize) {
    let computed: [u8; 32] = Sha256::digest(preimage.as_bytes()).into();
    let mut entry = Entry { format: 0, ..Entry::default() };
    let Columns { id, fault, length } = read_columns(preimage, &mut entry);
    let details = entry.details.filter(|_| entry.operation == KeyChange::OPERATION);
    let fault = match fault {
        // In every format the checksum covers the preimage. A checksum that does not match shows
        // that the entry was changed, even if only its `format` was changed.
        _ if computed != *checksum => Some(Fault::Checksum { stored: *checksum, computed }.into()),
        // If the format is unknown, this version cannot interpret the other columns.
        _ if entry.format != FORMAT && format_of(preimage).is_some() => {
            Some(Fault::UnknownFormat(entry.format).into())
        }
        Some(fault) => Some(fault),
        None => entry.verify_key_hashes(scratch).err().map(Into::into),
    };
    let key_change =
        details.filter(|_| fault.is_none()).and_then(KeyChange::of_details).map(Box::new);
    (Judged { id, computed, fault, key_change }, length)
}

/// The result of [`read_columns`].
struct Columns {
    id: Option<i64>,
    /// The first fault of the columns.
    fault: Option<EntryFault>,
    /// Length of the entry's JSON object in bytes.
    length: usize,
}

fn format_of(preimage: &str) -> Option<i16> {
    members(preimage).find(|(name, _)| *name == "format").and_then(|(_, value)| value.parse().ok())
}

/// Reads the columns of an entry from its preimage. Stores in `entry` the columns that the further
/// checks need.
fn read_columns<'a>(preimage: &'a str, entry: &mut Entry<'a>) -> Columns {
    let (mut id, mut fault) = (None, None);
    // The empty object `{}` has two bytes.
    let mut length = 2;
    // An unknown column must not hide a fault, so a later fault replaces the unknown column.
    let is_open = |found: &Option<EntryFault>| found.as_ref().is_none_or(EntryFault::is_unknown);
    let missing = |found: &mut Option<EntryFault>, skipped: &[EntryColumn]| {
        if let Some(column) = skipped.iter().find(|column| column.is_required())
            && is_open(found)
        {
            *found = Some(EntryFault::NoColumn(column.name()));
        }
    };
    let mut next = 0;
    for (name, value) in members(preimage) {
        // `value` is a slice of the preimage, so its address shows at which byte of the preimage
        // the value begins. The `1` counts the closing brace of the object.
        length = value.as_ptr() as usize - preimage.as_ptr() as usize + value.len() + 1;
        // A valid preimage has its members in the order of `COLUMNS`.
        let Some(ahead) = COLUMNS[next..].iter().position(|column| column.name() == name) else {
            if fault.is_none() {
                fault = Some(EntryFault::UnknownColumn(crate::unescape(name).unwrap_or_default()));
            }
            continue;
        };
        missing(&mut fault, &COLUMNS[next..next + ahead]);
        let column = COLUMNS[next + ahead];
        next += ahead + 1;
        if !is_of(column.column_type(), value) {
            if is_open(&fault) {
                fault = Some(EntryFault::Type(column.name()));
            }
            continue;
        }
        match column {
            EntryColumn::Id => id = value.parse().ok(),
            EntryColumn::Details => entry.details = Some(value),
            EntryColumn::Format => entry.format = value.parse().unwrap_or_default(),
            EntryColumn::KeyHash => entry.key_hash = value.parse().ok(),
            EntryColumn::PreviousKeyHash => entry.previous_key_hash = value.parse().ok(),
            // The checks only compare the operation with UPDATE and KEY, so an operation with
            // escapes need not be unescaped.
            EntryColumn::Operation => entry.operation = inside(value),
            EntryColumn::RowKey => entry.row_key = Some(value),
            EntryColumn::RowValues => entry.row_values = Some(value),
            EntryColumn::WatchId => entry.watch_id = uuid(inside(value)),
            _ => {}
        }
    }
    missing(&mut fault, &COLUMNS[next..]);
    Columns { id, fault, length }
}

/// Returns whether `value`, a canonical JSON value, is valid for a column of type `column_type`.
fn is_of(column_type: ColumnType, value: &str) -> bool {
    // `str::parse` accepts every canonical integer in the range of the type, and refuses fractions.
    match column_type {
        ColumnType::Int2 => value.parse::<i16>().is_ok(),
        ColumnType::Int4 => value.parse::<i32>().is_ok(),
        ColumnType::Int8 => value.parse::<i64>().is_ok(),
        ColumnType::Oid => value.parse::<u32>().is_ok(),
        ColumnType::Xid8 => value.parse::<u64>().is_ok(),
        ColumnType::Text => value.starts_with('"'),
        ColumnType::Json => value.starts_with('{'),
        ColumnType::Uuid => value.starts_with('"') && uuid(inside(value)).is_some(),
        ColumnType::Timestamptz => value.starts_with('"') && is_instant(inside(value)),
        // Only the checksum is a bytea, and the checksum is not part of the preimage.
        ColumnType::Bytea => false,
    }
}

/// Returns the text between the quotes of a JSON string.
fn inside(value: &str) -> &str {
    value.get(1..value.len().saturating_sub(1)).unwrap_or_default()
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = 0;
    if text.len() != 36 {
        return None;
    }
    for (i, byte) in text.bytes().enumerate() {
        let digit = match byte {
            b'-' if matches!(i, 8 | 13 | 18 | 23) => continue,
            _ if matches!(i, 8 | 13 | 18 | 23) => return None,
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        uuid[digits / 2] = uuid[digits / 2] << 4 | digit;
        digits += 1;
    }
    Some(uuid)
}

/// Returns whether a text is a timestamp in the form that the crate `ledger` writes.
fn is_instant(text: &str) -> bool {
    // Timestamps of the years 0000 to 9999 have the form YYYY-MM-DDTHH:MM:SS.ffffffZ. `is_instant`
    // checks timestamps of this form itself, because `instant` is slower.
    let Ok(bytes) = <&[u8; 27]>::try_from(text.as_bytes()) else { return instant(text).is_some() };
    let shape = b"dddd-dd-ddTdd:dd:dd.ddddddZ";
    if !bytes
        .iter()
        .zip(shape)
        .all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form })
    {
        return instant(text).is_some();
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'))
    };
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => 31,
    };
    (1..=12).contains(&month)
        && (1..=length).contains(&day)
        && number(11..13) < 24
        && number(14..16) < 60
        && number(17..19) < 60
}

/// Parses a timestamp to microseconds since the year 2000. Returns None if the text is
/// not exactly the text that the crate `ledger` writes for this timestamp.
pub(crate) fn instant(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(time::INFINITY),
        "-infinity" => return Some(time::NEGATIVE_INFINITY),
        _ => {}
    }
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.rsplitn(3, '-');
    let (day, month, year): (i128, i128, i128) =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let mut parts = clock.split([':', '.']);
    let mut next = || parts.next()?.parse::<i128>().ok();
    let (hour, minute, second, micro) = (next()?, next()?, next()?, next()?);
    if year.abs() > 1_000_000 || !(1..=12).contains(&month) {
        return None;
    }
    // Computes the days since 2000-01-01. In this computation years begin in March, as in the
    // inverse computation in the crate `ledger`.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 730_425;
    let micros = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micro;
    let micros = i64::try_from(micros).ok()?;
    let mut written = Vec::with_capacity(32);
    time::write_timestamp(&mut written, micros);
    (written == text.as_bytes()).then_some(micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn preimage(entry: &Entry) -> (String, [u8; 32]) {
        let mut text = Vec::new();
        entry.write_preimage(&mut text);
        (String::from_utf8(text).unwrap(), entry.checksum(&mut Vec::new()))
    }

    fn full() -> Entry<'static> {
        let watch_id = *b"0123456789abcdef";
        let key = r#"{"id":2}"#;
        Entry {
            id: -5,
            txid: u64::MAX,
            watch_id: Some(watch_id),
            key_hash: Some(ledger::key_hash(&watch_id, key.as_bytes())),
            previous_key_hash: Some(ledger::key_hash(&watch_id, br#"{"id":1}"#)),
            relation: Some(u32::MAX),
            backend_pid: Some(-1),
            table_schema: Some("s"),
            table_name: Some("t\"\n"),
            operation: "UPDATE",
            outcome: "ok",
            soft_delete: Some(""),
            row_key: Some(key),
            row_values: Some(r#"{"id":1}"#),
            changed_values: Some("{}"),
            details: Some("{}"),
            user_id: Some("u"),
            user_ip: Some("ip"),
            user_agent: Some("a"),
            request_id: Some("r"),
            db_session_user: Some("d"),
            db_current_user: Some("c"),
            client_addr: Some("::1"),
            application_name: Some("psql"),
            error_code: Some("0"),
            error_message: Some("m"),
            error_detail: Some("d"),
            statement: Some("s"),
            ..Entry::default()
        }
    }

    #[test]
    fn every_column_is_known() {
        let (text, checksum) = preimage(&full());
        let names: Vec<_> = members(&text).map(|(name, _)| name).collect();
        assert_eq!(names, COLUMNS.map(EntryColumn::name));
        assert_eq!(
            judge_entry(&text, &checksum, &mut Vec::new()),
            Judged { id: Some(-5), computed: checksum, fault: None, key_change: None }
        );
    }

    #[test]
    fn an_entry_without_what_can_be_null() {
        let (text, checksum) =
            preimage(&Entry { operation: "DDL", outcome: "ok", ..Entry::default() });
        assert_eq!(judge_entry(&text, &checksum, &mut Vec::new()).fault, None);
    }

    fn fault_of(text: &str) -> EntryFault {
        ledger::canonical::check(text.as_bytes()).unwrap();
        let checksum = Sha256::digest(text.as_bytes()).into();
        judge_entry(text, &checksum, &mut Vec::new())
            .fault
            .unwrap_or_else(|| panic!("no fault: {text}"))
    }

    #[test]
    fn each_column_has_its_type_and_each_that_must_be_there_is_missed() {
        let (text, _) = preimage(&full());
        for column in COLUMNS {
            let (name, column_type) = (column.name(), column.column_type());
            let (_, value) = members(&text).find(|(member, _)| *member == name).unwrap();
            let member = format!(r#""{name}":{value}"#);
            for wrong in ["1.5", "99999999999999999999", "true", "null", "[]", "\"2\"", "{}"] {
                let right = column_type == ColumnType::Text && wrong == "\"2\""
                    || column_type == ColumnType::Json && wrong == "{}";
                if right {
                    continue;
                }
                let changed = text.replace(&member, &format!(r#""{name}":{wrong}"#));
                assert_eq!(fault_of(&changed), EntryFault::Type(name), "{changed}");
            }
            let without =
                text.replace(&format!("{member},"), "").replace(&format!(",{member}"), "");
            if column.is_required() {
                assert_eq!(fault_of(&without), EntryFault::NoColumn(column.name()));
            }
        }
        assert_eq!(
            fault_of(&text.replace(r#""id":-5"#, r#""id":-5,"id2":1"#)),
            EntryFault::UnknownColumn("id2".into())
        );
        assert_eq!(
            fault_of(&text.replace(r#""format":1"#, r#""format":2"#)),
            Fault::UnknownFormat(2).into()
        );
        assert!(matches!(
            fault_of(&text.replace("\"UPDATE\"", "\"DELETE\"")),
            EntryFault::Columns(Fault::PreviousKeyHash { .. })
        ));
    }

    #[test]
    fn instants_have_one_text() {
        for text in [
            "2026-02-30T00:00:00.000000Z",
            "2026-02-03T04:05:06.7890Z",
            "2026-02-03T24:00:00.000000Z",
            "2026-02-03",
            "",
            "now",
            "+2026-02-03T04:05:06.789000Z",
            "2026-02-03T04:05:06.789000z",
            "02026-02-03T04:05:06.789000Z",
            "999999999999999999999-02-03T04:05:06.789000Z",
        ] {
            assert_eq!(instant(text), None, "{text}");
            assert!(!is_instant(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn instants_are_recognised_both_ways(
            text in "(0|1|2|9)[0-9]{3}-[01][0-9]-[0-3][0-9]\
                T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]\\.[0-9]{6}Z",
        ) {
            prop_assert_eq!(is_instant(&text), instant(&text).is_some());
        }

        #[test]
        fn instants_are_read_back(
            micros in any::<i64>(),
            near in -100_000_000_000_000_000..1_000_000_000_000_000_000i64,
        ) {
            for micros in [micros, near] {
                let mut text = Vec::new();
                time::write_timestamp(&mut text, micros);
                let text = std::str::from_utf8(&text).unwrap();
                prop_assert_eq!(instant(text), Some(micros));
                prop_assert!(is_instant(text));
            }
        }

        /// For an entry with a correct checksum, `judge_entry` and the crate `ledger` report the same
        /// fault, or both report no fault.
        #[test]
        fn as_ledger_judges(
            id in any::<i64>(),
            occurred_at in any::<i64>(),
            text in any::<String>(),
            backend_pid in any::<Option<i32>>(),
        ) {
            let entry = Entry {
                id,
                occurred_at,
                operation: &text,
                outcome: &text,
                statement: Some(&text),
                backend_pid,
                ..full()
            };
            let (preimage, checksum) = preimage(&entry);
            let judged = judge_entry(&preimage, &checksum, &mut Vec::new());
            prop_assert_eq!(judged.id, Some(id));
            let fault = entry.verify(&checksum, &mut Vec::new()).err();
            prop_assert_eq!(judged.fault, fault.map(EntryFault::Columns));
        }
    }
}
