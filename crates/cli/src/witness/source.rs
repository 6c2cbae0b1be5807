//! Reads the checkpoints that a witness checks, from a database, a directory, or both.

use super::alarm::{Alarm, AlarmKind};
use super::check::{Proof, ProofFailure};
use super::state::State;
use crate::arguments::Witness;
use crate::database::{Snapshot, connect};
use crate::error::CommandError;
use crate::files::read_small;
use crate::trust::{checkpoint_files, size_of_name};
use export::write::StoredCheckpoint;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{TreeError, consistency_proof, hash_text, root_at};
use ledger::note::Note;
use postgres::Client;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Number of new checkpoints after which one call of [`Source::look`] stops reading the database.
/// Later calls of [`Source::look`] read the remaining checkpoints.
const MOST_AT_ONCE: usize = 10_000;

/// The database and the directory that the witness follows.
pub struct Source {
    url: Option<String>,
    directory: Option<PathBuf>,
    client: Option<Client>,
}

/// The result of one call of [`Source::look`].
pub struct Seen {
    /// A fault that the witness found while it read the checkpoints.
    pub alarm: Option<Alarm>,
    /// The notes of the new checkpoints, by tree size.
    pub notes: BTreeMap<u64, String>,
    /// The tree from which consistency proofs are computed. The value is None if the witness
    /// follows no database.
    pub tree: Option<Tree>,
}

/// The tree that is stored in the database.
pub struct Tree(Snapshot);

impl Source {
    pub fn new(arguments: &Witness) -> Self {
        Source {
            url: arguments.database.database.clone(),
            directory: arguments.checkpoints.clone(),
            client: None,
        }
    }

    /// Drops the connection, which is broken.
    pub fn forget(&mut self) {
        self.client = None;
    }

    /// Ends the transaction on `tree`, and keeps the connection for the next call of
    /// [`look`](Self::look).
    pub fn rest(&mut self, tree: Option<Tree>) -> Result<(), CommandError> {
        if let Some(Tree(snapshot)) = tree {
            self.client = Some(snapshot.end()?);
        }
        Ok(())
    }

    /// Reads the new checkpoints from the database and from the directory.
    pub fn look(&mut self, state: &State) -> Result<Seen, CommandError> {
        let mut seen = Seen { alarm: None, notes: BTreeMap::new(), tree: None };
        if let Some(url) = &self.url {
            let client = match self.client.take().filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => connect(url)?,
            };
            let snapshot = Snapshot::begin(client)?;
            look_in_database(&snapshot, state, &mut seen)?;
            seen.tree = Some(Tree(snapshot));
        }
        if let Some(directory) = &self.directory
            && seen.alarm.is_none()
        {
            look_in_directory(directory, state, &mut seen)?;
        }
        Ok(seen)
    }
}

fn look_in_database(
    snapshot: &Snapshot,
    state: &State,
    seen: &mut Seen,
) -> Result<(), CommandError> {
    let newest = snapshot.last_checkpoint(None)?;
    if let Some(held) = state.held() {
        let (size, root) = (held.checkpoint.size(), held.checkpoint.root());
        let alarm = |kind, text, found, note| Some(Alarm { kind, text, found: Some(found), note });
        match &newest {
            None => {
                let text = format!(
                    "the database has no checkpoint any more; {size} leaves were witnessed"
                );
                seen.alarm = alarm(AlarmKind::GoneBack, text, (0, None), None);
                return Ok(());
            }
            Some(newest) if newest.tree_size < size => {
                let found = (newest.tree_size, Some(newest.root));
                let text = gone_back(state, newest, size)?;
                let kind = if text.1 { AlarmKind::GoneBack } else { AlarmKind::Forked };
                seen.alarm = alarm(kind, text.0, found, Some(newest.note.clone()));
                return Ok(());
            }
            Some(_) => {}
        }
        // If the database has a checkpoint of the same size as the newest kept checkpoint, both
        // must have the same root.
        if let Some(same) = snapshot.checkpoint(size)? {
            let said = note_root(&same);
            if same.root != *root || said.is_some_and(|said| said != *root) {
                let text = format!(
                    "the database has another checkpoint of {size} leaves than the one that was \
                     witnessed: root {} instead of {}",
                    hash_text(&said.unwrap_or(same.root)),
                    hash_text(root)
                );
                let alarm = Alarm {
                    kind: AlarmKind::Forked,
                    text,
                    found: Some((size, Some(same.root))),
                    note: Some(same.note),
                };
                seen.alarm = Some(explained(alarm, snapshot, state)?);
                return Ok(());
            }
        }
    }
    let mut size = state.held().map(|held| held.checkpoint.size());
    // A new witness begins with the newest checkpoint, whose root commits to all earlier entries.
    if size.is_none() {
        seen.notes.extend(newest.map(|newest| (newest.tree_size, newest.note)));
        return Ok(());
    }
    while let Some(after) = size.take() {
        let checkpoints = snapshot.checkpoints_after(after, u64::MAX, 1000)?;
        size = checkpoints
            .last()
            .map(|last| last.tree_size)
            .filter(|_| seen.notes.len() < MOST_AT_ONCE);
        seen.notes.extend(
            checkpoints.into_iter().map(|checkpoint| (checkpoint.tree_size, checkpoint.note)),
        );
    }
    Ok(())
}

fn note_root(stored: &StoredCheckpoint) -> Option<ledger::merkle::Hash> {
    let note = Note::parse_or_unsigned(stored.note.as_bytes()).ok()?;
    Some(*Checkpoint::parse(note.text()).ok()?.root())
}

/// Describes the loss if a log has fewer leaves than the witnessed history. Returns the
/// description, and whether the remaining leaves of the log can be the beginning of the witnessed
/// history.
fn gone_back(
    state: &State,
    newest: &StoredCheckpoint,
    size: u64,
) -> Result<(String, bool), CommandError> {
    let found = newest.tree_size;
    let lost = size - found;
    if state.sizes().contains(&found) {
        return Ok(if state.root(found)? == newest.root {
            let text = format!(
                "the database is back at its checkpoint of {found} leaves; {size} were witnessed, \
                 so the last {lost} entries are lost. That is what restoring an old backup does"
            );
            (text, true)
        } else {
            (
                format!(
                    "the database has {found} leaves, {size} were witnessed, and they are not the \
                     witnessed ones"
                ),
                false,
            )
        });
    }
    let text = format!(
        "the database has {found} leaves, {size} were witnessed: at least the last {lost} entries \
         are lost. Was an old backup restored?"
    );
    Ok((text, true))
}

/// Finds the largest kept tree size up to which the database agrees with the witnessed history, and
/// adds this size to the alarm.
fn explained(mut alarm: Alarm, snapshot: &Snapshot, state: &State) -> Result<Alarm, CommandError> {
    let tiles = snapshot.tiles();
    // Finds the largest kept tree that the tree in the database extends. A binary search is
    // possible, because a tree that extends a kept tree also extends all smaller kept trees.
    let sizes: Vec<u64> = state.sizes().iter().copied().collect();
    let (mut low, mut high) = (0, sizes.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let same = match root_at(&tiles, sizes[middle]) {
            Ok(root) => root == state.root(sizes[middle])?,
            Err(TreeError::Source(error)) => return Err(error),
            Err(_) => false,
        };
        if same { low = middle + 1 } else { high = middle }
    }
    alarm.text += &match low.checked_sub(1) {
        Some(last) => format!(
            ". The database agrees with what was witnessed up to {} leaves, and differs from \
             there on. That is what restoring an old backup and writing on does, and also what \
             rewriting history does",
            sizes[last]
        ),
        None => ". The database agrees with nothing that was witnessed".to_owned(),
    };
    Ok(alarm)
}

fn look_in_directory(directory: &Path, state: &State, seen: &mut Seen) -> Result<(), CommandError> {
    let newest = state.held().map_or(0, |held| held.checkpoint.size());
    let first = state.sizes().first().copied();
    let files = match checkpoint_files(directory) {
        Ok(files) => files,
        // This error means that the directory contains no checkpoint, because the log has not
        // published a checkpoint yet.
        Err(CommandError::Content { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    for file in files {
        let Some(size) = size_of_name(&file.file_name().unwrap_or_default().to_string_lossy())
        else {
            continue;
        };
        let known = state.sizes().contains(&size);
        // Skips every kept checkpoint except the newest, because the witness has already checked
        // the kept checkpoints. Skips every checkpoint that is older than the first kept
        // checkpoint.
        if known && size != newest || !known && first.is_some_and(|first| size < first) {
            continue;
        }
        let bytes = read_small(&file)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(other) = seen.notes.get(&size)
            && root_of(other) != root_of(&text)
        {
            let text = format!(
                "the log has published another checkpoint of {size} leaves than the database has"
            );
            seen.alarm = Some(Alarm {
                kind: AlarmKind::Forked,
                text,
                found: Some((size, None)),
                note: Some(other.clone()),
            });
            return Ok(());
        }
        seen.notes.entry(size).or_insert(text);
    }
    // A new witness begins with the newest checkpoint of the directory.
    if first.is_none()
        && let Some((&size, _)) = seen.notes.last_key_value()
    {
        seen.notes.retain(|&other, _| other == size);
    }
    // A checkpoint with the size and root of the newest kept checkpoint is not new, so it is
    // removed from the result.
    if let Some(same) = seen.notes.get(&newest)
        && state.held().is_some_and(|held| root_of(same) == Some(*held.checkpoint.root()))
    {
        seen.notes.remove(&newest);
    }
    Ok(())
}

fn root_of(note: &str) -> Option<ledger::merkle::Hash> {
    let note = Note::parse_or_unsigned(note.as_bytes()).ok()?;
    Some(*Checkpoint::parse(note.text()).ok()?.root())
}

impl Seen {
    /// If the alarm reports a fork, adds to the alarm the tree size up to which the database agrees
    /// with the witnessed history.
    pub fn explain(&self, alarm: Alarm, state: &State) -> Result<Alarm, CommandError> {
        match &self.tree {
            Some(Tree(snapshot)) if alarm.kind == AlarmKind::Forked => {
                explained(alarm, snapshot, state)
            }
            _ => Ok(alarm),
        }
    }
}

impl Tree {
    /// Returns a consistency proof that is computed from the tree in the database.
    pub fn consistency(&self, from: u64, to: u64) -> Proof {
        consistency_proof(&self.0.tiles(), from, to).map_err(|error| match error {
            TreeError::Source(error) => ProofFailure::Unreachable(error),
            error => ProofFailure::Unprovable(error.to_string()),
        })
    }
}
