//! The command `verify`, which verifies files with exports, or a database. To verify a database,
//! the command exports the database into a pipe.

use crate::Status;
use crate::arguments::Verify;
use crate::database::{ExportError, Range, Snapshot, write_history};
use crate::error::CommandError;
use crate::progress::{Console, on_one_line};
use crate::trust;
use export::read::{Limits, open};
use export::verify::{Fault, Report, Source, Verdict, verify};
use export::write::{Compression, Output};
use ledger::merkle::hash_text;
use serde_json::{Value, json};
use std::io::{self, PipeReader, Read};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Instant;

/// Maximum number of faults that are printed. Further faults are counted but not printed.
const MAX_SHOWN: u64 = 10_000;

pub fn run(arguments: &Verify, console: Console) -> Result<Status, CommandError> {
    let trust = trust::gather(&arguments.trust, arguments.older)?;
    let limits = Limits { line: arguments.max_line as usize * (1 << 20), ..Limits::default() };
    let (sources, length) = match &arguments.database {
        Some(url) => (vec![database(url)?], None),
        None => files(&arguments.files)?,
    };
    let started = Instant::now();
    let bar = console.bar("verifying", length, true);
    let mut shown = 0;
    let mut broken = None;
    let mut show = |fault: Fault| {
        shown += 1;
        if shown <= MAX_SHOWN && broken.is_none() {
            broken = bar
                .suspend(|| console.result(&on_one_line(&fault.to_string()), &fault_value(&fault)))
                .err();
        }
    };
    let report = verify(sources, &trust, limits, &mut show, &mut |progress| {
        bar.set_position(progress.bytes)
    })?;
    bar.finish_and_clear();
    if let Some(error) = broken {
        return Err(error);
    }
    summarise(&report, shown, started.elapsed().as_secs_f64(), console)?;
    Ok(status(&report))
}

fn status(report: &Report) -> Status {
    match report.verdict() {
        Verdict::Intact => Status::Intact,
        Verdict::Tampered => Status::Tampered,
        Verdict::CouldNotTell => Status::CouldNotTell,
    }
}

fn files(paths: &[PathBuf]) -> Result<(Vec<Source>, Option<u64>), CommandError> {
    let mut sources = Vec::new();
    let mut length = Some(0);
    for path in paths {
        let reader = open(path).map_err(CommandError::file(path))?;
        sources.push(Source { name: path.display().to_string(), reader });
        // The uncompressed length of a compressed file is unknown.
        let plain = path.extension().is_none_or(|extension| extension != "zst");
        let own = path
            .metadata()
            .ok()
            .filter(|metadata| plain && metadata.is_file())
            .map(|metadata| metadata.len());
        length = length.zip(own).map(|(all, own)| all + own);
    }
    Ok((sources, length))
}

/// Starts to export the database into a pipe. Returns the reading end of the pipe, from which the
/// export is verified.
fn database(url: &str) -> Result<Source, CommandError> {
    // The connection is opened before the thread starts, so that an error of the connection is
    // reported before verification begins.
    let client = crate::database::connect(url)?;
    let (reader, writer) =
        io::pipe().map_err(|error| CommandError::Refused(format!("no pipe: {error}")))?;
    let export = move || -> Result<(), ExportError> {
        let snapshot = Snapshot::begin(client)?;
        let output = Output::new(writer, Compression::None, 0)?;
        let (output, _) = write_history(&snapshot, output, &Range::default(), &mut |_| {})?;
        output.finish()?;
        snapshot.end()?;
        Ok(())
    };
    let export = std::thread::Builder::new().name("export".to_owned()).spawn(export);
    let export = export.map_err(|error| CommandError::Refused(format!("no thread: {error}")))?;
    Ok(Source {
        name: "database".to_owned(),
        reader: Box::new(Exported { reader, export: Some(export) }),
    })
}

/// The reading end of the pipe that contains the export of a database. Reading returns an error at
/// the end of the pipe if the export has failed.
struct Exported {
    reader: PipeReader,
    export: Option<JoinHandle<Result<(), ExportError>>>,
}

impl Read for Exported {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if read == 0
            && !buffer.is_empty()
            && let Some(export) = self.export.take()
        {
            match export.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(io::Error::other(error.to_string())),
                Err(_) => return Err(io::Error::other("reading the database ended unexpectedly")),
            }
        }
        Ok(read)
    }
}

fn fault_value(fault: &Fault) -> Value {
    json!({
        "fault": fault.kind.name(), "file": fault.file, "line": fault.line,
        "from_id": fault.ids.map(|(from, _)| from), "to_id": fault.ids.map(|(_, to)| to),
        "tree_size": fault.tree_size, "detail": fault.detail,
    })
}

fn summarise(
    report: &Report,
    shown: u64,
    seconds: f64,
    console: Console,
) -> Result<(), CommandError> {
    let rate = |count: u64| count as f64 / seconds.max(1e-9);
    let megabytes = report.bytes as f64 / 1e6;
    if shown > MAX_SHOWN {
        console.remark(&format!("{} more faults are not shown", shown - MAX_SHOWN));
    }
    if console.json {
        let faults: serde_json::Map<String, Value> = report
            .faults
            .iter()
            .map(|(kind, count)| (kind.name().to_owned(), json!(count)))
            .collect();
        let verdict = match report.verdict() {
            Verdict::Intact => "intact",
            Verdict::Tampered => "tampered",
            Verdict::CouldNotTell => "could not tell",
        };
        let value = json!({
            "verdict": verdict, "faults": faults, "origin": report.origin,
            "from_size": report.from_size, "tree_size": report.tree_size,
            "root": report.root.as_ref().map(hash_text), "vouched": report.vouched,
            "entries": report.entries, "unsealed": report.unsealed,
            "checkpoints": report.checkpoints, "signed": report.signed,
            "checkpoints_matched": report.known_matched,
            "checkpoints_not_judged": report.known_unjudged,
            "not_judged": report.not_judged, "key_unknown_from": report.key_unknown_from,
            "remarks": report.remarks, "incomplete": report.incomplete,
            "bytes": report.bytes, "lines": report.lines, "seconds": seconds,
            "entries_per_second": rate(report.entries + report.unsealed).round(),
            "megabytes_per_second": (rate(report.bytes) / 1e6).round(),
        });
        return console.result("", &value);
    }
    let line = |text: &str| console.result(&on_one_line(text), &Value::Null);
    if let Some(incomplete) = &report.incomplete {
        line(&format!("Reading ended early: {}", incomplete.escape_debug()))?;
    }
    for remark in report.known_unjudged.iter().chain(&report.remarks) {
        line(&format!("Could not tell: {remark}"))?;
    }
    let origin = report
        .origin
        .as_deref()
        .map_or_else(|| "no log".to_owned(), |origin| format!("{origin:?}"));
    let signed = if report.signed == 0 {
        "none signed by a known key".to_owned()
    } else {
        format!("{} signed", report.signed)
    };
    line(&format!(
        "{origin}: {} sealed entries of {} checkpoints ({signed}), tree size {} to {}, {} not \
         sealed yet",
        report.entries,
        report.checkpoints,
        report.from_size.unwrap_or(0),
        report.tree_size,
        report.unsealed
    ))?;
    line(&format!(
        "{megabytes:.1} MB in {seconds:.2} s: {:.0} entries/s, {:.0} MB/s",
        rate(report.entries + report.unsealed),
        rate(report.bytes) / 1e6
    ))?;
    line(&match report.verdict() {
        Verdict::Intact => format!("INTACT up to tree size {}", report.vouched.unwrap_or(0)),
        Verdict::Tampered => format!("TAMPERED WITH: {} faults", report.fault_count()),
        Verdict::CouldNotTell => match report.vouched {
            Some(vouched) => format!("COULD NOT TELL; something vouches up to tree size {vouched}"),
            None => "COULD NOT TELL".to_owned(),
        },
    })
}
