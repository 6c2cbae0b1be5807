//! Computes the hashes of the format with the crate `sha2`, which uses the SHA instructions of the
//! processor if the processor has them.

use sha2::{Digest, Sha256};

/// Returns the SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns the key hash, by which `history()` finds the entries of a row. A key hash is small
/// enough for an index, even if the row key is large.
///
/// The key hash is the first eight bytes of SHA-256(`watch_id` ‖ `row_key`), as a big-endian
/// integer in two's complement. `row_key` is the canonical JSON in the column of this name. Two row
/// keys can have the same key hash, so a search must also compare the row key of each entry that it
/// finds.
pub fn key_hash(watch_id: &[u8; 16], row_key: &[u8]) -> i64 {
    let digest = Sha256::new().chain_update(watch_id).chain_update(row_key).finalize();
    first_eight_bytes(&digest.into())
}

/// Returns the first eight bytes of a hash as a big-endian integer in two's complement.
pub(crate) fn first_eight_bytes(digest: &[u8; 32]) -> i64 {
    digest[..8].iter().fold(0, |hash, &byte| hash << 8 | i64::from(byte))
}

/// Returns the leaf of an entry: the hash SHA-256(0x00 ‖ checksum) of RFC 6962 section 2.1.
pub fn leaf_hash(checksum: &[u8; 32]) -> [u8; 32] {
    let mut leaf = [0; 33];
    leaf[1..].copy_from_slice(checksum);
    sha256(&leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected key hashes were computed with Python's hashlib:
    // int.from_bytes(sha256(bytes(range(16)) + key).digest()[:8], 'big', signed=True)
    #[test]
    fn key_hash_has_a_sign() {
        let watch_id = core::array::from_fn(|i| i as u8);
        assert_eq!(key_hash(&watch_id, br#"{"id":1}"#), -1_004_767_240_963_570_912);
        assert_eq!(key_hash(&watch_id, br#"{"id":2}"#), 6_133_484_418_262_034_749);
    }

    #[test]
    fn leaf_has_its_prefix() {
        assert_eq!(
            hex::encode(leaf_hash(&[0; 32])),
            "7f9c9e31ac8256ca2f258583df262dbc7d6f68f2a03043d5c99a4ae5a7396ce9"
        );
    }
}
