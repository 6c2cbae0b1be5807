//! Reads the trusted keys and checkpoints that the command line names.

use crate::arguments::TrustArguments;
use crate::error::CommandError;
use crate::files::{read_note, read_small};
use export::verify::Trust;
use ledger::note::{KeyError, VerifierKey};
use std::fs;
use std::path::{Path, PathBuf};

/// Reads the trusted keys and checkpoints that the arguments name.
pub fn gather(arguments: &TrustArguments, older: bool) -> Result<Trust, CommandError> {
    let mut trust = Trust { older, origin: arguments.origin.clone(), ..Trust::default() };
    for key in &arguments.key {
        trust.trust_key(public_key(key)?)?;
    }
    let witnesses =
        arguments.witness_key.iter().map(|key| public_key(key)).collect::<Result<Vec<_>, _>>()?;
    for path in &arguments.checkpoint {
        for file in checkpoint_files(path)? {
            trust.know(&read_note(&file)?, &file.display().to_string(), &witnesses)?;
        }
    }
    Ok(trust)
}

/// Reads a public key. `argument` is the text of the key, or the path of a file that contains it.
pub fn public_key(argument: &str) -> Result<VerifierKey, CommandError> {
    // The path of a file can look like the text of a key. If a file with this path exists, the
    // argument is a path.
    if !Path::new(argument).exists() {
        return VerifierKey::from_text(argument).map_err(|cause| {
            let from = if cause == KeyError::NotAVerifierKey {
                argument.to_owned()
            } else {
                "--key".to_owned()
            };
            CommandError::Key { from, cause }
        });
    }
    let bytes = read_small(Path::new(argument))?;
    let text = String::from_utf8_lossy(&bytes);
    VerifierKey::from_text(text.trim())
        .map_err(|cause| CommandError::Key { from: argument.to_owned(), cause })
}

/// Returns the checkpoint files in a directory and its direct subdirectories. The name of a
/// checkpoint file is `checkpoint` or a tree size. If `path` is a file, returns only this path.
pub fn checkpoint_files(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut directories = vec![(path.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(CommandError::file(&directory))? {
            let path = entry.map_err(CommandError::file(&directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if depth == 0 {
                    directories.push((path, depth + 1));
                }
            } else if name == "checkpoint" || size_of_name(&name).is_some() {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(CommandError::Content {
            path: path.to_owned(),
            cause: "there is no checkpoint in it".to_owned(),
        });
    }
    Ok(found)
}

/// Returns the tree size that is the name of a checkpoint file. The name has 20 digits.
pub fn size_of_name(name: &str) -> Option<u64> {
    if name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit()) {
        name.parse().ok()
    } else {
        None
    }
}
