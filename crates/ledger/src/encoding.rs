//! Base64 as the C2SP formats have it: RFC 4648 section 4, padded, and only in its one canonical
//! spelling.

use crate::merkle::Hash;
use base64::{Engine, engine::general_purpose::STANDARD};

/// The base64 of `bytes`.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes that `text` is the base64 of. None if it is not, or if it is one that [`base64`] would
/// not have written (without its padding, with white space, with bits set that belong to no byte).
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The hash that `text` is the base64 of.
pub(crate) fn hash_from_base64(text: &str) -> Option<Hash> {
    // 32 bytes take 44 characters: a longer text is not decoded at all.
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
