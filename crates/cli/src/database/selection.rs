//! Selects entries by table, row or range of ids, and finds the index of each entry's leaf in the
//! tree.

use super::{Snapshot, id_ranges};
use crate::error::CommandError;
use ledger::IdRanges;
use ledger::canonical::{compare_keys, write_string};
use ledger::key_hash;
use postgres::types::ToSql;
use std::fmt::Write;

/// The selection of entries that the command line describes.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub from_id: Option<i64>,
    pub to_id: Option<i64>,
    pub table: Option<String>,
    pub key: Option<String>,
}

/// The ids of the selected entries. `sealed` contains the index and the id of each sealed entry, in
/// the order of the tree. `unsealed` contains the ids of the selected entries that are not sealed.
pub struct Selected {
    pub sealed: Vec<(u64, i64)>,
    pub unsealed: Vec<i64>,
}

impl Selection {
    /// Returns whether the selection contains all entries.
    pub fn is_everything(&self) -> bool {
        self.from_id.is_none() && self.to_id.is_none() && self.table.is_none()
    }

    /// Returns a description of the selection, for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |what: &str, value: Option<String>| {
            if let Some(value) = value {
                let space = if text.is_empty() { "" } else { " " };
                // Writing to a String cannot fail.
                _ = write!(text, "{space}{what} {value}");
            }
        };
        add("table", self.table.clone());
        add("key", self.key.clone());
        add("from id", self.from_id.map(|id| id.to_string()));
        add("to id", self.to_id.map(|id| id.to_string()));
        text
    }
}

/// Finds the ids of the selected entries. An entry counts as sealed if a checkpoint of at most
/// `tree_size` leaves contains it.
pub fn select(
    snapshot: &Snapshot,
    selection: &Selection,
    tree_size: u64,
) -> Result<Selected, CommandError> {
    let mut ids = matching(snapshot, selection)?;
    ids.sort_unstable();
    let mut sealed = Vec::new();
    let mut size = 0;
    // The query reads only the checkpoints that contain a selected id, because a log can have many
    // checkpoints.
    let wanted = ids.iter().copied().collect::<IdRanges>().to_string();
    loop {
        let (from, to) =
            (i64::try_from(size).unwrap_or(i64::MAX), i64::try_from(tree_size).unwrap_or(i64::MAX));
        let rows = snapshot.query(
            "SELECT c.tree_size, c.entry_ids::text,
                    COALESCE((SELECT max(b.tree_size) FROM lead_audit.checkpoint b
                              WHERE b.tree_size < c.tree_size), 0)
             FROM lead_audit.checkpoint c
             WHERE c.tree_size > $1 AND c.tree_size <= $2
               AND c.entry_ids && $3::text::int8multirange
             ORDER BY c.tree_size LIMIT 1000",
            &[&from, &to, &wanted],
        )?;
        for row in &rows {
            let (last, base): (i64, i64) = (row.try_get(0)?, row.try_get(2)?);
            let entry_ids = id_ranges(row.try_get(1)?)?;
            let base = u64::try_from(base).unwrap_or(0);
            for range in entry_ids.ranges() {
                let (start, end) = (
                    ids.partition_point(|&id| id < range.first),
                    ids.partition_point(|&id| id <= range.last),
                );
                for &id in &ids[start..end] {
                    if let Some(rank) = entry_ids.rank(id) {
                        sealed.push((base + rank, id));
                    }
                }
            }
            size = u64::try_from(last).unwrap_or(0).max(size);
        }
        if rows.is_empty() {
            break;
        }
    }
    sealed.sort_unstable();
    let taken: std::collections::HashSet<i64> = sealed.iter().map(|&(_, id)| id).collect();
    ids.retain(|id| !taken.contains(id));
    Ok(Selected { sealed, unsealed: ids })
}

fn matching(snapshot: &Snapshot, selection: &Selection) -> Result<Vec<i64>, CommandError> {
    let mut sql = "SELECT e.id FROM lead_audit.entry e WHERE e.id >= $1 AND e.id <= $2".to_owned();
    let (from, to) = (selection.from_id.unwrap_or(i64::MIN), selection.to_id.unwrap_or(i64::MAX));
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&from, &to];
    let (watch_ids, hashes);
    if let Some(table) = &selection.table {
        watch_ids = watched(snapshot, table)?;
        sql += " AND e.watch_id::text = ANY ($3)";
        parameters.push(&watch_ids);
        if let Some(key) = &selection.key {
            hashes = key_hashes(snapshot, &watch_ids, key)?;
            sql += " AND (e.key_hash = ANY ($4) OR e.previous_key_hash = ANY ($4))";
            parameters.push(&hashes);
        }
    }
    // The snapshot disables sequential scans and bitmap scans, which can be the best plans for this
    // query. So both are enabled for this query, and disabled again after it.
    snapshot
        .client
        .borrow_mut()
        .batch_execute("SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on")?;
    let rows = snapshot.query(&sql, &parameters)?;
    snapshot
        .client
        .borrow_mut()
        .batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Returns the watch ids of all tables that have or had this name. Dropped tables are included.
fn watched(snapshot: &Snapshot, table: &str) -> Result<Vec<String>, CommandError> {
    let rows = snapshot.query(
        "SELECT watch_id::text, quote_ident(table_schema) || '.' || quote_ident(table_name)
         FROM lead_audit.watch
         WHERE $1 IN (table_name, table_schema || '.' || table_name, quote_ident(table_name),
                      quote_ident(table_schema) || '.' || quote_ident(table_name))
         ORDER BY 2",
        &[&table],
    )?;
    let mut names: Vec<&str> = rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
    names.dedup();
    match names.len() {
        0 => Err(CommandError::Refused(format!("no table {table:?} was ever watched"))),
        1 => Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?),
        _ => Err(CommandError::Refused(format!("{table:?} may be any of {}", names.join(", ")))),
    }
}

/// Returns the key hashes that a row with this key can have. A number that the user typed can be
/// the value of a numeric column or of a text column, so one row can have several possible key
/// hashes.
fn key_hashes(
    snapshot: &Snapshot,
    watch_ids: &[String],
    key: &str,
) -> Result<Vec<i64>, CommandError> {
    let candidates = match canonical_object(key) {
        Some(key) => vec![key],
        None => {
            let rows = snapshot.query(
                "SELECT k::text FROM (SELECT row_key FROM lead_audit.entry
                   WHERE watch_id::text = ANY ($1) AND row_key IS NOT NULL LIMIT 1) e,
                 json_object_keys(row_key) k",
                &[&watch_ids],
            )?;
            let columns: Vec<String> =
                rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            let [column] = &columns[..] else {
                let text = format!(
                    "the key has {} columns: give them as a JSON object, like {{\"a\": 1}}",
                    columns.len()
                );
                return Err(CommandError::Refused(text));
            };
            let mut text = Vec::new();
            write_string(&mut text, key);
            let mut values = vec![String::from_utf8_lossy(&text).into_owned()];
            if ledger::canonical::check(key.as_bytes()).is_ok() && !key.starts_with(['"', '[', '{'])
            {
                values.push(key.to_owned());
            }
            values.iter().map(|value| object(&[(column.clone(), value.clone())])).collect()
        }
    };
    let ids = watch_ids
        .iter()
        .filter_map(|id| <[u8; 16]>::try_from(hex::decode(id.replace('-', "")).ok()?).ok());
    Ok(ids.flat_map(|id| candidates.iter().map(move |key| key_hash(&id, key.as_bytes()))).collect())
}

/// Returns the canonical text of a JSON object that a user typed. The object must contain only
/// simple values. Returns None for any other JSON value.
fn canonical_object(text: &str) -> Option<String> {
    let members: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(text).ok()?;
    let mut canonical = Vec::new();
    for (name, value) in members {
        let value = match serde_json::from_str::<String>(value.get()) {
            Ok(text) => {
                let mut out = Vec::new();
                write_string(&mut out, &text);
                String::from_utf8(out).ok()?
            }
            Err(_) => value.get().to_owned(),
        };
        canonical.push((name, value));
    }
    let object = object(&canonical);
    ledger::canonical::check(object.as_bytes()).ok().map(|()| object)
}

fn object(members: &[(String, String)]) -> String {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by(|(a, _), (b, _)| compare_keys(a, b));
    let mut out = vec![b'{'];
    for (i, (name, value)) in members.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(&mut out, name);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_somebody_types_them() {
        assert_eq!(
            canonical_object(r#"{ "b" : 1.10, "a": "x\u00e9" }"#).as_deref(),
            Some(r#"{"a":"xé","b":1.10}"#)
        );
        assert_eq!(canonical_object("17"), None);
        assert_eq!(canonical_object(r#""x""#), None);
        assert_eq!(canonical_object(r#"{"a": 1e5}"#), None);
    }
}
