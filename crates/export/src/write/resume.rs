//! Finds the position at which an export's file can be continued. Files are continued after an
//! interruption, or to append newer entries.

use super::Compression;
use crate::read::{Blocks, Limits, MAX_WINDOW_LOG, ReadError, is_compressed};
use crate::record::{Kind, Record, RecordError};
use ledger::checkpoint::Checkpoint;
use ledger::merkle::Hash;
use ledger::note::Note;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use thiserror::Error;

/// The position at which an export's file can be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumePoint {
    /// Number of bytes to keep at the beginning of the file.
    pub offset: u64,
    /// Whether the file is compressed.
    pub compressed: bool,
    /// Number of lines of the last export in the kept part of the file. The number is 0 if there is
    /// no export or if the last export is complete. If the number is 0, the file must be continued
    /// with a new export.
    pub lines: u64,
    /// Number of leaves in the tree at this position.
    pub tree_size: u64,
    /// The root of the tree at this position, from the note of the checkpoint. The value is None
    /// for the empty tree.
    pub root: Option<Hash>,
    /// The origin of the log. The value is None if the file does not contain the origin.
    pub origin: Option<String>,
}

impl ResumePoint {
    /// Returns the compression with which the file must be continued.
    pub fn compression(&self, level: i32) -> Compression {
        if self.compressed { Compression::Zstd(level) } else { Compression::None }
    }
}

/// The reasons why a file cannot be continued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not an export, or is damaged in the middle.
    #[error("line {line}: {cause}")]
    Record {
        /// The number of the damaged line. In a compressed file, lines are counted from the
        /// beginning of their frame.
        line: u64,
        /// The error in the damaged line.
        cause: RecordError,
    },
    /// The file is a selection. A selection cannot be continued, so it must be written again.
    #[error("it is a selection, which cannot be continued")]
    Selection,
    /// The note of a checkpoint in the file cannot be read.
    #[error("line {line}: its note is none")]
    Note {
        /// The number of the line with the note.
        line: u64,
    },
}

impl From<io::Error> for ResumeError {
    fn from(error: io::Error) -> Self {
        ReadError::from(error).into()
    }
}

/// Finds the position at which `file` can be continued. The position is the end of a complete
/// export, or the end of the last checkpoint whose entries are complete. In an export without such
/// a checkpoint, the position is the end of the records `start` and `consistency`. For an empty
/// file, the position is the beginning of the file.
///
/// # Errors
/// Fails if the file is not an export, or if it is damaged before its end.
pub fn find_resume_point(file: &mut File, limits: Limits) -> Result<ResumePoint, ResumeError> {
    file.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 17, &*file);
    let compressed = is_compressed(reader.fill_buf()?);
    let mut scan = Scan::default();
    if compressed {
        let mut border = Point::default();
        while !reader.fill_buf()?.is_empty() {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?.single_frame();
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            let read = scan.read(&mut decoder, limits, false);
            reader = decoder.finish();
            match read {
                Ok(()) => {}
                // If a frame cannot be read to its end, the writing of this frame was interrupted.
                // So this frame is the last frame of the file.
                Err(ResumeError::Read(ReadError::Io(_))) => break,
                Err(error) => return Err(error),
            }
            // A compressed file can be continued only at the end of a complete frame.
            if scan.at_border {
                border = Point { offset: reader.stream_position()?, ..scan.point.clone() };
            }
        }
        scan.border = border;
    } else {
        scan.read(&mut reader, limits, true)?;
    }
    let Point { offset, lines, tree_size, root, origin, .. } = scan.border;
    Ok(ResumePoint { offset, compressed, lines, tree_size, root, origin })
}

/// A position in a file, with the state of the export at this position.
#[derive(Debug, Default, Clone)]
struct Point {
    offset: u64,
    lines: u64,
    tree_size: u64,
    root: Option<Hash>,
    origin: Option<String>,
}

/// The state of reading an export's file.
#[derive(Default)]
struct Scan {
    point: Point,
    /// The last position at which the file can be cut off and continued.
    border: Point,
    at_border: bool,
    /// The number of unread entries, the tree size and the root of the last checkpoint. The value
    /// is None if all entries of the last checkpoint were read.
    waiting: Option<(u64, u64, Hash)>,
    begun: bool,
}

impl Scan {
    /// Reads all lines of `reader`. `broken` means that the last line can be incomplete.
    fn read(&mut self, reader: impl Read, limits: Limits, broken: bool) -> Result<(), ResumeError> {
        for block in Blocks::new(reader, limits) {
            let block = block?;
            let whole = !broken || block.bytes.ends_with(b"\n");
            let count = block.lines().count();
            for (i, (number, line)) in block.lines().enumerate() {
                if !whole && i + 1 == count {
                    return Ok(());
                }
                self.at_border = self.take(line, number)?;
                self.point.offset += line.len() as u64 + 1;
                if self.at_border {
                    self.border = self.point.clone();
                }
            }
        }
        Ok(())
    }

    /// Processes one line of the file. Returns whether the file can be cut off after this line.
    fn take(&mut self, line: &[u8], number: u64) -> Result<bool, ResumeError> {
        // Most lines are entries. The scan only counts entries, so it does not parse them.
        let record = if line.starts_with(b"{\"checksum\":\"") {
            None
        } else {
            Some(Record::parse(line).map_err(|cause| ResumeError::Record { line: number, cause })?)
        };
        if !self.begun && !matches!(record, Some(Record::Export(_))) {
            return Err(ResumeError::Record { line: number, cause: RecordError::Unknown });
        }
        self.begun = true;
        let note = |text: &str| {
            let checkpoint = Note::parse_or_unsigned(text.as_bytes())
                .ok()
                .and_then(|note| Checkpoint::parse(note.text()).ok());
            checkpoint.ok_or(ResumeError::Note { line: number })
        };
        self.point.lines += 1;
        match record {
            Some(Record::Export(header)) => {
                if header.kind == Kind::Selection {
                    return Err(ResumeError::Selection);
                }
                self.point.lines = 1;
                self.point.origin = header.origin.or_else(|| self.point.origin.take());
                return Ok(false);
            }
            Some(Record::Start(start)) => {
                self.point.tree_size = start.tree_size;
                self.point.root = start
                    .note
                    .as_deref()
                    .map(note)
                    .transpose()?
                    .map(|checkpoint| *checkpoint.root());
                return Ok(true);
            }
            Some(Record::Consistency { .. }) => return Ok(true),
            Some(Record::Checkpoint(checkpoint)) => {
                let note = note(&checkpoint.note)?;
                self.point.origin = Some(note.origin().to_owned());
                let entries = checkpoint.tree_size.saturating_sub(self.point.tree_size);
                self.waiting = Some((entries, checkpoint.tree_size, *note.root()));
                return Ok(false);
            }
            Some(Record::End(_)) => {
                self.point.lines = 0;
                self.waiting = None;
                return Ok(true);
            }
            _ => {}
        }
        let Some((waiting, tree_size, root)) = &mut self.waiting else { return Ok(false) };
        *waiting = waiting.saturating_sub(1);
        if *waiting > 0 {
            return Ok(false);
        }
        (self.point.tree_size, self.point.root) = (*tree_size, Some(*root));
        self.waiting = None;
        Ok(true)
    }
}
