//! Encodes and decodes base64 as the C2SP formats require. The encoding is that of RFC 4648,
//! section 4, with padding. For each byte sequence, the decoder accepts exactly one text.

use crate::merkle::Hash;
use base64::{Engine, engine::general_purpose::STANDARD};

/// Encodes `bytes` as base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes base64. Returns None if `text` is not exactly what [`base64`] writes for the decoded
/// bytes. For example, missing padding, white space, and unused bits that are not zero are refused.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Decodes a SHA-256 hash from base64.
pub(crate) fn hash_from_base64(text: &str) -> Option<Hash> {
    // The base64 of 32 bytes has exactly 44 characters, so a text of any other length is refused
    // without decoding.
    if text.len() == 44 { from_base64(text)?.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        assert_eq!(from_base64("AAE="), Some(vec![0, 1]));
        for text in
            ["AAE", "AAF=", "AAE=\n", " AAE=", "AA-_", "AA E=", "AAE==", "=", "A===", "AAE=AAE="]
        {
            assert_eq!(from_base64(text), None, "{text:?}");
        }
    }
}
