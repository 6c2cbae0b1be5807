//! Orders the keys of an object by UTF-16 code units (RFC 8785 section 3.2.3), without converting
//! the keys from UTF-8 to UTF-16.

use core::cmp::Ordering;

/// Compares two unescaped keys by their UTF-16 code units.
///
/// The order of UTF-16 code units is the order of UTF-8 bytes, with one exception. Characters above
/// U+FFFF sort before U+E000 to U+FFFF, because UTF-16 writes characters above U+FFFF as
/// surrogates.
#[inline]
pub fn compare_keys(a: &str, b: &str) -> Ordering {
    compare_utf8(a.bytes(), b.bytes())
}

/// Compares keys in the order of [`compare_keys`], but accepts any bytes. Keys that are not UTF-8
/// have an arbitrary but total order.
#[inline]
pub fn compare_key_bytes(a: &[u8], b: &[u8]) -> Ordering {
    compare_utf8(a.iter().copied(), b.iter().copied())
}

/// Compares the bytes of two UTF-8 strings in the order of [`compare_keys`].
#[inline]
pub(super) fn compare_utf8(a: impl Iterator<Item = u8>, b: impl Iterator<Item = u8>) -> Ordering {
    a.map(utf16_rank).cmp(b.map(utf16_rank))
}

/// Returns the rank of one byte of a UTF-8 string. The first bytes of U+E000 to U+FFFF (EE, EF)
/// rank above the first bytes of the characters beyond U+FFFF (F0 to F4). In UTF-8, a byte from EE
/// to F4 is always the first byte of a character, so comparing the ranks of single bytes is enough.
#[inline]
fn utf16_rank(byte: u8) -> u8 {
    match byte {
        0xf0.. => byte - 2,
        0xee..=0xef => byte + 0x10,
        _ => byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn surrogates_before_the_private_use_area() {
        assert_eq!(compare_keys("\u{1f600}", "\u{e000}"), Ordering::Less);
        assert_eq!(compare_keys("\u{10ffff}", "\u{ffff}"), Ordering::Less);
        assert_eq!(compare_keys("\u{d7ff}", "\u{10000}"), Ordering::Less);
        assert_eq!(compare_keys("a", "ab"), Ordering::Less);
        assert_eq!(compare_keys("", ""), Ordering::Equal);
    }

    #[test]
    fn the_example_of_rfc_8785() {
        let mut keys = ["€", "\r", "\u{fb33}", "1", "\u{1f600}", "\u{80}", "ö"];
        keys.sort_by(|a, b| compare_keys(a, b));
        assert_eq!(keys, ["\r", "1", "\u{80}", "ö", "€", "\u{1f600}", "\u{fb33}"]);
    }

    #[test]
    fn no_two_bytes_have_the_same_rank() {
        let ranks: std::collections::HashSet<u8> = (0..=255).map(utf16_rank).collect();
        assert_eq!(ranks.len(), 256);
    }

    proptest! {
        #[test]
        fn is_the_order_of_utf16(
            shared in "[a\u{d7ff}\u{e000}\u{10000}]{0,3}",
            a in "[a\u{7f}é\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,3}",
            b in "[a\u{7f}é\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,3}",
            x in any::<String>(), y in any::<String>(),
        ) {
            for (a, b) in [(shared.clone() + &a, shared + &b), (x, y)] {
                prop_assert_eq!(compare_keys(&a, &b), a.encode_utf16().cmp(b.encode_utf16()));
            }
        }
    }
}
