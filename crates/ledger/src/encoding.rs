//! Encodes and decodes base64 as the C2SP formats use it: RFC 4648 section 4, padded, and only in
//! the canonical spelling.

use crate::merkle::Hash;
use base64::{Engine, engine::general_purpose::STANDARD};

/// Encodes `bytes` as base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes base64. None if `text` is malformed, or if [`base64`] would not write `text` (because
/// padding is missing, or white space or unused bits are present).
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Decodes a hash from base64.
pub(crate) fn hash_from_base64(text: &str) -> Option<Hash> {
    // The base64 of 32 bytes has 44 characters, so a text of another length is not decoded.
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
