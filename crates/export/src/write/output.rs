//! Writes the lines of exports to a plain or compressed file.

use crate::Record;
use std::io::{self, BufWriter, Write};

/// The compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The file is not compressed.
    None,
    /// The file is compressed with zstd, at a level from 1 to 19.
    Zstd(i32),
}

/// Number of uncompressed bytes in a frame after which the next call of `border` begins a new
/// frame. Short frames limit the data that an interruption destroys, because an incomplete frame is
/// lost.
const FRAME_BYTES: u64 = 16 << 20;

/// Writes the lines of exports to a file. A compressed file is a sequence of frames. An interrupted
/// file is intact up to the end of its last complete frame.
pub struct Output<W: Write> {
    inner: Inner<W>,
    compression: Compression,
    frame_bytes: u64,
    frame_limit: u64,
    line: Vec<u8>,
    lines: u64,
    bytes: u64,
}

enum Inner<W: Write> {
    Plain(BufWriter<W>),
    Zstd(Box<zstd::stream::write::Encoder<'static, BufWriter<W>>>),
    /// There is no target to write to. This variant occurs only while a frame is being ended, and
    /// after an error.
    Nothing,
}

fn closed() -> io::Error {
    io::Error::other("an earlier write failed")
}

impl<W: Write> Output<W> {
    /// Returns an output that writes to `file`. `lines` is the number of lines of the current
    /// export that the file already contains.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn new(file: W, compression: Compression, lines: u64) -> io::Result<Self> {
        let inner = open(BufWriter::with_capacity(1 << 17, file), compression)?;
        let frame_limit = FRAME_BYTES;
        Ok(Output {
            inner,
            compression,
            frame_bytes: 0,
            frame_limit,
            line: Vec::new(),
            lines,
            bytes: 0,
        })
    }

    /// Sets the number of uncompressed bytes after which a new frame begins.
    #[must_use]
    pub fn with_frames_of(mut self, bytes: u64) -> Self {
        self.frame_limit = bytes;
        self
    }

    /// Writes a record as one line.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        record.write(&mut self.line);
        match &mut self.inner {
            Inner::Plain(file) => file.write_all(&self.line)?,
            Inner::Zstd(file) => file.write_all(&self.line)?,
            Inner::Nothing => return Err(closed()),
        }
        self.lines += 1;
        self.bytes += self.line.len() as u64;
        self.frame_bytes += self.line.len() as u64;
        // The buffer of a very long line is freed, so that it does not occupy memory until the
        // export ends.
        if self.line.capacity() > 1 << 24 {
            self.line = Vec::new();
        }
        Ok(())
    }

    /// Marks the current position as a border. The file of an interrupted export can be continued
    /// from a border.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn border(&mut self) -> io::Result<()> {
        if self.compression != Compression::None && self.frame_bytes >= self.frame_limit {
            let file = self.close()?;
            self.inner = open(file, self.compression)?;
            self.frame_bytes = 0;
        }
        Ok(())
    }

    /// Returns the number of lines of the current export.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Returns the number of bytes that were written, counted without compression.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins an export. `lines` counts the lines of this export from 0.
    pub(super) fn begin_export(&mut self) {
        self.lines = 0;
    }

    /// Writes the buffers, and returns the file.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        let file = self.close()?;
        file.into_inner().map_err(io::IntoInnerError::into_error)
    }

    fn close(&mut self) -> io::Result<BufWriter<W>> {
        let mut file = match std::mem::replace(&mut self.inner, Inner::Nothing) {
            Inner::Plain(file) => file,
            Inner::Zstd(encoder) => encoder.finish()?,
            Inner::Nothing => return Err(closed()),
        };
        file.flush()?;
        Ok(file)
    }
}

fn open<W: Write>(file: BufWriter<W>, compression: Compression) -> io::Result<Inner<W>> {
    Ok(match compression {
        Compression::None => Inner::Plain(file),
        Compression::Zstd(level) => {
            let mut encoder = zstd::stream::write::Encoder::new(file, level)?;
            encoder.include_checksum(true)?;
            Inner::Zstd(Box::new(encoder))
        }
    })
}
