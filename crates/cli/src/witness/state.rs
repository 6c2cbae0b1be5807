//! Manages the state of a witness: a directory with every checkpoint that the witness has checked.
//! The name of a checkpoint file in this directory is the tree size.

use crate::error::CommandError;
use crate::files::{read_small, replace};
use crate::trust::size_of_name;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::Hash;
use ledger::note::Note;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// The state directory of a witness.
pub struct State {
    directory: PathBuf,
    sizes: BTreeSet<u64>,
    held: Option<Held>,
    /// The lock on the directory, which lasts until this value is dropped.
    _lock: File,
}

/// The newest checkpoint that the witness keeps.
pub struct Held {
    pub note: Note,
    pub checkpoint: Checkpoint,
}

impl State {
    /// Opens or creates a state directory. Fails if another witness uses the directory.
    pub fn open(directory: &Path) -> Result<Self, CommandError> {
        let error = CommandError::file(directory);
        fs::create_dir_all(directory.join("checkpoints")).map_err(&error)?;
        let lock = File::create(directory.join("lock")).map_err(&error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let cause = "another witness is at work in this directory".to_owned();
                return Err(CommandError::Content { path: directory.to_owned(), cause });
            }
            Err(TryLockError::Error(cause)) => return Err(error(cause)),
        }
        let mut sizes = BTreeSet::new();
        for entry in fs::read_dir(directory.join("checkpoints")).map_err(&error)? {
            // A crash can leave unfinished files in the directory. The loop skips unfinished files,
            // because their names are not tree sizes.
            sizes.extend(size_of_name(&entry.map_err(&error)?.file_name().to_string_lossy()));
        }
        let mut state = State { directory: directory.to_owned(), sizes, held: None, _lock: lock };
        if let Some(&newest) = state.sizes.last() {
            state.held = Some(state.read(newest)?);
        }
        Ok(state)
    }

    /// Returns the newest kept checkpoint.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Returns the tree sizes of all kept checkpoints.
    pub fn sizes(&self) -> &BTreeSet<u64> {
        &self.sizes
    }

    /// Returns the path of the state directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the root of the kept checkpoint with this tree size.
    pub fn root(&self, size: u64) -> Result<Hash, CommandError> {
        Ok(*self.read(size)?.checkpoint.root())
    }

    fn read(&self, size: u64) -> Result<Held, CommandError> {
        let path = self.file(size);
        let bytes = read_small(&path)?;
        let note = Note::parse_or_unsigned(&bytes).map_err(CommandError::content(&path))?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(CommandError::content(&path))?;
        if checkpoint.size() != size {
            return Err(CommandError::content(&path)(
                "it is not of the tree size that its name says",
            ));
        }
        Ok(Held { note, checkpoint })
    }

    fn file(&self, size: u64) -> PathBuf {
        self.directory.join("checkpoints").join(format!("{size:020}"))
    }

    /// Stores a checkpoint in the state directory. Replaces a kept checkpoint of the same tree
    /// size.
    pub fn keep(&mut self, note: &Note, checkpoint: Checkpoint) -> Result<(), CommandError> {
        replace(&self.file(checkpoint.size()), note.to_string().as_bytes())?;
        self.sizes.insert(checkpoint.size());
        self.held = Some(Held { note: note.clone(), checkpoint });
        Ok(())
    }
}
