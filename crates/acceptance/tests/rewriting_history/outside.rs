//! Tampers with files outside of the database: with exports, and with checkpoints in a directory.

use crate::{ORIGIN, Stage, copy};
use acceptance::{Session, call, seal, text_of, value};
use ledger::checkpoint::Checkpoint;
use ledger::note::SigningKey;
use std::fs;
use std::path::{Path, PathBuf};

type Lines = Vec<String>;

/// Replaces the last line of an edited export, so that it contains the right number of lines again.
fn ended(mut lines: Lines) -> Lines {
    lines.pop();
    let size = lines.iter().rev().find_map(|line| {
        let (_, rest) = line.strip_prefix("{\"checkpoint\":")?.rsplit_once("\"tree_size\":")?;
        Some(rest.trim_end_matches('}').to_owned())
    });
    lines.push(format!(
        "{{\"end\":{{\"lines\":{},\"tree_size\":{}}}}}",
        lines.len(),
        size.unwrap_or_default()
    ));
    lines
}

/// Returns the indexes of the lines that contain a record of the type `record`.
fn places(lines: &[String], record: &str) -> Vec<usize> {
    (0..lines.len())
        .filter(|&place| {
            lines[place].contains(&format!("\"{record}\":{{"))
                && !lines[place].starts_with("{\"end\"")
        })
        .collect()
}

/// Returns the line of an entry with a changed e-mail address, and with the checksum that matches
/// the changed entry.
fn rewritten(admin: &mut Session, line: &str) -> String {
    let (_, entry) = line.split_once("\"entry\":").unwrap();
    let entry = entry.strip_suffix('}').unwrap().replace("@example", "@evil");
    let sum: String = value(
        admin,
        &format!("SELECT encode(sha256(convert_to($entry${entry}$entry$, 'UTF8')), 'hex')"),
    );
    format!("{{\"checksum\":\"{sum}\",\"entry\":{entry}}}")
}

/// Returns edited exports, each with the name of the edit.
fn edits(lines: &Lines, admin: &mut Session) -> Vec<(&'static str, Lines)> {
    let (entries, checkpoints, unsealed) =
        (places(lines, "entry"), places(lines, "checkpoint"), places(lines, "unsealed"));
    let with = |edit: &dyn Fn(&mut Lines)| {
        let mut lines = lines.clone();
        edit(&mut lines);
        lines
    };
    let with_email = *entries
        .iter()
        .find(|&&place| lines[place].contains("@example") && place > checkpoints[1])
        .unwrap();
    let other = rewritten(admin, &lines[with_email]);
    vec![
        ("an entry away", with(&|l| drop(l.remove(entries[9])))),
        ("an entry away, and counted right", ended(with(&|l| drop(l.remove(entries[9]))))),
        ("two entries exchanged", with(&|l| l.swap(entries[3], entries[4]))),
        ("an entry twice", ended(with(&|l| l.insert(entries[5], lines[entries[5]].clone())))),
        ("a value", with(&|l| l[with_email] = l[with_email].replace("@example", "@evil"))),
        ("a value, and the checksum", with(&|l| l[with_email].clone_from(&other))),
        ("a checkpoint away", ended(with(&|l| drop(l.remove(checkpoints[2]))))),
        (
            "a checkpoint and its entries away",
            ended(with(&|l| drop(l.drain(checkpoints[2]..checkpoints[3])))),
        ),
        (
            "the last checkpoint and its entries away",
            ended(with(&|l| drop(l.drain(checkpoints[5]..unsealed[0])))),
        ),
        (
            "all checkpoints away",
            ended(with(&|l| l.retain(|line| !line.starts_with("{\"checkpoint\"")))),
        ),
        (
            "signatures away",
            with(&|l| {
                for &place in &checkpoints {
                    let (text, rest) = l[place].split_once("\\n\\n").unwrap();
                    let (_, rest) = rest.split_once("\\n\"").unwrap();
                    l[place] = format!("{text}\\n\"{rest}");
                }
            }),
        ),
        (
            "an unsealed entry as a sealed one",
            ended(with(&|l| {
                let line = l.remove(unsealed[0]).replace("\"unsealed\":", "\"entry\":");
                l.insert(entries[20], line);
            })),
        ),
        ("cut off", with(&|l| l.truncate(entries[100]))),
        ("the end away", with(&|l| drop(l.pop()))),
        ("nothing", Vec::new()),
        ("another log's name", with(&|l| l[0] = l[0].replace(ORIGIN, "example.com/other"))),
        ("its second half twice", with(&|l| l.extend_from_slice(&lines[checkpoints[3]..]))),
    ]
}

#[test]
fn what_is_done_to_exports_and_checkpoints_is_found() {
    let stage = Stage::new();
    let mut admin = stage.cluster.admin("honest");
    let path = |name: &str| stage.directory.path().join(name);
    let export = |database: &str, name: &str, more: &[&str]| -> PathBuf {
        let (file, url) = (path(name), stage.url(database));
        stage.tool.expect(
            0,
            &[&["-q", "export", "--database", &url, "-o", text_of(&file)], more].concat(),
        );
        file
    };
    let honest = export("honest", "honest.ndjson", &[]);
    // The file `newest` contains the newest checkpoint that the witness has seen.
    let newest = path("witness").join("checkpoints").join(format!("{:020}", stage.facts.sizes[5]));
    let trust = [
        "--key",
        &stage.key,
        "--checkpoint",
        text_of(&newest),
        "--checkpoint",
        text_of(&stage.kept),
    ];
    let ask = |files: &[&Path]| {
        let files: Vec<&str> = files.iter().map(|file| text_of(file)).collect();
        let arguments = [&trust[..], &files].concat();
        let answer = stage.tool.run(&[&["verify"], &arguments[..]].concat());
        let (python, said) = stage.python(&arguments);
        ((answer.status, python), format!("{}{}{said}", answer.output, answer.errors))
    };
    let (statuses, said) = ask(&[&honest]);
    assert_eq!(statuses, (0, 0), "{said}");
    let lines: Lines = fs::read_to_string(&honest).unwrap().lines().map(str::to_owned).collect();
    let edited = path("edited.ndjson");
    for (name, lines) in edits(&lines, &mut admin) {
        fs::write(&edited, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
        let (statuses, said) = ask(&[&edited]);
        assert_eq!(statuses, (1, 1), "{name}:\n{said}");
    }

    // Simulates a fork of the log. The witness and one auditor see the history of the database
    // `honest`. A second auditor sees the history of the database `older`.
    call(
        &mut stage.cluster.admin("older"),
        "INSERT INTO leads (id) SELECT 'fork-' || g FROM generate_series(1, 400) g",
    );
    seal(&mut stage.cluster.admin("older"));
    let fork = export("older", "fork.ndjson", &[]);
    assert_eq!(ask(&[&fork]).0, (1, 1));
    let refused = stage.tool.run(&[
        "export",
        "--database",
        &stage.url("older"),
        "--after",
        text_of(&honest),
        "-o",
        text_of(&path("x")),
    ]);
    assert!(
        refused.status == 2 && refused.errors.contains("no checkpoint of"),
        "{}",
        refused.errors
    );

    in_a_directory(&stage, &mut admin);
}

/// A tamperer changes the files in a directory of published checkpoints. The witness follows first
/// only the directory, and then also the database.
fn in_a_directory(stage: &Stage, admin: &mut Session) {
    let published = stage.directory.path().join("published");
    fs::create_dir_all(&published).unwrap();
    let rows = admin.query("SELECT tree_size, note FROM lead_audit.checkpoint", &[]).unwrap();
    let file = |size: i64| published.join(format!("{size:020}"));
    for row in &rows {
        fs::write(file(row.get(0)), row.get::<_, String>(1)).unwrap();
    }
    let newest = stage.facts.sizes[5];
    let genuine = fs::read_to_string(file(newest)).unwrap();
    let key = SigningKey::from_seed(ORIGIN, &[7; 32]).unwrap();
    let forged = |size: i64| {
        Checkpoint::new(ORIGIN, size as u64, [9; 32]).unwrap().sign(&key).unwrap().to_string()
    };
    let unsigned = |size: i64| Checkpoint::new(ORIGIN, size as u64, [9; 32]).unwrap().to_string();
    let log =
        SigningKey::from_text(&fs::read_to_string(stage.cluster.directory().join("key")).unwrap())
            .unwrap();
    let fork = |size: i64| {
        Checkpoint::new(ORIGIN, size as u64, [9; 32]).unwrap().sign(&log).unwrap().to_string()
    };
    let url = stage.url("honest");
    let look = |with_database: bool| {
        let state = stage.directory.path().join("witness-of-directory");
        _ = fs::remove_dir_all(&state);
        copy(&stage.witness, &state);
        let mut arguments = vec![
            "witness",
            "--once",
            "--checkpoints",
            text_of(&published),
            "--state",
            text_of(&state),
            "--key",
            &stage.key,
        ];
        if with_database {
            arguments.extend(["--database", &url]);
        }
        let answer = stage.tool.run(&arguments);
        (answer.status, format!("{}{}", answer.output, answer.errors))
    };
    for with_database in [false, true] {
        assert_eq!(look(with_database).0, 0);
        for (name, size, text) in [
            ("the newest forged", newest, forged(newest)),
            ("the newest unsigned", newest, unsigned(newest)),
            ("the newest garbage", newest, "garbage".to_owned()),
            ("a larger one forged", newest + 5, forged(newest + 5)),
            ("a larger one unsigned", newest + 5, unsigned(newest + 5)),
            ("a fork, signed with the very key", newest, fork(newest)),
            ("of another size than its name", newest + 1, genuine.clone()),
        ] {
            fs::write(file(size), text).unwrap();
            let (status, said) = look(with_database);
            assert_eq!(status, 1, "{name}: {said}");
            fs::remove_file(file(size)).unwrap();
            fs::write(file(newest), &genuine).unwrap();
        }
        // The witness does not report a checkpoint that is missing in the directory.
        _ = fs::remove_file(file(stage.facts.sizes[1]));
        assert_eq!(look(with_database).0, 0);
    }
    // If a tamperer has replaced a checkpoint in the directory, a verification that reads this
    // directory must not end with exit status 0.
    fs::write(file(stage.facts.sizes[2]), forged(stage.facts.sizes[2])).unwrap();
    let answer = stage.tool.run(&[
        "verify",
        "--database",
        &url,
        "--key",
        &stage.key,
        "--checkpoint",
        text_of(&published),
    ]);
    assert_ne!(answer.status, 0, "{}{}", answer.output, answer.errors);
}
