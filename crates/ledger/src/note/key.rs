//! Implements the keys of signed notes. Keys have the text forms of Go's
//! `golang.org/x/mod/sumdb/note`:
//!
//! * `<name>+<key id>+<base64(algorithm ‖ public key)>`: a public key, which C2SP calls vkey
//! * `PRIVATE+KEY+<name>+<key id>+<base64(algorithm ‖ seed)>`: a private key
//!
//! The text of a private key contains the id of its public key. A key id is written as eight
//! lowercase hexadecimal digits.

use super::Signature;
use crate::cosignature;
use crate::encoding::{base64, from_base64};
use crate::hash::sha256;
use ed25519_dalek::Signer;
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// Size of an Ed25519 signature in bytes, RFC 8032.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// The algorithm and purpose of a key: C2SP signed-note, "Signature types".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// 0x01: Ed25519 over the text of the note. Logs sign their checkpoints with this signature
    /// type.
    Ed25519,
    /// 0x04: Ed25519 over the text of the note and a time (C2SP tlog-cosignature). Witnesses cosign
    /// with this signature type.
    CosignatureV1,
}

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Algorithm::Ed25519 => 0x01,
            Algorithm::CosignatureV1 => 0x04,
        }
    }
}

/// The reasons why the text of a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text does not have the form of a verifier key.
    #[error("not a verifier key: it does not have the form NAME+ID+KEY")]
    NotAVerifierKey,
    /// The text does not have the form of a signing key.
    #[error("not a signing key: it does not have the form PRIVATE+KEY+NAME+ID+KEY")]
    NotASigningKey,
    /// The text is a private key, but a public key is required.
    #[error("this is a private key; a verifier key is wanted")]
    Private,
    /// The name is empty or has a space, a plus or a control character.
    #[error(
        "the name {0:?} of the key is empty or has a space, a plus sign or a control character"
    )]
    Name(String),
    /// The name of a log or a witness is too long.
    #[error("the name of the key is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong,
    /// The key id in the text does not match the name and the key.
    #[error("the key has the id {expected:08x}, not {found:08x}: its text is damaged")]
    Id {
        /// The id computed from the name and the key.
        expected: u32,
        /// The id in the text.
        found: u32,
    },
    /// This crate does not support the algorithm of the key.
    #[error("the key is of the unknown signature type 0x{0:02x}")]
    Algorithm(u8),
    /// The algorithm of the key is not the required algorithm.
    #[error(
        "the key is of signature type 0x{:02x}; one of type 0x{:02x} is wanted",
        .found.byte(), .wanted.byte()
    )]
    OtherAlgorithm {
        /// The algorithm of the key.
        found: Algorithm,
        /// The required algorithm.
        wanted: Algorithm,
    },
    /// The key is not 32 bytes long.
    #[error("the key is {0} bytes long instead of 32")]
    Length(usize),
    /// The public key is not a point of the curve, or is a weak key. Anyone can make signatures
    /// that a weak key accepts.
    #[error("the key is not a point of Ed25519 that can be trusted")]
    Point,
    /// The system's random number generator failed.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Maximum size of a key's name in bytes. The formats of keys set no limit, but C2SP
/// tlog-cosignature limits the names of logs and witnesses to 255 bytes.
const MAX_NAME_BYTES: usize = 255;

/// Maximum size of a key's text in bytes. The text of every valid key is shorter than this maximum.
const MAX_TEXT_BYTES: usize = 512;

/// Returns whether `name` is allowed as the name of a key (C2SP signed-note, "Format"). The name
/// must not be empty, and must not contain a Unicode space, a plus sign or a control character.
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|character| character.is_whitespace() || character < ' ' || character == '+')
}

fn check_name(name: &str) -> Result<(), KeyError> {
    if !is_key_name(name) {
        return Err(KeyError::Name(name.to_owned()));
    }
    if name.len() > MAX_NAME_BYTES { Err(KeyError::NameTooLong) } else { Ok(()) }
}

/// Returns the id of a key: the first four bytes of SHA-256(name ‖ 0x0A ‖ algorithm ‖ public key)
/// (C2SP signed-note, "Signatures").
fn key_id(name: &str, algorithm: Algorithm, public: &[u8; 32]) -> u32 {
    let digest = sha256(&[name.as_bytes(), b"\n", &[algorithm.byte()], public].concat());
    digest[..4].iter().fold(0, |id, &byte| id << 8 | u32::from(byte))
}

/// The parts of a key's text.
struct Parts<'a> {
    name: &'a str,
    id: u32,
    algorithm: Algorithm,
    key: Zeroizing<[u8; 32]>,
}

/// Parses `<name>+<key id>+<base64(algorithm ‖ key)>`.
fn parse(text: &str, malformed: KeyError) -> Result<Parts<'_>, KeyError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(malformed);
    }
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed);
    };
    check_name(name)?;
    if id.len() != 8 || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(malformed);
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| malformed.clone())?;
    let key = Zeroizing::new(from_base64(key).ok_or(malformed.clone())?);
    let (algorithm, key) = key.split_first().ok_or(malformed)?;
    let algorithm = match algorithm {
        0x01 => Algorithm::Ed25519,
        0x04 => Algorithm::CosignatureV1,
        other => return Err(KeyError::Algorithm(*other)),
    };
    let key = key.try_into().map_err(|_| KeyError::Length(key.len()))?;
    Ok(Parts { name, id, algorithm, key: Zeroizing::new(key) })
}

/// The public key of a log or of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    algorithm: Algorithm,
    key: ed25519_dalek::VerifyingKey,
}

impl VerifierKey {
    /// Parses `<name>+<key id>+<base64(algorithm ‖ public key)>`. A newline at the end of the text
    /// is optional.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        if text.starts_with("PRIVATE+KEY+") {
            return Err(KeyError::Private);
        }
        let Parts { name, id, algorithm, key } =
            parse(without_newline(text), KeyError::NotAVerifierKey)?;
        let expected = key_id(name, algorithm, &key);
        if id != expected {
            return Err(KeyError::Id { expected, found: id });
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(|_| KeyError::Point)?;
        if key.is_weak() {
            return Err(KeyError::Point);
        }
        Ok(VerifierKey { name: name.to_owned(), id, algorithm, key })
    }

    /// Returns the name of the key. The name of a log's key is the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the algorithm of the key. The algorithm shows whether the key belongs to a log or to
    /// a witness.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the Ed25519 public key (RFC 8032).
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Returns whether a signature has the name and the id of this key. Does not verify the
    /// signature.
    pub fn made(&self, signature: &Signature) -> bool {
        self.name == signature.name() && self.id == signature.key_id()
    }

    /// Verifies a signature over the text of a note. Returns the time of a cosignature, or None for
    /// a log's signature.
    pub(super) fn verify(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, ()> {
        match self.algorithm {
            Algorithm::Ed25519 => self.verify_ed25519(text.as_bytes(), signature).map(|()| None),
            Algorithm::CosignatureV1 => {
                let (time, signature) = cosignature::split(signature).ok_or(())?;
                self.verify_ed25519(cosignature::message(time, text).as_bytes(), signature)
                    .map(|()| Some(time))
            }
        }
    }

    fn verify_ed25519(&self, message: &[u8], signature: &[u8]) -> Result<(), ()> {
        let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| ())?;
        self.key.verify_strict(message, &signature).map_err(|_| ())
    }
}

/// Writes the text of the key, without a newline.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.algorithm.byte()], self.public_key().as_slice()].concat();
        write!(f, "{}+{:08x}+{}", self.name, self.id, base64(&key))
    }
}

/// A private key of a log or of a witness, with its name. The bytes of the private key are
/// overwritten on drop.
#[derive(Clone)]
pub(crate) struct KeyPair {
    verifier: VerifierKey,
    secret: ed25519_dalek::SigningKey,
}

impl KeyPair {
    pub(crate) fn from_seed(
        name: &str,
        algorithm: Algorithm,
        seed: &[u8; 32],
    ) -> Result<Self, KeyError> {
        check_name(name)?;
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let key = secret.verifying_key();
        let id = key_id(name, algorithm, key.as_bytes());
        Ok(KeyPair { verifier: VerifierKey { name: name.to_owned(), id, algorithm, key }, secret })
    }

    pub(crate) fn generate(name: &str, algorithm: Algorithm) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Random)?;
        Self::from_seed(name, algorithm, &seed)
    }

    pub(crate) fn from_text(text: &str, wanted: Algorithm) -> Result<Self, KeyError> {
        let key =
            without_newline(text).strip_prefix("PRIVATE+KEY+").ok_or(KeyError::NotASigningKey)?;
        let Parts { name, id, algorithm, key } = parse(key, KeyError::NotASigningKey)?;
        let pair = Self::from_seed(name, algorithm, &key)?;
        if pair.verifier.id != id {
            return Err(KeyError::Id { expected: pair.verifier.id, found: id });
        }
        if algorithm != wanted {
            return Err(KeyError::OtherAlgorithm { found: algorithm, wanted });
        }
        Ok(pair)
    }

    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        let VerifierKey { name, id, algorithm, .. } = &self.verifier;
        let mut key = Zeroizing::new(vec![algorithm.byte()]);
        key.extend_from_slice(self.secret.as_bytes());
        let key = Zeroizing::new(base64(&key));
        Zeroizing::new(format!("PRIVATE+KEY+{name}+{id:08x}+{}\n", *key))
    }

    pub(crate) fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.secret.sign(message).to_bytes()
    }
}

fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
}

/// The private key of a log, which signs checkpoints (signature type 0x01).
#[derive(Clone)]
pub struct SigningKey(KeyPair);

impl SigningKey {
    /// Generates a key from random bytes of the operating system. `name` is the origin of the log.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        KeyPair::generate(name, Algorithm::Ed25519).map(SigningKey)
    }

    /// Derives the key from a seed (RFC 8032 section 5.1.5).
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        KeyPair::from_seed(name, Algorithm::Ed25519, seed).map(SigningKey)
    }

    /// Parses the text of a key file, `PRIVATE+KEY+<name>+<key id>+<base64(0x01 ‖ seed)>`. A
    /// newline at the end of the text is optional.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        KeyPair::from_text(text, Algorithm::Ed25519).map(SigningKey)
    }

    /// Returns the text of the key file, which ends in a newline. The returned text is secret, so
    /// its bytes are overwritten on drop.
    pub fn to_text(&self) -> Zeroizing<String> {
        self.0.to_text()
    }

    /// Returns the public key.
    pub fn verifier(&self) -> &VerifierKey {
        self.0.verifier()
    }

    /// Signs the text of a note (C2SP signed-note, "Ed25519 signatures"). The same key and the same
    /// text always yield the same signature.
    pub fn sign(&self, text: &str) -> Signature {
        let verifier = self.verifier();
        Signature::new(verifier.name(), verifier.id(), self.0.sign(text.as_bytes()).to_vec())
    }
}

/// Shows the text of the public key, and hides the private key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.verifier().to_string()).finish()
    }
}
