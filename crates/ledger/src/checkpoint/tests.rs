use super::*;
use crate::cosignature::CosigningKey;

/// The text of the example checkpoint in C2SP tlog-checkpoint.
const EXAMPLE: &str =
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

#[test]
fn the_example() {
    let checkpoint = Checkpoint::parse(EXAMPLE).unwrap();
    assert_eq!(checkpoint.origin(), "example.com/behind-the-sofa");
    assert_eq!(checkpoint.size(), 20_852_163);
    assert_eq!(hash_text(checkpoint.root()), ROOT);
    assert_eq!(checkpoint.extensions().count(), 0);
    assert_eq!(checkpoint.to_string(), EXAMPLE);
    assert_eq!(
        Checkpoint::new("example.com/behind-the-sofa", 20_852_163, *checkpoint.root()),
        Ok(checkpoint)
    );
}

#[test]
fn extension_lines_are_kept_to_the_byte() {
    let text = format!("{EXAMPLE}one\n  two: three \n");
    let checkpoint = Checkpoint::parse(&text).unwrap();
    assert_eq!(checkpoint.extensions().collect::<Vec<_>>(), ["one", "  two: three "]);
    assert_eq!(checkpoint.to_string(), text);
}

#[test]
fn what_is_not_a_checkpoint() {
    let with = |origin: &str, size: &str, root: &str, rest: &str| {
        Checkpoint::parse(&format!("{origin}\n{size}\n{root}\n{rest}"))
    };
    assert!(with("o", "0", ROOT, "").is_ok());
    assert!(with("an origin with spaces and a +", "18446744073709551615", ROOT, "").is_ok());
    for size in
        ["", "00", "01", "+1", "-1", " 1", "1 ", "1e3", "0x1", "1.0", "18446744073709551616", "１"]
    {
        assert_eq!(with("o", size, ROOT, ""), Err(CheckpointError::Size), "{size:?}");
    }
    let (short, url_safe) = (&ROOT[..40], ROOT.replace('/', "_"));
    let (unpadded, trailing_bits) = (&ROOT[..43], ROOT.replace("2I=", "2J="));
    for root in [
        "",
        short,
        &url_safe,
        unpadded,
        &trailing_bits,
        &format!(" {ROOT}"),
        &format!("{ROOT} "),
        &format!("{ROOT}{ROOT}"),
    ] {
        assert_eq!(with("o", "1", root, ""), Err(CheckpointError::Root), "{root:?}");
    }
    assert_eq!(with("", "1", ROOT, ""), Err(CheckpointError::Origin));
    assert_eq!(with("a\r", "1", ROOT, ""), Err(CheckpointError::Origin));
    assert_eq!(with("o", "1", ROOT, "\n"), Err(CheckpointError::Extension));
    assert_eq!(with("o", "1", ROOT, "a\n\nb\n"), Err(CheckpointError::Extension));
    assert_eq!(with("o", "1", ROOT, "a\tb\n"), Err(CheckpointError::Extension));
    assert_eq!(with("o", "1", ROOT, "a"), Err(CheckpointError::Lines));
    for text in ["", "\n", "o\n1\n", "o", &EXAMPLE[..EXAMPLE.len() - 1]] {
        assert_eq!(Checkpoint::parse(text), Err(CheckpointError::Lines), "{text:?}");
    }
    for origin in ["", "a\nb", "a\0"] {
        assert_eq!(Checkpoint::new(origin, 0, [0; 32]), Err(CheckpointError::Origin));
    }
}

#[test]
fn who_has_signed_for_what() {
    let log = SigningKey::from_seed("example.com/log", &[1; 32]).unwrap();
    let witness = CosigningKey::from_seed("witness.example", &[2; 32]).unwrap();
    let witnesses = [witness.verifier().clone()];
    let checkpoint = Checkpoint::new("example.com/log", 3, [9; 32]).unwrap();
    let note = checkpoint.sign(&log).unwrap();
    assert_eq!(
        Checkpoint::open(&note, log.verifier(), &witnesses),
        Ok((checkpoint.clone(), vec![]))
    );

    // The log itself must have signed the note. Neither a witness's signature nor the signature of
    // another key with the log's name replaces the log's signature.
    let mut by_witness = Note::new(checkpoint.to_string()).unwrap();
    assert_eq!(
        Checkpoint::open(&by_witness, log.verifier(), &witnesses),
        Err(CheckpointError::NotSignedBy("example.com/log".into())),
        "unsigned"
    );
    by_witness.add(witness.cosign(&checkpoint, 1).unwrap()).unwrap();
    let impostor = SigningKey::from_seed("example.com/log", &[3; 32]).unwrap();
    by_witness.add(impostor.sign(by_witness.text())).unwrap();
    assert_eq!(
        Checkpoint::open(&by_witness, log.verifier(), &witnesses),
        Err(CheckpointError::NotSignedBy("example.com/log".into()))
    );

    // A note with an invalid signature by a known witness is refused, even if the log's signature
    // is valid.
    let mut forged = note.clone();
    forged
        .add(witness.cosign(&Checkpoint::new("example.com/log", 4, [9; 32]).unwrap(), 1).unwrap())
        .unwrap();
    assert_eq!(
        Checkpoint::open(&forged, log.verifier(), &witnesses),
        Err(CheckpointError::Note(NoteError::BadSignature("witness.example".into())))
    );
    assert!(Checkpoint::open(&forged, log.verifier(), &[]).is_ok());

    // The key of the log has signed two wrong texts: the checkpoint of another log, and a text that
    // is no checkpoint.
    let elsewhere = Checkpoint::new("example.com/other", 3, [9; 32]).unwrap();
    let other = CheckpointError::OtherOrigin {
        expected: "example.com/log".into(),
        found: "example.com/other".into(),
    };
    assert_eq!(elsewhere.sign(&log), Err(other.clone()));
    for (text, error) in
        [(elsewhere.to_string(), other), ("hello\n".into(), CheckpointError::Lines)]
    {
        let mut note = Note::new(text).unwrap();
        note.add(log.sign(note.text())).unwrap();
        assert_eq!(Checkpoint::open(&note, log.verifier(), &[]), Err(error));
    }
}

/// A log's signature and a witness's cosignature cover different bytes. Even with the same key, a
/// signature does not verify as a cosignature, and a cosignature does not verify as a signature.
#[test]
fn a_cosignature_is_not_a_signature() {
    let log = SigningKey::from_seed("example.com/log", &[1; 32]).unwrap();
    let witness = CosigningKey::from_seed("example.com/log", &[1; 32]).unwrap();
    assert_eq!(log.verifier().public_key(), witness.verifier().public_key());
    assert_ne!(log.verifier().id(), witness.verifier().id());
    let checkpoint = Checkpoint::new("example.com/log", 3, [9; 32]).unwrap();
    let note = checkpoint.sign(&log).unwrap();
    let witnesses = [witness.verifier().clone()];
    assert_eq!(note.verify(&witnesses), Err(NoteError::NoKnownSignature));
    let mut note = note;
    note.add(witness.cosign(&checkpoint, 0).unwrap()).unwrap();
    assert_eq!(note.signatures().len(), 2);
    assert_eq!(Checkpoint::open(&note, log.verifier(), &witnesses).unwrap().1.len(), 1);
}
