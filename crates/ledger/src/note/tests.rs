use super::*;
use crate::note::{SigningKey, VerifierKey};

/// The example of Go's `golang.org/x/mod/sumdb/note`.
const SIGNING_KEY: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const VERIFIER_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const SIGNATURE: &str =
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn as_go_signs_it() {
    let key = SigningKey::from_text(SIGNING_KEY).unwrap();
    assert_eq!(key.verifier().to_string(), VERIFIER_KEY);
    assert_eq!(*key.to_text(), format!("{SIGNING_KEY}\n"));
    let mut note = Note::new(TEXT).unwrap();
    assert_eq!(note.to_string(), TEXT);
    note.add(key.sign(TEXT)).unwrap();
    assert_eq!(note.to_string(), format!("{TEXT}\n{SIGNATURE}"));
    assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note.clone()));
    let keys = [VerifierKey::from_text(VERIFIER_KEY).unwrap()];
    assert_eq!(note.verify(&keys), Ok(vec![Verified { key: &keys[0], time: None }]));
}
