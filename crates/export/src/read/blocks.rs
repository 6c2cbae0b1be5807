//! Splits a file into blocks of whole lines.

use std::collections::VecDeque;
use std::io::{self, Read};
use thiserror::Error;

/// Limits of the memory for reading a file.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum length of a line in bytes, without its newline.
    pub line: usize,
    /// Size of a block in bytes. A block that contains a longer line is larger.
    pub block: usize,
}

/// Maximum number of lines in a block. The limit exists because the parsed form of a very short
/// line can be larger than the line itself.
const MAX_LINES: usize = 8192;

impl Limits {
    /// The default limit for a line, in MiB. No entry that PostgreSQL can store has a longer line.
    /// A row is smaller than 1 GiB. Escapes lengthen only the text of a statement, which has at
    /// most 256 MiB and can become up to six times as long.
    pub const LINE_MIB: u32 = 4096;
}

impl Default for Limits {
    fn default() -> Self {
        Limits { line: (Self::LINE_MIB as usize) << 20, block: 1 << 20 }
    }
}

/// The errors that end reading before the end of the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read, or the compressed data is damaged.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line is longer than the limit.
    #[error("line {line} is longer than {limit} bytes")]
    LineTooLong {
        /// Number of the long line, counted from 1.
        line: u64,
        /// The limit of [`Limits::line`], in bytes.
        limit: usize,
    },
}

/// A block of whole lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Number of the block's first line, counted from 1.
    pub first_line: u64,
    /// The lines of the block, with their newlines. Only the last line of a file can lack its
    /// newline.
    pub bytes: Vec<u8>,
}

impl Block {
    /// Iterates over the lines of the block. Returns the number of each line, and the line without
    /// its newline.
    pub fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let bytes = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let ends = memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]);
        let mut start = 0;
        ends.enumerate().map(move |(i, end)| {
            let line = &bytes[start..end];
            start = end + 1;
            (self.first_line + i as u64, line)
        })
    }
}

/// Iterates over the blocks of a file.
pub struct Blocks<R> {
    reader: R,
    limits: Limits,
    next_line: u64,
    /// The beginning of a line of which the rest was not read yet.
    rest: Vec<u8>,
    ended: bool,
    /// Blocks that were read but not returned yet. One read of very short lines yields several
    /// blocks, because a block has at most `MAX_LINES` lines.
    ready: VecDeque<Block>,
}

impl<R: Read> Blocks<R> {
    /// Returns an iterator over the blocks of `reader`.
    pub fn new(reader: R, limits: Limits) -> Self {
        Blocks {
            reader,
            limits,
            next_line: 1,
            rest: Vec::new(),
            ended: false,
            ready: VecDeque::new(),
        }
    }

    fn read_block(&mut self) -> Result<Option<Block>, ReadError> {
        let mut bytes = std::mem::take(&mut self.rest);
        // `bytes` begins with the rest of the previous block. The rest of the previous block
        // contains no newline, so the search for a newline begins after the rest.
        let mut searched = bytes.len();
        while !self.ended && searched <= self.limits.line {
            // The first pass reads the size of one block. Each further pass doubles `bytes`, until
            // a newline is found.
            let wanted = self.limits.block.max(bytes.len()) as u64;
            bytes.reserve(self.limits.block);
            let read = (&mut self.reader).take(wanted).read_to_end(&mut bytes)?;
            self.ended = (read as u64) < wanted;
            if let Some(end) = memchr::memrchr(b'\n', &bytes[searched..]) {
                self.rest = bytes.split_off(searched + end + 1);
                break;
            }
            searched = bytes.len();
        }
        if self.ended {
            // At the end of the file, `self.rest` is the last line, which can lack its newline.
            bytes.append(&mut self.rest);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let first_line = self.next_line;
        let (mut start, mut cuts) = (0, Vec::new());
        let unended = (!bytes.ends_with(b"\n")).then_some(bytes.len());
        for end in memchr::memchr_iter(b'\n', &bytes).chain(unended) {
            if end - start > self.limits.line {
                return Err(ReadError::LineTooLong {
                    line: self.next_line,
                    limit: self.limits.line,
                });
            }
            start = end + 1;
            self.next_line += 1;
            if (self.next_line - first_line).is_multiple_of(MAX_LINES as u64) && start < bytes.len()
            {
                cuts.push((self.next_line, start));
            }
        }
        for (first_line, start) in cuts.into_iter().rev() {
            self.ready.push_front(Block { first_line, bytes: bytes.split_off(start) });
        }
        Ok(Some(Block { first_line, bytes }))
    }
}

impl<R: Read> Iterator for Blocks<R> {
    type Item = Result<Block, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(block) = self.ready.pop_front() {
            return Some(Ok(block));
        }
        let block = self.read_block();
        if block.is_err() {
            self.ended = true;
            self.rest = Vec::new();
        }
        block.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reader that returns only a few bytes at a time.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len()).min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    proptest! {
        #[test]
        fn the_lines_of_the_file(text in "[a\n]{0,60}", block in 1..20usize, step in 1..9usize) {
            let limits = Limits { line: 100, block };
            let blocks = Blocks::new(Trickle(text.as_bytes(), step), limits);
            let blocks: Vec<Block> = blocks.collect::<Result<_, _>>().unwrap();
            let lines = blocks.iter().flat_map(Block::lines);
            let lines: Vec<_> = lines.map(|(n, line)| (n, line.to_vec())).collect();
            let expected: Vec<_> = text
                .split_terminator('\n')
                .enumerate()
                .map(|(i, line)| (i as u64 + 1, line.as_bytes().to_vec()))
                .collect();
            prop_assert_eq!(lines, expected);
        }

        #[test]
        fn a_line_that_is_too_long(
            text in "[a\n]{0,60}",
            limit in 0..12usize,
            block in 1..20usize,
            step in 1..9usize,
        ) {
            let limits = Limits { line: limit, block };
            let blocks = Blocks::new(Trickle(text.as_bytes(), step), limits);
            let blocks: Result<Vec<Block>, _> = blocks.collect();
            let long = text.split_terminator('\n').position(|line| line.len() > limit);
            match (blocks, long) {
                (Ok(_), None) => {}
                (Err(ReadError::LineTooLong { line, .. }), Some(at)) => {
                    prop_assert_eq!(line, at as u64 + 1)
                }
                (other, long) => prop_assert!(false, "{:?} {:?}", other, long),
            }
        }
    }

    #[test]
    fn very_short_lines_come_in_blocks_that_are_not_too_large() {
        let text = b"\na\n".repeat(3 * MAX_LINES);
        let blocks: Result<Vec<Block>, _> = Blocks::new(&text[..], Limits::default()).collect();
        let blocks = blocks.unwrap();
        assert_eq!(blocks.iter().map(|block| block.lines().count()).max(), Some(MAX_LINES));
        let numbers: Vec<u64> =
            blocks.iter().flat_map(|block| block.lines().map(|(number, _)| number)).collect();
        assert_eq!(numbers, (1..=6 * MAX_LINES as u64).collect::<Vec<_>>());
        assert_eq!(blocks.into_iter().flat_map(|block| block.bytes).collect::<Vec<_>>(), text);
    }

    #[test]
    fn an_endless_line_takes_no_more_memory_than_allowed() {
        let limits = Limits { line: 10_000, block: 100 };
        let mut blocks = Blocks::new(io::repeat(b'x'), limits);
        assert!(matches!(blocks.next(), Some(Err(ReadError::LineTooLong { line: 1, .. }))));
        assert!(blocks.next().is_none());
    }
}
