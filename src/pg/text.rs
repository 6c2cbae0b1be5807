//! Holds text in PostgreSQL's form, which is a varlena. Rust owns the buffer of a text, and reuses
//! the buffer for the next row.
//!
//! A [`Text`] is always UTF-8 without NUL. Bytes from the server may be invalid UTF-8 or contain
//! NUL. When the library makes a `Text` from bytes of the server, it checks the bytes once. Bytes
//! that are not UTF-8, or that contain NUL, are percent-encoded (docs/FORMAT.md, section 3.1).

use super::ServerError;
use ledger::Sink;
use ledger::canonical::{percent_encoded, write_bytes_value, write_string_bytes};
use pgrx::{PgSqlErrorCode, pg_sys, varlena};
use std::ffi::CStr;

/// The length of a varlena's header, in bytes. The header contains the length of the whole varlena.
const HEADER: usize = 4;

/// The maximum length of a text, in bytes. A string in jsonb has the same maximum
/// (JENTRY_OFFLENMASK), and the view lead_audit.log converts stored texts to jsonb.
const LIMIT: usize = 0x0FFF_FFFF;

/// A text that is built in its buffer and passed to PostgreSQL without a copy.
///
/// The buffer is empty or a complete varlena. The varlena's content is UTF-8 without NUL.
#[derive(Debug, Clone, Default)]
pub struct Text {
    buffer: Vec<u8>,
    is_encoded: bool,
}

/// The reason why [`Text::write`] could not store a text. After this error, the `Text` is empty.
#[derive(Debug, Clone)]
pub enum NotWritten {
    /// The written bytes are not UTF-8, or contain NUL.
    NotText,
    /// The text is too long, memory is exhausted, or the function that writes the text has returned
    /// an error.
    Failed(ServerError),
}

impl From<NotWritten> for ServerError {
    fn from(reason: NotWritten) -> Self {
        match reason {
            NotWritten::Failed(error) => error,
            NotWritten::NotText => ServerError {
                code: PgSqlErrorCode::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
                message: "a text has bytes that are not UTF-8".to_owned(),
                detail: None,
            },
        }
    }
}

impl Text {
    /// Returns an empty text.
    pub fn new() -> Self {
        Text::from("")
    }

    /// Makes a text from the server's bytes. Percent-encodes the bytes if they are not UTF-8 or
    /// contain NUL.
    pub fn from_server(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Text { buffer: finished(text), is_encoded: false },
            _ => Text { buffer: finished(&percent_encoded(bytes)), is_encoded: true },
        }
    }

    /// Returns whether the text is percent-encoded, because the server's bytes were not UTF-8 or
    /// contained NUL.
    pub fn is_encoded(&self) -> bool {
        self.is_encoded
    }

    /// Empties the text. Keeps the buffer for the next text, but frees a buffer that has more than
    /// KEEP bytes.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 20;
        if self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.is_encoded = false;
    }

    /// Returns whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.buffer.len() <= HEADER
    }

    /// Replaces the text by the bytes that `work` writes. After an error the text is empty.
    pub fn write<R>(
        &mut self,
        work: impl FnOnce(&mut TextWriter) -> Result<R, ServerError>,
    ) -> Result<R, NotWritten> {
        // While `work` runs, the writer owns the buffer. If `work` unwinds, the text stays empty,
        // and an empty text is valid.
        let mut output = TextWriter::new(std::mem::take(&mut self.buffer));
        self.is_encoded = false;
        let result = work(&mut output).map_err(NotWritten::Failed)?;
        self.buffer = output.finish()?;
        Ok(result)
    }

    /// Returns the content as bytes.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(HEADER..).unwrap_or_default()
    }

    /// Returns the content as a string.
    pub fn as_str(&self) -> &str {
        // SAFETY: only this module fills the buffer. The content comes from a `&str`, or from
        // TextWriter::finish(), which has checked that the content is UTF-8.
        unsafe { std::str::from_utf8_unchecked(self.bytes()) }
    }

    /// Converts the text into a string, without an allocation.
    pub fn into_string(mut self) -> String {
        self.buffer.drain(..HEADER.min(self.buffer.len()));
        // SAFETY: the content is UTF-8, as the comment in `as_str` explains.
        unsafe { String::from_utf8_unchecked(self.buffer) }
    }

    /// Returns the text as a datum. The datum points into the buffer, and is valid until the buffer
    /// changes.
    pub fn datum(&self) -> pg_sys::Datum {
        static EMPTY: Aligned<HEADER> = Aligned(header(HEADER));
        let varlena = if self.buffer.is_empty() { EMPTY.0.as_ptr() } else { self.buffer.as_ptr() };
        pg_sys::Datum::from(varlena)
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        Text::from_server(value.as_bytes())
    }
}

/// Makes a complete varlena of a text.
fn finished(text: &str) -> Vec<u8> {
    // Cuts the text to LIMIT bytes. In practice, no text that this function gets is longer than
    // LIMIT. Only Text::write() makes texts of any length. Text::write() does not call this
    // function, and returns an error for a text that is longer than LIMIT.
    let text = &text[..text.floor_char_boundary(LIMIT)];
    let mut buffer = Vec::with_capacity(HEADER + text.len());
    buffer.extend_from_slice(&header(HEADER + text.len()));
    buffer.extend_from_slice(text.as_bytes());
    buffer
}

/// Returns the header of a varlena with this total length. The header is that of a varlena that is
/// uncompressed and stored in line (SET_VARSIZE_4B in varatt.h).
const fn header(length: usize) -> [u8; HEADER] {
    let length = length as u32;
    if cfg!(target_endian = "big") { length.to_ne_bytes() } else { (length << 2).to_ne_bytes() }
}

/// Bytes with the alignment that PostgreSQL requires for a varlena.
#[repr(align(4))]
#[derive(Debug)]
struct Aligned<const N: usize>([u8; N]);

/// A bytea that contains a hash of 32 bytes.
#[derive(Debug)]
pub struct Hash32(Aligned<{ HEADER + 32 }>);

impl Hash32 {
    /// Stores a hash and returns the datum. The datum points into `self`, and is valid until the
    /// next call of this function.
    pub fn assign(&mut self, hash: &[u8; 32]) -> pg_sys::Datum {
        self.0.0[HEADER..].copy_from_slice(hash);
        pg_sys::Datum::from(self.0.0.as_ptr())
    }
}

impl Default for Hash32 {
    fn default() -> Self {
        let mut bytes = [0; HEADER + 32];
        bytes[..HEADER].copy_from_slice(&header(HEADER + 32));
        Hash32(Aligned(bytes))
    }
}

/// A writer for the content of a [`Text`]. If memory is exhausted or the text becomes too long, the
/// writer ignores further writes, and [`Text::write`] returns the error. A failed allocation never
/// ends the process.
#[derive(Debug)]
pub struct TextWriter {
    /// The space for the header, followed by the written bytes.
    buffer: Vec<u8>,
    has_nul: bool,
    /// The value is `None` as long as all writes fit. If a write did not fit, the value is the
    /// length that the text would have had with this write.
    overflow: Option<usize>,
}

impl TextWriter {
    /// Makes a writer that reuses `buffer`. Discards the buffer's content.
    fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        let mut output = TextWriter { buffer, has_nul: false, overflow: None };
        output.append(&[0; HEADER]);
        output
    }

    /// Makes a writer for a single JSON value. [`append_value`](Self::append_value) later adds the
    /// value to another writer.
    pub fn apart() -> Self {
        TextWriter::new(Vec::new())
    }

    /// Appends bytes as a JSON string. The writer checks whether the bytes are UTF-8 only when the
    /// whole text is complete.
    pub fn append_json_string(&mut self, bytes: &[u8]) {
        if write_string_bytes(self, bytes) {
            self.note_nul();
        }
    }

    /// Returns the number of written bytes.
    pub fn len(&self) -> usize {
        self.buffer.len().saturating_sub(HEADER)
    }

    /// Returns the written bytes.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(HEADER..).unwrap_or_default()
    }

    /// Keeps only the first `length` of the written bytes.
    pub fn truncate(&mut self, length: usize) {
        self.buffer.truncate(HEADER + length);
    }

    /// Notes that a NUL was written as `\u0000`, which jsonb does not accept.
    pub fn note_nul(&mut self) {
        self.has_nul = true;
    }

    /// Notes that an allocation of this many bytes failed.
    pub fn note_overflow(&mut self, bytes: usize) {
        self.overflow.get_or_insert(self.len().saturating_add(bytes));
    }

    /// Returns whether a write did not fit. After a write that did not fit, the writer ignores all
    /// further writes.
    pub fn has_overflowed(&self) -> bool {
        self.overflow.is_some()
    }

    /// Appends the JSON value of another writer. If the value is not UTF-8 or contains NUL, appends
    /// in its place the JSON object that docs/FORMAT.md, section 3.1, defines for invalid bytes,
    /// and returns false.
    pub fn append_value(&mut self, value: &TextWriter) -> bool {
        if value.has_overflowed() {
            self.overflow = value.overflow;
        }
        let is_text = !value.has_nul && std::str::from_utf8(value.bytes()).is_ok();
        if is_text {
            self.append(value.bytes());
        } else {
            write_bytes_value(self, value.bytes());
        }
        is_text
    }

    fn finish(mut self) -> Result<Vec<u8>, NotWritten> {
        let length = self.overflow.unwrap_or(self.len());
        if length > LIMIT {
            return Err(NotWritten::Failed(ServerError {
                code: PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                message: format!(
                    "the row's JSON is longer than an audit entry can hold (at least {length} of \
                     {LIMIT} bytes)"
                ),
                detail: None,
            }));
        }
        if self.has_overflowed() {
            return Err(NotWritten::Failed(out_of_memory(length)));
        }
        if self.has_nul || std::str::from_utf8(self.bytes()).is_err() {
            return Err(NotWritten::NotText);
        }
        let header = header(self.buffer.len());
        self.buffer[..HEADER].copy_from_slice(&header);
        Ok(self.buffer)
    }

    #[inline]
    fn has_room(&mut self, additional: usize) -> bool {
        self.buffer.capacity() - self.buffer.len() >= additional || self.grow(additional)
    }

    #[cold]
    fn grow(&mut self, additional: usize) -> bool {
        // `try_reserve` tries to double the buffer. If the buffer cannot be doubled,
        // `try_reserve_exact` reserves no more bytes than necessary.
        let grown = !self.has_overflowed()
            && self.len().saturating_add(additional) <= LIMIT
            && (self.buffer.try_reserve(additional).is_ok()
                || self.buffer.try_reserve_exact(additional).is_ok());
        if !grown {
            self.note_overflow(additional);
        }
        grown
    }
}

/// Returns the error for a failed allocation, in PostgreSQL's words.
pub fn out_of_memory(bytes: usize) -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        message: "out of memory".to_owned(),
        detail: Some(format!("Failed on request of {bytes} bytes for an audit entry.")),
    }
}

impl Sink for TextWriter {
    #[inline]
    fn push(&mut self, byte: u8) {
        if self.has_room(1) {
            self.buffer.push(byte);
        }
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    #[inline]
    fn reserve(&mut self, additional: usize) {
        self.has_room(additional);
    }
}

/// Returns the content of a varlena. Expands a varlena that is compressed or stored out of line
/// into the current memory context. For any other varlena, the result points into the varlena
/// itself.
///
/// # Safety
/// `datum` must be a varlena. The varlena and the current memory context must outlive the result.
#[inline]
pub unsafe fn detoasted<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    let mut value = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: `datum` is a varlena (see # Safety). The code reads a varlena with a header of one
    // byte without copying it.
    unsafe {
        let in_place = if varlena::varatt_is_1b(value) {
            !varlena::varatt_is_1b_e(value)
        } else {
            varlena::varatt_is_4b_u(value)
        };
        if !in_place {
            value = pg_sys::pg_detoast_datum_packed(value);
        }
        varlena::varlena_to_byte_slice(value)
    }
}

/// The output function of a type, for example `pg_sys::numeric_out`.
pub type OutputFunction = unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

/// Calls the output function of a type, and returns the text of the value. The text is in the
/// current memory context.
///
/// # Safety
/// `output` must be the output function of the type of `datum`.
pub unsafe fn output_text<'a>(output: OutputFunction, datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: an output function returns a C string in the current memory context, and never NULL.
    unsafe {
        match pgrx::direct_function_call_as_datum(output, &[Some(datum)]) {
            Some(text) => CStr::from_ptr(text.cast_mut_ptr()).to_bytes(),
            None => b"",
        }
    }
}

/// Returns the content of a varlena as a string. Returns an error if the content is not UTF-8.
///
/// # Safety
/// `datum` must be a varlena. The varlena and the current memory context must outlive the result.
pub unsafe fn borrowed_text<'a>(datum: pg_sys::Datum) -> Result<&'a str, std::str::Utf8Error> {
    // SAFETY: `datum` meets the requirements of `detoasted`, which are those of this function (see
    // # Safety).
    std::str::from_utf8(unsafe { detoasted(datum) })
}

/// Reads a UUID, with or without hyphens. Returns `None` if the text is not a UUID.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let (mut uuid, mut digits) = ([0_u8; 16], 0);
    for character in text.chars().filter(|&c| c != '-') {
        let byte = uuid.get_mut(digits / 2)?;
        *byte = *byte << 4 | character.to_digit(16)? as u8;
        digits += 1;
    }
    (digits == 32).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_uuids() {
        let expected = [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255];
        assert_eq!(parse_uuid("00112233-4455-6677-8899-aabbccddeeff"), Some(expected));
        assert_eq!(parse_uuid("00112233445566778899AABBCCDDEEFF"), Some(expected));
        for bad in [
            "",
            "x",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeegg",
            "é",
        ] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
        assert_eq!(parse_uuid("00112233-4455-6677-8899-aabbccddeeff0"), None);
    }

    fn write(text: &mut Text, bytes: &[u8]) -> Result<(), NotWritten> {
        text.write(|out| {
            out.append(bytes);
            Ok(())
        })
    }

    fn error() -> ServerError {
        ServerError {
            code: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            message: "error".to_owned(),
            detail: None,
        }
    }

    #[test]
    fn a_text_is_utf8() {
        let mut text = Text::from("before");
        assert!(write(&mut text, "é".as_bytes()).is_ok());
        assert_eq!(text.as_str(), "é");
        assert!(matches!(write(&mut text, b"caf\xe9"), Err(NotWritten::NotText)));
        assert_eq!((text.as_str(), text.is_empty()), ("", true));
        let with_nul = text.write(|out| {
            out.note_nul();
            Ok(())
        });
        assert!(matches!(with_nul, Err(NotWritten::NotText)));
        assert_eq!(Text::from_server(b"caf\xe9\0").into_string(), "caf%E9%00");
        assert!(Text::from_server(b"\xe9").is_encoded() && !Text::from("100%").is_encoded());
    }

    #[test]
    fn an_error_leaves_an_empty_text() {
        let mut text = Text::from("before");
        let result = text.write(|out| {
            out.append(b"\xff");
            Err::<(), _>(error())
        });
        assert!(matches!(result, Err(NotWritten::Failed(_))) && text.as_str().is_empty());
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            text.write(|out| -> Result<(), ServerError> {
                out.append(b"\xff");
                std::panic::resume_unwind(Box::new(()));
            })
        }));
        assert!(unwound.is_err() && text.as_str().is_empty());
    }

    #[test]
    fn a_text_may_be_too_long() {
        let mut text = Text::new();
        let result = text.write(|out| {
            out.reserve(LIMIT + 1);
            out.append(b"more");
            Ok(())
        });
        let Err(NotWritten::Failed(error)) = result else { panic!("it fits") };
        assert_eq!(error.code, PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED);
        assert!(text.is_empty());
    }

    #[test]
    fn headers_are_those_of_postgres() {
        for text in ["", "é", &"x".repeat(100_000)] {
            let text = Text::from(text);
            let mut expected = 0_u32;
            // SAFETY: `expected` has four aligned bytes.
            unsafe {
                varlena::set_varsize_4b(
                    (&raw mut expected).cast(),
                    (HEADER + text.bytes().len()) as i32,
                )
            };
            assert_eq!(text.buffer[..HEADER], expected.to_ne_bytes());
        }
    }
}
