//! Ids of entries as ascending ranges: what a checkpoint took, what a gap is missing.

use crate::pg::ServerError;
use pgrx::PgSqlErrorCode;
use std::fmt::Write;

/// Consecutive ids, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The lowest.
    pub first: i64,
    /// The highest.
    pub last: i64,
}

impl IdRange {
    /// How many ids they are.
    pub fn len(self) -> u64 {
        self.last.abs_diff(self.first) + 1
    }
}

/// Ranges in ascending order that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdRanges(Vec<IdRange>);

impl IdRanges {
    /// Adds an id that is above all that are there.
    pub fn push(&mut self, id: i64) {
        self.push_range(IdRange { first: id, last: id });
    }

    /// Adds ids that are above all that are there. None, if the range is empty.
    pub fn push_range(&mut self, range: IdRange) {
        if range.first > range.last {
            return;
        }
        match self.0.last_mut() {
            Some(end) if end.last.checked_add(1) == Some(range.first) => end.last = range.last,
            _ => self.0.push(range),
        }
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[IdRange] {
        &self.0
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest id.
    pub fn last(&self) -> Option<i64> {
        self.0.last().map(|range| range.last)
    }

    /// The text of the int8multirange, as PostgreSQL itself would write it.
    pub fn to_multirange(&self) -> String {
        let mut text = String::from("{");
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            // Writing to a String does not fail.
            let _ = match range.last.checked_add(1) {
                Some(end) => write!(text, "{comma}[{},{end})", range.first),
                None => write!(text, "{comma}[{},{}]", range.first, range.last),
            };
        }
        text.push('}');
        text
    }

    /// Reads the text that PostgreSQL gives for an int8multirange without infinite bounds.
    pub fn from_multirange(text: &str) -> Result<Self, ServerError> {
        Self::parse(text).ok_or_else(|| ServerError {
            code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message: "ids in schema lead_audit are not what sealing has written".to_owned(),
            detail: Some(format!("{}…", text.chars().take(200).collect::<String>())),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
        let mut ranges = IdRanges::default();
        while !rest.is_empty() {
            let (bounds, after) = rest.strip_prefix('[')?.split_once(')')?;
            let (first, end) = bounds.split_once(',')?;
            let (first, end): (i64, i64) = (first.parse().ok()?, end.parse().ok()?);
            if first >= end || ranges.last().is_some_and(|last| last >= first) {
                return None;
            }
            ranges.push_range(IdRange { first, last: end - 1 });
            rest = if after.is_empty() { after } else { after.strip_prefix(',')? };
        }
        Some(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &[i64]) -> IdRanges {
        let mut ranges = IdRanges::default();
        ids.iter().for_each(|&id| ranges.push(id));
        ranges
    }

    #[test]
    fn consecutive_ids_are_one_range() {
        let ranges = of(&[-1, 0, 1, 5, 7, 8]);
        assert_eq!(ranges.to_multirange(), "{[-1,2),[5,6),[7,9)}");
        assert_eq!(ranges.last(), Some(8));
        assert_eq!(of(&[]).to_multirange(), "{}");
    }

    #[test]
    fn an_empty_range_adds_nothing() {
        let mut ranges = of(&[1]);
        ranges.push_range(IdRange { first: 2, last: 1 });
        assert_eq!(ranges, of(&[1]));
    }

    #[test]
    fn what_postgres_writes_is_read() {
        assert_eq!(IdRanges::parse("{}"), Some(of(&[])));
        assert_eq!(IdRanges::parse("{[-1,2),[5,6)}"), Some(of(&[-1, 0, 1, 5])));
        for bad in
            ["", "{", "{[1,2]}", "{(,2)}", "{[1,)}", "{[2,2)}", "{[1,3),[2,5)}", "{[5,6),[1,2)}", "{[1,2);[3,4)}", "{[a,2)}"]
        {
            assert_eq!(IdRanges::parse(bad), None, "{bad}");
        }
    }
}
