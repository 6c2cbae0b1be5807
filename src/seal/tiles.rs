//! The tree's tiles as they are stored: full ones in `lead_audit.tree_tile`, the last one of each level in
//! `lead_audit.tree_edge`.

use crate::pg::{ServerError, SpiPlan};
use ledger::merkle::{Hash, TILE_WIDTH, TileId, Tiles, TreeError};
use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};
use std::borrow::Cow;

/// The tiles as a snapshot shows them. Lives within one connection to SPI.
pub struct StoredTiles {
    snapshot: pg_sys::Snapshot,
    plan: SpiPlan,
}

const KEY: [pg_sys::Oid; 2] = [pg_sys::INT2OID, pg_sys::INT8OID];

fn key(id: TileId) -> [Option<pg_sys::Datum>; 2] {
    [i16::from(id.level).into_datum(), (id.index as i64).into_datum()]
}

impl StoredTiles {
    /// Those of this snapshot, which must stay active as long as this is used.
    pub fn of(snapshot: pg_sys::Snapshot) -> Self {
        let plan = SpiPlan::prepare(
            "SELECT t.hashes, true FROM lead_audit.tree_tile t WHERE t.level = $1 AND t.index = $2 UNION ALL \
             SELECT e.hashes, false FROM lead_audit.tree_edge e WHERE e.level = $1 AND e.index = $2",
            &KEY,
        );
        StoredTiles { snapshot, plan }
    }
}

impl Tiles for StoredTiles {
    type Error = ServerError;

    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, ServerError> {
        let rows = self.plan.read(self.snapshot, &key(id));
        let Some(bytes) = rows.get::<Vec<u8>>(0, 0) else { return Ok(Cow::Owned(Vec::new())) };
        let (hashes, rest) = bytes.as_chunks::<{ size_of::<Hash>() }>();
        let is_full = rows.get::<bool>(0, 1) == Some(true);
        if !rest.is_empty() || hashes.len() > TILE_WIDTH || is_full && hashes.len() != TILE_WIDTH {
            return Err(ServerError {
                code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                message: format!("tile {} of level {} of the audit log's tree has {} bytes", id.index, id.level, bytes.len()),
                detail: None,
            });
        }
        Ok(Cow::Owned(hashes.to_vec()))
    }
}

/// Stores what a `TileWriter` gives: full tiles to stay, then the last tile of each level in place of the one before.
pub fn store_tiles(snapshot: pg_sys::Snapshot, changed: Vec<(TileId, Vec<Hash>)>) {
    let types = [KEY[0], KEY[1], pg_sys::BYTEAOID];
    let full = SpiPlan::prepare("INSERT INTO lead_audit.tree_tile (level, index, hashes) VALUES ($1, $2, $3)", &types);
    let edge = SpiPlan::prepare(
        "INSERT INTO lead_audit.tree_edge (level, index, hashes) VALUES ($1, $2, $3) \
         ON CONFLICT (level) DO UPDATE SET index = excluded.index, hashes = excluded.hashes",
        &types,
    );
    let write = |plan: &SpiPlan, id: TileId, hashes: &[Hash]| {
        let [level, index] = key(id);
        plan.write(snapshot, &[level, index, hashes.as_flattened().into_datum()]);
    };
    // The last full tile of each level, after which an empty one begins unless there is a partial one.
    let mut filled: Vec<TileId> = Vec::new();
    for (id, hashes) in changed {
        filled.retain(|other| other.level != id.level);
        if hashes.len() == TILE_WIDTH {
            write(&full, id, &hashes);
            filled.push(id);
        } else {
            write(&edge, id, &hashes);
        }
    }
    for id in filled {
        write(&edge, TileId { index: id.index + 1, ..id }, &[]);
    }
}

/// The tiles do not give what they should.
pub fn tree_is_damaged(error: TreeError<ServerError>) -> ServerError {
    match error {
        TreeError::Source(error) => error,
        other => ServerError {
            code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message: "the tree of the audit log is damaged".to_owned(),
            detail: Some(format!("{other}.")),
        },
    }
}
