//! Opens files that are plain or compressed with zstd. The first bytes of a file show whether the
//! file is compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The largest window that a compressed file can have, as a power of two: 128 MiB. The program
/// `zstd` has the same limit by default. The limit bounds the memory for decompressing a hostile
/// file.
pub const MAX_WINDOW_LOG: u32 = 27;

const FRAME: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();

/// Opens a file. The path `-` stands for standard input.
pub fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    if path.as_os_str() == "-" { open_reader(io::stdin()) } else { open_reader(File::open(path)?) }
}

/// Returns a reader of the uncompressed content of `reader`. Plain input is not changed.
pub fn open_reader(reader: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::with_capacity(1 << 17, reader);
    if is_compressed(fill(&mut reader)?) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(reader))
    }
}

/// Returns the first bytes of the input. A read from a pipe can return few bytes. The first write
/// of a program into a pipe contains at least the magic number of a frame.
fn fill(reader: &mut impl BufRead) -> io::Result<&[u8]> {
    reader.fill_buf()
}

/// Returns whether a file that begins with these bytes is compressed. A compressed file begins with
/// the magic number of a zstd frame or of a skippable frame.
pub(crate) fn is_compressed(beginning: &[u8]) -> bool {
    let Some(magic) = beginning.first_chunk() else { return false };
    *magic == FRAME || u32::from_le_bytes(*magic) & 0xFFFF_FFF0 == 0x184D_2A50
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        open_reader(io::Cursor::new(bytes))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn plain_compressed_and_frames_in_a_row() {
        let text = b"a line\n".repeat(1000);
        assert_eq!(read(text.clone()).unwrap(), text);
        assert_eq!(read(Vec::new()).unwrap(), b"");
        let frame = zstd::encode_all(&text[..], 3).unwrap();
        assert_eq!(read(frame.clone()).unwrap(), text);
        assert_eq!(read([&frame[..], &frame].concat()).unwrap(), [&text[..], &text].concat());
        assert!(read(frame[..frame.len() - 1].to_vec()).is_err());
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(MAX_WINDOW_LOG + 1).unwrap();
        io::Write::write_all(&mut encoder, b"x").unwrap();
        let error = read(encoder.finish().unwrap()).unwrap_err();
        assert!(error.to_string().contains("too much memory"), "{error}");
    }
}
