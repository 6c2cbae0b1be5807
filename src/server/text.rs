//! Text as Postgres stores it: a varlena, here in a buffer that Rust owns and uses again for the next row.

use pgrx::{pg_sys, varlena};

/// The header of a varlena: four bytes that hold its whole length.
const HEADER: usize = 4;

/// A text that is built in place and handed to Postgres without being copied.
#[derive(Debug, Clone)]
pub struct Text(Vec<u8>);

impl Text {
    /// An empty text.
    pub fn new() -> Self {
        Text(vec![0; HEADER])
    }

    /// Empties it. A buffer that one huge row blew up is given back.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 20;
        if self.0.capacity() > KEEP {
            self.0 = vec![0; HEADER];
        }
        self.0.truncate(HEADER);
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.len() == HEADER
    }

    /// Where writers append. What they append must be UTF-8; they must not touch what is there.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    /// What was written, as text.
    pub fn as_str(&self) -> &str {
        // SAFETY: what is appended comes from strings and from the server's text, in a database that is UTF-8.
        unsafe { std::str::from_utf8_unchecked(self.bytes()) }
    }

    /// The text as a datum. It points into this buffer: use it before the buffer changes.
    pub fn datum(&mut self) -> pg_sys::Datum {
        debug_assert!(self.0.len() < 1 << 30);
        // SAFETY: the buffer holds at least the header, and a Vec's allocation is aligned for it.
        unsafe { varlena::set_varsize_4b(self.0.as_mut_ptr().cast(), self.0.len() as i32) };
        self.finished_datum()
    }

    /// The same for a text made `From` a string, which is finished from the start.
    pub fn finished_datum(&self) -> pg_sys::Datum {
        // SAFETY: as above.
        debug_assert_eq!(unsafe { varlena::varsize_4b(self.0.as_ptr().cast()) }, self.0.len());
        pg_sys::Datum::from(self.0.as_ptr())
    }

    /// Puts `bytes` (any bytes, for a bytea) in place of what is there, and gives the datum.
    pub fn assign(&mut self, bytes: &[u8]) -> pg_sys::Datum {
        self.0.truncate(HEADER);
        self.0.extend_from_slice(bytes);
        self.datum()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        let mut text = Self::new();
        text.assign(value.as_bytes());
        text
    }
}

/// The bytes of a varlena that may be compressed or stored out of line; in that case they are in the current memory
/// context, else where the value is.
///
/// # Safety
/// `datum` must be a varlena, and neither it nor the current memory context may go before the bytes do.
#[inline]
pub unsafe fn detoasted<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    let mut value = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: the caller says it is a varlena; the packed form is one whose data can be read in place.
    unsafe {
        let in_place =
            if varlena::varatt_is_1b(value) { !varlena::varatt_is_1b_e(value) } else { varlena::varatt_is_4b_u(value) };
        if !in_place {
            value = pg_sys::pg_detoast_datum_packed(value);
        }
        varlena::varlena_to_byte_slice(value)
    }
}

/// A varlena as text. Bytes that are no UTF-8 are an error for the caller to name.
///
/// # Safety
/// As for [`detoasted`].
pub unsafe fn borrowed_text<'a>(datum: pg_sys::Datum) -> Result<&'a str, std::str::Utf8Error> {
    // SAFETY: passed on to the caller.
    std::str::from_utf8(unsafe { detoasted(datum) })
}

/// As much of a text as fits into `limit` bytes of JSON, with "…" at its end where that is not all. Bytes that are no UTF-8 become
/// U+FFFD. Measured as JSON, since each control character takes six bytes there.
pub fn capped(text: &[u8], limit: usize) -> String {
    const ELLIPSIS: char = '…';
    let limit = limit.saturating_sub(ELLIPSIS.len_utf8());
    let (mut out, mut length) = (String::new(), 0);
    for chunk in text.utf8_chunks() {
        let replacement = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for character in chunk.valid().chars().chain(replacement) {
            length += match character {
                '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
                '\0'..=' ' if character != ' ' => 6,
                _ => character.len_utf8(),
            };
            if length > limit {
                out.push(ELLIPSIS);
                return out;
            }
            out.push(character);
        }
    }
    out
}

/// Reads a UUID, with its hyphens or without.
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
    use super::{capped, parse_uuid};

    #[test]
    fn texts_are_cut_by_their_length_in_json() {
        assert_eq!(capped("é\"x".as_bytes(), 100), "é\"x");
        assert_eq!(capped(b"a\xffb", 100), "a\u{fffd}b");
        let cut = capped("\u{1}".repeat(1_000).as_bytes(), 63);
        assert_eq!((cut.chars().count(), cut.chars().last()), (11, Some('…')));
        let cut = capped("ä".repeat(1_000).as_bytes(), 64);
        assert!(cut.len() <= 64 && cut.ends_with('…'), "{cut}");
    }

    #[test]
    fn identities_are_uuids() {
        let expected = [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255];
        assert_eq!(parse_uuid("00112233-4455-6677-8899-aabbccddeeff"), Some(expected));
        assert_eq!(parse_uuid("00112233445566778899AABBCCDDEEFF"), Some(expected));
        for bad in ["", "x", "00112233-4455-6677-8899-aabbccddeef", "00112233-4455-6677-8899-aabbccddeegg", "é"] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
        assert_eq!(parse_uuid("00112233-4455-6677-8899-aabbccddeeff0"), None);
    }
}
