//! Lines from a file, plain or compressed, in blocks of whole lines: streaming, and with bounded
//! memory whatever the file is.

mod blocks;
mod source;

pub use blocks::{Block, Blocks, Limits, ReadError};
pub(crate) use source::is_compressed;
pub use source::{MAX_WINDOW_LOG, open, open_reader};
