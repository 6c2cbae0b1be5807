//! Reads a plain or compressed file in blocks of whole lines. The memory for reading does not
//! depend on the size of the file.

mod blocks;
mod source;

pub use blocks::{Block, Blocks, Limits, ReadError};
pub(crate) use source::is_compressed;
pub use source::{MAX_WINDOW_LOG, open, open_reader};
