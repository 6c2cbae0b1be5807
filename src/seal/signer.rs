//! Makes the notes of checkpoints with the origin and the optional signing key from the settings.

use super::stored_tree::{Identity, TreeRow};
use crate::pg::ServerError;
use crate::settings;
use ledger::checkpoint::{Checkpoint, CheckpointError};
use ledger::merkle::Hash;
use ledger::note::{KeyError, Note, SigningKey, VerifierKey};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Maximum size of a key file in bytes. The text of a key has about 100 bytes.
const KEY_FILE_LIMIT: u64 = 4096;

/// The origin and the optional signing key with which the notes of checkpoints are made.
pub struct Signer {
    origin: String,
    key: Option<SigningKey>,
}

impl Signer {
    /// Returns the signer that the settings specify for this log.
    pub fn of(tree: &TreeRow) -> Result<Self, ServerError> {
        settings::reload_for_database()?;
        let origin = settings::ORIGIN.get();
        let Some(path) = settings::SIGNING_KEY_FILE.get() else {
            return Ok(Signer {
                origin: origin.unwrap_or_else(|| format!("lead_audit/{}", tree.log_id)),
                key: None,
            });
        };
        let key = read_key(&path)?;
        let name = key.verifier().name().to_owned();
        match origin {
            Some(origin) if origin != name => Err(ServerError {
                code: PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
                message: format!("the signing key is that of \"{name}\", not of \"{origin}\""),
                detail: Some(
                    "The origin of a signed log is the name of its key. lead_audit.origin says \
                     another."
                        .to_owned(),
                ),
            }),
            _ => Ok(Signer { origin: name, key: Some(key) }),
        }
    }

    /// Returns the log's origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the log's origin and public key.
    pub fn identity(&self) -> Identity {
        Identity {
            origin: self.origin.clone(),
            key: self.key.as_ref().map(|key| key.verifier().to_string()),
        }
    }

    /// Returns the note of a checkpoint with this size and root. The note is signed if a key is
    /// configured. After a key change, `former` is the previous key, which also signs the note.
    pub fn note(
        &self,
        size: u64,
        root: &Hash,
        former: Option<&SigningKey>,
    ) -> Result<String, ServerError> {
        let checkpoint = Checkpoint::new(self.origin.clone(), size, *root).map_err(unfit)?;
        let mut note = match &self.key {
            Some(key) => checkpoint.sign(key).map_err(unfit)?,
            None => Note::new(checkpoint.to_string()).map_err(|error| unfit(error.into()))?,
        };
        if let Some(former) = former {
            note.add(former.sign(note.text())).map_err(|error| unfit(error.into()))?;
        }
        Ok(note.to_string())
    }

    /// Derives the log's origin and public key from the note of a checkpoint. This function is for
    /// the checkpoints of version 1.0, which did not store the origin and the public key.
    pub fn identity_of(&self, note: &str) -> Option<Identity> {
        let note = Note::parse_or_unsigned(note.as_bytes()).ok()?;
        let origin = Checkpoint::parse(note.text()).ok()?.origin().to_owned();
        let previous = previous_key().ok().flatten();
        let known =
            [self.key.as_ref(), previous.as_ref()].into_iter().flatten().map(SigningKey::verifier);
        let key = known
            .into_iter()
            .find(|key| key.name() == origin && note.verify(std::slice::from_ref(*key)).is_ok());
        let key = key.map(ToString::to_string);
        Some(Identity { origin, key })
    }
}

/// Returns the key in the file that the setting lead_audit.previous_signing_key_file names, or
/// `None` if this setting is not set.
pub fn previous_key() -> Result<Option<SigningKey>, ServerError> {
    settings::PREVIOUS_SIGNING_KEY_FILE.get().map(|path| read_key(&path)).transpose()
}

/// Returns the log's public key according to the settings, or `None` if checkpoints are not signed.
pub fn verifier_key() -> Result<Option<VerifierKey>, ServerError> {
    settings::reload_for_database()?;
    match settings::SIGNING_KEY_FILE.get() {
        Some(path) => Ok(Some(read_key(&path)?.verifier().clone())),
        None => Ok(None),
    }
}

fn unfit(error: CheckpointError) -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
        message: "no checkpoint can be made with this origin or key".to_owned(),
        detail: Some(format!("{error}.")),
    }
}

/// Reads a signing key from a file. Refuses a file that other users than the file's owner can
/// access, and a file in the data directory.
fn read_key(path: &str) -> Result<SigningKey, ServerError> {
    let refused = |detail: String| ServerError {
        code: PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
        message: format!("the signing key file \"{path}\" cannot be used"),
        detail: Some(detail),
    };
    let file = File::open(path).map_err(|error| refused(format!("{error}.")))?;
    let metadata = file.metadata().map_err(|error| refused(format!("{error}.")))?;
    if !metadata.is_file() {
        return Err(refused("It is not a regular file.".to_owned()));
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(refused(format!(
            "Its mode is {mode:04o}: others than its owner may use it. It must be 0600 or less."
        )));
    }
    let real = Path::new(path).canonicalize().map_err(|error| refused(format!("{error}.")))?;
    if data_directory().is_some_and(|data| real.starts_with(data)) {
        return Err(refused(
            "It lies inside the data directory, so whoever copies that has the key.".to_owned(),
        ));
    }
    let mut text = String::new();
    file.take(KEY_FILE_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| refused(format!("{error}.")))?;
    // The error message must not contain the key.
    SigningKey::from_text(&text)
        .map_err(|error: KeyError| refused(format!("It does not hold a signing key: {error}.")))
}

fn data_directory() -> Option<std::path::PathBuf> {
    // SAFETY: `DataDir` is set when the server starts, and never changes afterwards.
    let data = unsafe {
        if pg_sys::DataDir.is_null() {
            return None;
        }
        CStr::from_ptr(pg_sys::DataDir)
    };
    Path::new(data.to_str().ok()?).canonicalize().ok()
}
