//! Writes the file of a checkpoint in `lead_audit.checkpoint_dir`, and formats the checkpoint's
//! line for the server's log.
//!
//! Only committed checkpoints may leave the database, so this module runs after the commit. Code
//! that runs after a commit must not raise errors, so this module returns every failure as a value.
//! A file gets its final name only when its content is complete. A new file never replaces an
//! existing file.

use crate::settings::folder_name;
use ledger::checkpoint::Checkpoint;
use ledger::note::Note;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A checkpoint that is published after the commit of its transaction.
#[derive(Debug, Clone)]
pub struct CheckpointFile {
    /// Number of leaves in the tree.
    pub size: u64,
    /// The note of the checkpoint, signed or not.
    pub note: String,
}

/// The result of a search for the file of a checkpoint in the directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Published {
    /// The directory has no file for the checkpoint's tree size.
    No,
    /// The directory has a file for the checkpoint's tree size, and the file contains the
    /// checkpoint's note.
    Yes,
    /// The directory has a file for the checkpoint's tree size, but the file contains another text
    /// than the checkpoint's note.
    Another,
}

impl CheckpointFile {
    /// Returns the path of the checkpoint's file: `DIRECTORY/ORIGIN/SIZE`. SIZE is the tree size
    /// with 20 digits, including leading zeros.
    fn file(&self, directory: &str) -> io::Result<PathBuf> {
        let unreadable =
            || io::Error::new(ErrorKind::InvalidData, "the note of the checkpoint cannot be read");
        let note = Note::parse_or_unsigned(self.note.as_bytes()).map_err(|_| unreadable())?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(|_| unreadable())?;
        Ok(Path::new(directory)
            .join(folder_name(checkpoint.origin()))
            .join(format!("{:020}", self.size)))
    }

    /// Looks for the file of the checkpoint in the directory.
    pub fn look_in(&self, directory: &str) -> io::Result<Published> {
        match fs::read(self.file(directory)?) {
            Ok(found) if found == self.note.as_bytes() => Ok(Published::Yes),
            Ok(_) => Ok(Published::Another),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Published::No),
            Err(error) => Err(error),
        }
    }

    /// Writes the file of the checkpoint if the file does not exist. Returns success only after the
    /// file is safely on disk.
    pub fn write_to(&self, directory: &str) -> Result<(), String> {
        let file = self.file(directory).map_err(|error| error.to_string())?;
        fs::metadata(directory).map_err(|error| format!("{directory}: {error}"))?;
        let failed = |error: io::Error| format!("{}: {error}", file.display());
        match self.write_file(&file) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                match self.look_in(directory).map_err(failed)? {
                    Published::Yes => Ok(()),
                    _ => Err(format!(
                        "{} holds another checkpoint of that size: the history of this log has \
                         forked. Was an old backup restored, or is another database publishing \
                         under the same origin?",
                        file.display()
                    )),
                }
            }
            other => other.map_err(failed),
        }
    }

    fn write_file(&self, file: &Path) -> io::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("/"));
        if let Err(error) = fs::create_dir(folder)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        // If the file `unfinished` exists, an earlier process with the same process id crashed
        // while writing the file. Therefore the code may overwrite `unfinished`.
        let unfinished =
            folder.join(format!(".{:020}.{}.unfinished", self.size, std::process::id()));
        let written = (|| {
            let mut new =
                OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
            new.write_all(self.note.as_bytes())?;
            new.sync_all()?;
            // `hard_link` fails if `file` exists. A rename would replace `file`.
            fs::hard_link(&unfinished, file)
        })();
        let removed = fs::remove_file(&unfinished);
        written?;
        removed?;
        File::open(folder)?.sync_all()
    }

    /// Returns the checkpoint's line for the server's log, which contains the note as a JSON
    /// string.
    pub fn log_line(&self) -> String {
        let mut text = Vec::new();
        ledger::canonical::write_string(&mut text, &self.note);
        format!("lead_audit checkpoint {}", String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(size: u64, root: u8) -> CheckpointFile {
        let note = Checkpoint::new("../example.org/log é", size, [root; 32])
            .expect("a checkpoint")
            .to_string();
        CheckpointFile { size, note }
    }

    #[test]
    fn a_file_is_written_once() {
        let directory =
            std::env::temp_dir().join(format!("lead_audit_publish_{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory");
        let path = directory.to_str().expect("UTF-8");
        let first = publication(7, 1);
        assert_eq!(first.look_in(path).expect("readable"), Published::No);
        first.write_to(path).expect("written");
        first.write_to(path).expect("the same again is no fault");
        assert_eq!(first.look_in(path).expect("readable"), Published::Yes);
        let other = publication(7, 2);
        assert_eq!(other.look_in(path).expect("readable"), Published::Another);
        assert!(other.write_to(path).expect_err("refused").contains("forked"));
        assert_eq!(first.look_in(path).expect("readable"), Published::Yes);
        let folder = directory.join("%2E.%2Fexample.org%2Flog%20%C3%A9");
        let files: Vec<_> = fs::read_dir(&folder)
            .expect("a folder")
            .map(|file| file.expect("a file").file_name())
            .collect();
        assert_eq!(files, ["00000000000000000007"]);
        fs::remove_dir_all(&directory).expect("removed");
    }

    #[test]
    fn a_log_line_is_one_line() {
        let line = publication(7, 0).log_line();
        assert!(!line.contains('\n') && line.contains(r"log é\n7\nAAAA"), "{line}");
    }
}
