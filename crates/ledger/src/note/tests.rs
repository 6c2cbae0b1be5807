use super::*;
use proptest::prelude::*;

/// The keys of the examples in Go's `golang.org/x/mod/sumdb/note`.
const SIGNING_KEY: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const BY_PETER: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const BY_ENOCH: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

/// The key of the example in C2SP signed-note.
const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n\
    — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

/// A real checkpoint of a Certificate Transparency log. Four independent implementations made the
/// signatures of this checkpoint. The signatures have the types 0x01, 0x04 and 0x05, and this crate
/// does not support type 0x05.
const IN_THE_WILD: &str = "arche2025h1.staging.ct.transparency.dev\n1432088532\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\n\
    — arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=\n\
    — arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=\n\
    — transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==\n\
    — witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==\n\
    — remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n\
    — witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==\n";
const IN_THE_WILD_KEYS: [&str; 5] = [
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
];

fn key(text: &str) -> VerifierKey {
    let key = VerifierKey::from_text(text).unwrap();
    assert_eq!(key.to_string(), text);
    key
}

#[test]
fn as_go_signs_it() {
    let signing_key = SigningKey::from_text(SIGNING_KEY).unwrap();
    assert_eq!(signing_key.verifier().to_string(), PETER);
    assert_eq!(*signing_key.to_text(), format!("{SIGNING_KEY}\n"));
    let mut note = Note::new(TEXT).unwrap();
    assert_eq!(note.to_string(), TEXT);
    note.add(signing_key.sign(TEXT)).unwrap();
    assert_eq!(note.to_string(), format!("{TEXT}\n{BY_PETER}"));
    assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note.clone()));
    let keys = [key(PETER)];
    assert_eq!(note.verify(&keys), Ok(vec![Verified { key: &keys[0], time: None }]));
}

#[test]
fn what_others_have_signed() {
    let keys = [key(PETER), key(ENOCH), key(EXAMPLE_KEY)];
    let names = |text: &str| -> Vec<String> {
        let note = Note::parse(text.as_bytes()).unwrap();
        assert_eq!(note.to_string(), text);
        note.verify(&keys).unwrap().iter().map(|good| good.key.name().to_owned()).collect()
    };
    assert_eq!(names(&format!("{TEXT}\n{BY_PETER}")), ["PeterNeumann"]);
    assert_eq!(names(&format!("{TEXT}\n{BY_ENOCH}{BY_PETER}")), ["EnochRoot", "PeterNeumann"]);
    assert_eq!(names(EXAMPLE), ["example.com/foo"]);

    let keys = IN_THE_WILD_KEYS.map(key);
    let note = Note::parse(IN_THE_WILD.as_bytes()).unwrap();
    assert_eq!(note.to_string(), IN_THE_WILD);
    let good: Vec<_> =
        note.verify(&keys).unwrap().iter().map(|good| (good.key.id(), good.time)).collect();
    let time = Some(1_779_573_024);
    assert_eq!(
        good,
        [
            (0xba2f_06c0, None),
            (0xd804_2a87, time),
            (0xa48c_820f, time),
            (0xda77_ade7, time),
            (0x67f7_aea0, time)
        ]
    );
}

#[test]
fn keys_that_are_known_and_keys_that_are_not() {
    let both = Note::parse(format!("{TEXT}\n{BY_PETER}{BY_ENOCH}").as_bytes()).unwrap();
    let (peter, enoch) = (key(PETER), key(ENOCH));
    assert_eq!(
        both.verify(std::slice::from_ref(&enoch)).unwrap().len(),
        1,
        "the unknown one is ignored"
    );
    assert_eq!(both.verify(&[]), Err(NoteError::NoKnownSignature));
    assert_eq!(both.verify(&[key(EXAMPLE_KEY)]), Err(NoteError::NoKnownSignature));
    // The note has a valid signature by Enoch's key, and an invalid signature with the name and id
    // of Peter's key.
    let forged = format!("{TEXT}\n{}{BY_ENOCH}", BY_PETER.replace("x08go/ZJ", "x08go/ZK"));
    let forged = Note::parse(forged.as_bytes()).unwrap();
    assert_eq!(
        forged.verify(&[peter.clone(), enoch.clone()]),
        Err(NoteError::BadSignature("PeterNeumann".into()))
    );
    assert_eq!(
        forged.verify(std::slice::from_ref(&enoch)).unwrap().len(),
        1,
        "of a key that is not known nothing is"
    );
    // If only the name or only the key id of a signature matches Peter's key, the signature counts
    // as a signature by an unknown key.
    for stranger in
        [BY_PETER.replace("x08go", "x08gp"), BY_PETER.replace("PeterNeumann", "PeterNeuman")]
    {
        let note = Note::parse(format!("{TEXT}\n{stranger}{BY_PETER}").as_bytes()).unwrap();
        assert_eq!(note.verify(std::slice::from_ref(&peter)).unwrap().len(), 1);
        let note = Note::parse(format!("{TEXT}\n{stranger}").as_bytes()).unwrap();
        assert_eq!(note.verify(std::slice::from_ref(&peter)), Err(NoteError::NoKnownSignature));
    }
    // Two signatures by the same key count as one signature, and both signatures must be valid.
    let note = Note::parse(format!("{TEXT}\n{BY_PETER}{BY_PETER}").as_bytes()).unwrap();
    assert_eq!(note.verify(std::slice::from_ref(&peter)).unwrap().len(), 1);
    // The four signatures in this loop are invalid: two are too short, one is too long, and one has
    // a scalar that is not reduced (RFC 8032, section 5.1.7).
    let good = both.signatures()[0].bytes();
    let mut unreduced = good.to_vec();
    unreduced[63] |= 0xf0;
    for bytes in [vec![0], good[..63].to_vec(), [good, &[0]].concat(), unreduced] {
        let mut note = Note::new(TEXT).unwrap();
        note.add(Signature::new("PeterNeumann", peter.id(), bytes)).unwrap();
        assert_eq!(
            note.verify(std::slice::from_ref(&peter)),
            Err(NoteError::BadSignature("PeterNeumann".into()))
        );
    }
}

#[test]
fn what_is_not_a_signed_note() {
    let parse = |text: &str| Note::parse(text.as_bytes()).unwrap_err();
    assert_eq!(parse(""), NoteError::NoNewline);
    assert_eq!(parse("\n"), NoteError::NotSigned);
    assert_eq!(parse(TEXT), NoteError::NotSigned);
    assert_eq!(parse(&format!("{TEXT}\n")), NoteError::NotSigned);
    assert_eq!(parse(&format!("{TEXT}{BY_PETER}")), NoteError::NotSigned, "no blank line");
    assert_eq!(
        parse(&format!("{TEXT}\n{BY_PETER}\n")),
        NoteError::NotSigned,
        "a blank line after the signatures"
    );
    assert_eq!(parse(&format!("{TEXT}\n{}", BY_PETER.trim_end())), NoteError::NoNewline);
    for control in ['\0', '\t', '\r', '\x1b'] {
        assert_eq!(
            parse(&format!("a{control}{TEXT}\n{BY_PETER}")),
            NoteError::ControlCharacter(control)
        );
    }
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::NotUtf8));
    let base64 = BY_PETER.trim_end().rsplit(' ').next().unwrap();
    for line in [
        "PeterNeumann",
        "—",
        "— ",
        "— PeterNeumann",
        "— PeterNeumann ",
        &format!("—  {base64}"),
        &format!("— Peter+Neumann {base64}"),
        &format!("— Peter\u{a0}Neumann {base64}"),
        &format!("— PeterNeumann  {base64}"),
        &format!("— PeterNeumann {base64} "),
        &format!("— PeterNeumann {base64}="),
        &format!("— PeterNeumann {}", base64.trim_end_matches('=')),
        &format!("— PeterNeumann {}", base64.replace("nAM=", "nAN=")),
        &format!("— PeterNeumann {}", base64.replace('/', "_")),
        &format!("—PeterNeumann {base64}"),
        &format!("- PeterNeumann {base64}"),
        &format!("-- PeterNeumann {base64}"),
        &format!(" — PeterNeumann {base64}"),
        "— PeterNeumann x08g",
        "— PeterNeumann x08gow==",
    ] {
        assert_eq!(
            parse(&format!("{TEXT}\n{BY_ENOCH}{line}\n")),
            NoteError::MalformedSignature(2),
            "{line:?}"
        );
    }
}

#[test]
fn limits() {
    // C2SP signed-note requires verifiers to accept at least 16 signatures, even if some are as
    // large as post-quantum signatures.
    let large = |i: usize| Signature::new(&format!("k{i}"), i as u32, vec![7; 5_000]);
    let mut note = Note::new(TEXT).unwrap();
    (0..MAX_SIGNATURES).try_for_each(|i| note.add(large(i))).unwrap();
    assert_eq!(Note::parse(note.to_string().as_bytes()).as_ref(), Ok(&note));
    assert_eq!(note.add(large(MAX_SIGNATURES)), Err(NoteError::TooManySignatures));
    note.add(large(5)).unwrap();
    assert_eq!(
        note.signatures().len(),
        MAX_SIGNATURES,
        "a signature by the same key takes the place of the other"
    );
    let one_more = format!("{note}{BY_PETER}");
    assert_eq!(Note::parse(one_more.as_bytes()), Err(NoteError::TooManySignatures));
    let text = "x".repeat(MAX_NOTE_BYTES - BY_PETER.len() - 2);
    let longest = format!("{text}\n\n{BY_PETER}");
    assert!(Note::parse(longest.as_bytes()).is_ok());
    assert_eq!(
        Note::parse(format!("x{longest}").as_bytes()),
        Err(NoteError::TooLong(MAX_NOTE_BYTES + 1))
    );
}

#[test]
fn the_text_ends_at_the_last_blank_line() {
    let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n";
    let mut note = Note::new(text).unwrap();
    let signing_key = SigningKey::from_seed("quasimodo.example/salvatore", &[7; 32]).unwrap();
    note.add(signing_key.sign(text)).unwrap();
    let read = Note::parse(note.to_string().as_bytes()).unwrap();
    assert_eq!(read.text(), text);
    assert_eq!(read, note);
    assert_eq!(Note::new("no newline"), Err(NoteError::NoNewline));
    assert_eq!(Note::new("\t\n"), Err(NoteError::ControlCharacter('\t')));
}

#[test]
fn unsigned_texts() {
    let unsigned = Note::parse_or_unsigned(TEXT.as_bytes()).unwrap();
    assert_eq!(
        (unsigned.text(), unsigned.is_signed(), unsigned.to_string().as_str()),
        (TEXT, false, TEXT)
    );
    assert_eq!(unsigned.verify(&[key(PETER)]), Err(NoteError::NoKnownSignature));
    assert!(Note::parse_or_unsigned(EXAMPLE.as_bytes()).unwrap().is_signed());
    for text in ["", "a", "a\n\n", "a\n\nb\n", "a\n\n\n"] {
        assert!(Note::parse_or_unsigned(text.as_bytes()).is_err(), "{text:?}");
    }
}

/// Checks that a key's text is refused if only a part of the text is given, or if one byte of the
/// text is changed. Go's library tests damaged keys in the same way.
#[test]
fn damaged_keys() {
    let damaged = |text: &str, accepts: &dyn Fn(&str) -> bool| {
        assert!(accepts(text));
        for start in 0..text.len() {
            for end in start + 1..=text.len() {
                assert!(
                    (start, end) == (0, text.len()) || !accepts(&text[start..end]),
                    "{}",
                    &text[start..end]
                );
            }
        }
        for i in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            for flip in [1, 2, 4, 32] {
                changed[i] = text.as_bytes()[i] ^ flip;
                let changed = str::from_utf8(&changed).unwrap();
                assert!(!accepts(changed), "{changed}");
            }
        }
        for changed in [
            format!("{text}\n\n"),
            format!("\n{text}"),
            format!(" {text}"),
            format!("{text} "),
            format!("{text}\r\n"),
        ] {
            assert!(!accepts(&changed), "{changed:?}");
        }
        assert!(accepts(&format!("{text}\n")));
        assert!(!accepts(&"x".repeat(1_000_000)));
    };
    damaged(PETER, &|text| VerifierKey::from_text(text).is_ok());
    damaged(IN_THE_WILD_KEYS[1], &|text| VerifierKey::from_text(text).is_ok());
    damaged(SIGNING_KEY, &|text| SigningKey::from_text(text).is_ok());
}

#[test]
fn keys_and_why_they_are_refused() {
    // The tests of Go's library have keys of the wrong length and of an unknown type, each with a
    // matching id.
    let long = "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==";
    assert_eq!(
        VerifierKey::from_text(long),
        Err(KeyError::NotAVerifierKey),
        "its base64 is not canonical"
    );
    let unknown = "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert_eq!(VerifierKey::from_text(unknown), Err(KeyError::Algorithm(0x65)));
    assert_eq!(VerifierKey::from_text(SIGNING_KEY), Err(KeyError::Private));
    assert_eq!(SigningKey::from_text(PETER).unwrap_err(), KeyError::NotASigningKey);
    let other_name = PETER.replace("Peter", "Petra");
    assert!(matches!(
        VerifierKey::from_text(&other_name),
        Err(KeyError::Id { found: 0xc74f_20a3, .. })
    ));
    for name in ["", "a b", "a+b", "a\n", "a\u{2003}b", "a\u{7}"] {
        assert_eq!(SigningKey::from_seed(name, &[0; 32]).unwrap_err(), KeyError::Name(name.into()));
    }
    assert_eq!(
        SigningKey::from_seed(&"n".repeat(256), &[0; 32]).unwrap_err(),
        KeyError::NameTooLong
    );
    assert!(SigningKey::from_seed(&"n".repeat(255), &[0; 32]).is_ok());
    // The point of order one is a weak key: for any text, anyone can make a signature that this key
    // accepts.
    let mut weak = [0; 33];
    (weak[0], weak[1]) = (1, 1);
    let id = u32::from_be_bytes(
        crate::hash::sha256(&[b"weak\n", &weak[..]].concat())[..4].try_into().unwrap(),
    );
    assert_eq!(
        VerifierKey::from_text(&format!("weak+{id:08x}+{}", base64(&weak))),
        Err(KeyError::Point)
    );
    assert_eq!(
        SigningKey::from_text(
            &crate::cosignature::CosigningKey::from_seed("w", &[1; 32]).unwrap().to_text()
        )
        .unwrap_err(),
        KeyError::OtherAlgorithm { found: Algorithm::CosignatureV1, wanted: Algorithm::Ed25519 }
    );
}

#[test]
fn new_keys_are_new_and_keep_their_secret() {
    let (a, b) = (
        SigningKey::generate("example.com/log").unwrap(),
        SigningKey::generate("example.com/log").unwrap(),
    );
    assert_ne!(a.verifier(), b.verifier());
    let text = a.to_text();
    let again = SigningKey::from_text(&text).unwrap();
    assert_eq!(again.verifier(), a.verifier());
    assert_eq!(again.sign("a\n"), a.sign("a\n"));
    // PRIVATE+KEY+name+hash+secret. The secret is base64, so it can contain a plus sign.
    let secret = text.trim_end().splitn(5, '+').last().unwrap();
    assert!(secret.len() >= 44);
    assert!(!format!("{a:?}").contains(secret));
    assert!(format!("{a:?}").contains(&a.verifier().to_string()));
}

proptest! {
    #[test]
    fn a_changed_bit_is_never_accepted(bit in 0..EXAMPLE.len() * 8) {
        let keys = [key(EXAMPLE_KEY)];
        let mut changed = EXAMPLE.as_bytes().to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let verified = Note::parse(&changed).and_then(|note| note.verify(&keys).map(|_| ()));
        prop_assert!(verified.is_err());
    }

    #[test]
    fn what_is_read_is_written_back(
        text in "[a-z—é \n]{0,40}\n",
        lines in prop::collection::vec(("[a-zé/.]{1,9}", any::<Vec<u8>>()), 1..20),
    ) {
        let mut note = Note::new(text).unwrap();
        for (i, (name, bytes)) in lines.iter().enumerate() {
            note.add(Signature::new(name, i as u32, [&bytes[..], &[1]].concat())).unwrap();
        }
        prop_assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note.clone()));
        prop_assert_eq!(Note::parse_or_unsigned(note.to_string().as_bytes()), Ok(note));
    }
}
