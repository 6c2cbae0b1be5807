//! Makes and parses cosignatures, the signatures of witnesses under checkpoints. The format is that
//! of C2SP tlog-cosignature, with Ed25519 (signature type 0x04).
//!
//! A cosignature states that, at the cosignature's time, the witness had seen no larger tree of the
//! log than the checkpoint's tree. A cosignature also states that the witness found the
//! checkpoint's tree consistent with all earlier trees of the log. A cosignature is a signature
//! line of the checkpoint's note. [`Note::verify`](crate::note::Note::verify) verifies
//! cosignatures.

use crate::checkpoint::Checkpoint;
use crate::note::{Algorithm, KeyError, KeyPair, SIGNATURE_BYTES, Signature, VerifierKey};
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// The private key of a witness. The key of a witness must sign only cosignatures, and must be used
/// under one name only.
#[derive(Clone)]
pub struct CosigningKey(KeyPair);

/// The error for a time that a cosignature cannot encode. A cosignature encodes times up to 2⁶³ − 1
/// seconds after 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the time {0} is not below 2^63")]
pub struct TimeError(pub u64);

impl CosigningKey {
    /// Generates a key from random bytes of the operating system. `name` is the name of the
    /// witness.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        KeyPair::generate(name, Algorithm::CosignatureV1).map(CosigningKey)
    }

    /// Derives the key from a seed (RFC 8032 section 5.1.5).
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        KeyPair::from_seed(name, Algorithm::CosignatureV1, seed).map(CosigningKey)
    }

    /// Parses the text of a key file, `PRIVATE+KEY+<name>+<key id>+<base64(0x04 ‖ seed)>`. A
    /// newline at the end of the text is optional.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        KeyPair::from_text(text, Algorithm::CosignatureV1).map(CosigningKey)
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

    /// Cosigns a checkpoint. `time` is in seconds since 1970. The caller must first verify that
    /// `checkpoint` is consistent with the last checkpoint of this log that the key cosigned.
    pub fn cosign(&self, checkpoint: &Checkpoint, time: u64) -> Result<Signature, TimeError> {
        if i64::try_from(time).is_err() {
            return Err(TimeError(time));
        }
        let signature = self.0.sign(message(time, &checkpoint.to_string()).as_bytes());
        let bytes = [&time.to_be_bytes()[..], &signature].concat();
        Ok(Signature::new(self.verifier().name(), self.verifier().id(), bytes))
    }
}

/// Shows the text of the public key, and hides the private key.
impl fmt::Debug for CosigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CosigningKey").field(&self.verifier().to_string()).finish()
    }
}

/// Returns the message over which a cosignature is computed (C2SP tlog-cosignature, "Ed25519 signed
/// message").
pub(crate) fn message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// Splits a `timestamped_signature` (C2SP tlog-cosignature) into its time and its signature.
/// Returns None if `bytes` are malformed.
pub(crate) fn split(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (time, signature) = bytes.split_first_chunk()?;
    let time = u64::from_be_bytes(*time);
    (i64::try_from(time).is_ok() && signature.len() == SIGNATURE_BYTES).then_some((time, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{Note, SigningKey, Verified};

    /// The example of a cosigned checkpoint in C2SP tlog-cosignature.
    const COSIGNED: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— \
        example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— \
        witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

    #[test]
    fn the_example_is_read_and_written_back() {
        let note = Note::parse(COSIGNED.as_bytes()).unwrap();
        assert_eq!(note.to_string(), COSIGNED);
        assert_eq!(Checkpoint::parse(note.text()).unwrap().size(), 20_852_163);
        let (time, _) = split(note.signatures()[1].bytes()).unwrap();
        assert_eq!(time, 1_679_315_147, "the time that the specification has in its text");
        assert!(message(time, note.text()).starts_with(
            "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        ));
    }

    #[test]
    fn a_witness_cosigns_what_the_log_has_signed() {
        let (log, witness) = (
            SigningKey::from_seed("log", &[1; 32]).unwrap(),
            CosigningKey::from_seed("witness", &[2; 32]).unwrap(),
        );
        let checkpoint = Checkpoint::new("log", 7, [3; 32]).unwrap();
        let mut note = checkpoint.sign(&log).unwrap();
        note.add(witness.cosign(&checkpoint, 1_700_000_000).unwrap()).unwrap();
        let witnesses = [witness.verifier().clone()];
        let note = Note::parse(note.to_string().as_bytes()).unwrap();
        let cosigned = vec![Verified { key: &witnesses[0], time: Some(1_700_000_000) }];
        assert_eq!(
            Checkpoint::open(&note, log.verifier(), &witnesses),
            Ok((checkpoint.clone(), cosigned))
        );
        assert_eq!(Checkpoint::open(&note, log.verifier(), &[]), Ok((checkpoint.clone(), vec![])));
        assert_eq!(witness.cosign(&checkpoint, 1 << 63), Err(TimeError(1 << 63)));
    }
}
