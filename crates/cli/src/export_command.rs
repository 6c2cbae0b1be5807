//! The command `export`, which writes entries and checkpoints to a file.

use crate::Status;
use crate::arguments::{Database, Export};
use crate::database::{
    ExportError, Range, Selection, Snapshot, Written, write_history, write_selection,
};
use crate::error::CommandError;
use crate::progress::Console;
use export::read::Limits;
use export::write::{Compression, Output, ResumePoint, find_resume_point};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

pub fn run(arguments: &Export, console: Console) -> Result<Status, CommandError> {
    let selection = Selection {
        from_id: arguments.from_id,
        to_id: arguments.to_id,
        table: arguments.table.clone(),
        key: arguments.key.clone(),
    };
    if !selection.is_everything()
        && (arguments.resume || arguments.after.is_some() || arguments.from_size.is_some())
    {
        let text =
            "a selection is whole: --resume, --after and --from-size are for exports of everything";
        return Err(CommandError::Refused(text.to_owned()));
    }
    let mut range = Range {
        from: arguments.from_size.unwrap_or(0),
        to: arguments.to_size,
        prove_from: arguments.prove_from.clone(),
        ..Range::default()
    };
    if let Some(file) = &arguments.after {
        let point = resume_point(&mut File::open(file).map_err(CommandError::file(file))?, file)?;
        if point.lines > 0 {
            let cause =
                "the export in it is not complete: go on with it first, with --resume".to_owned();
            return Err(CommandError::Content { path: file.clone(), cause });
        }
        (range.from, range.from_root) = (point.tree_size, point.root);
    }
    let compressed = arguments.output.extension().is_some_and(|extension| extension == "zst");
    let compression = match arguments.zstd {
        Some(level) => Compression::Zstd(level),
        None if compressed => Compression::Zstd(3),
        None => Compression::None,
    };
    let snapshot = Snapshot::open(url(&arguments.database)?)?;
    let started = Instant::now();
    let written = if arguments.output.as_os_str() == "-" {
        if arguments.resume {
            return Err(CommandError::Refused("standard output cannot be continued".to_owned()));
        }
        write(&snapshot, io::stdout(), compression, 0, &selection, &range, console)
            .map_err(|error| failed(error, Path::new("standard output")))?
            .1
    } else {
        to_file(&snapshot, arguments, compression, &selection, &mut range, console)?
    };
    report(&written, &arguments.output, started, console)
}

/// Returns the connection string from the command line or the environment.
pub fn url(database: &Database) -> Result<&str, CommandError> {
    let missing = || {
        CommandError::Refused(
            "which database? Give --database or set LEAD_AUDIT_DATABASE_URL".to_owned(),
        )
    };
    database.database.as_deref().ok_or_else(missing)
}

fn to_file(
    snapshot: &Snapshot,
    arguments: &Export,
    mut compression: Compression,
    selection: &Selection,
    range: &mut Range,
    console: Console,
) -> Result<ExportSummary, CommandError> {
    let path = &arguments.output;
    let error = CommandError::file(path);
    let mut lines = 0;
    let mut is_new = !arguments.resume;
    let file = if arguments.resume {
        is_new = !path.exists();
        // `--resume` must read the file and truncate it, which is impossible with a device or a
        // pipe.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(CommandError::content(path)(
                "it is no file, so that --resume cannot go on with it",
            ));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(&error)?;
        let length = file.metadata().map_err(&error)?.len();
        let point = resume_point(&mut file, path)?;
        if point.offset > 0 {
            compression = point.compression(arguments.zstd.unwrap_or(3));
        }
        (range.from, range.from_root, range.goes_on) =
            (point.tree_size, point.root, point.lines > 0);
        // Compares the root in the file with the root in the database before the file is truncated,
        // so that the file stays unchanged if the history has forked.
        if point.tree_size > 0 {
            let found = snapshot.checkpoint(point.tree_size)?;
            if found.map(|found| found.root) != point.root {
                let cause = format!(
                    "the history has forked or gone back: the database does not have the \
                     checkpoint of {} leaves that this file has",
                    point.tree_size
                );
                return Err(CommandError::Content { path: path.clone(), cause });
            }
        }
        lines = point.lines;
        if point.offset < length {
            console.remark(&format!(
                "{}: {} bytes at its end are written anew",
                path.display(),
                length - point.offset
            ));
        }
        file.set_len(point.offset).map_err(&error)?;
        file.seek(SeekFrom::End(0)).map_err(&error)?;
        file
    } else {
        OpenOptions::new().write(true).create_new(true).open(path).map_err(|cause| {
            if cause.kind() == io::ErrorKind::AlreadyExists {
                let cause =
                    "it exists: --resume goes on with it; an export never overwrites a file"
                        .to_owned();
                CommandError::Content { path: path.clone(), cause }
            } else {
                error(cause)
            }
        })?
    };
    let (file, written) = match write(snapshot, file, compression, lines, selection, range, console)
    {
        Ok(done) => done,
        Err(cause) => {
            if is_new {
                leave(path, console);
            }
            return Err(failed(cause, path));
        }
    };
    file.sync_all().map_err(&error)?;
    Ok(written)
}

/// Keeps or removes the file of a failed export. Keeps the file if `--resume` can continue it.
fn leave(path: &Path, console: Console) {
    let point = File::open(path)
        .map_err(CommandError::file(path))
        .and_then(|mut file| resume_point(&mut file, path));
    if point.is_ok_and(|point| point.tree_size > 0) {
        console
            .remark(&format!("{}: it is not complete; --resume goes on with it", path.display()));
    } else {
        // A failure to remove the file is not reported, because the reason why the export failed is
        // more useful.
        _ = std::fs::remove_file(path);
    }
}

/// The numbers of records and bytes in an export.
struct ExportSummary {
    counts: Written,
    bytes: u64,
}

fn write<W: Write>(
    snapshot: &Snapshot,
    file: W,
    compression: Compression,
    lines: u64,
    selection: &Selection,
    range: &Range,
    console: Console,
) -> Result<(W, ExportSummary), ExportError> {
    let output = Output::new(file, compression, lines)?;
    let length =
        snapshot.last_checkpoint(range.to)?.map(|last| last.tree_size.saturating_sub(range.from));
    let bar = console.bar("exporting", length.filter(|_| selection.is_everything()), false);
    let mut progress = |entries| bar.inc(entries);
    let (output, counts) = if selection.is_everything() {
        write_history(snapshot, output, range, &mut progress)?
    } else {
        write_selection(snapshot, output, selection, range, &mut progress)?
    };
    bar.finish_and_clear();
    let bytes = output.bytes();
    Ok((output.finish()?, ExportSummary { counts, bytes }))
}

fn failed(error: ExportError, path: &Path) -> CommandError {
    match error {
        ExportError::Command(error) => error,
        ExportError::Write(cause) => CommandError::File { path: path.to_owned(), cause },
    }
}

fn resume_point(file: &mut File, path: &Path) -> Result<ResumePoint, CommandError> {
    find_resume_point(file, Limits::default()).map_err(CommandError::content(path))
}

fn report(
    written: &ExportSummary,
    path: &Path,
    started: Instant,
    console: Console,
) -> Result<Status, CommandError> {
    let ExportSummary { counts, bytes } = written;
    let seconds = started.elapsed().as_secs_f64();
    let text = format!(
        "{} entries of {} checkpoints, tree size {} to {}; {} not sealed yet; {bytes} bytes \
         uncompressed, {seconds:.1} s",
        counts.entries, counts.checkpoints, counts.from_size, counts.tree_size, counts.unsealed
    );
    let value = json!({
        "file": path.display().to_string(), "entries": counts.entries,
        "checkpoints": counts.checkpoints, "from_size": counts.from_size,
        "tree_size": counts.tree_size, "unsealed": counts.unsealed,
        "bytes": bytes, "seconds": seconds,
    });
    if path.as_os_str() == "-" {
        console.remark(&text);
    } else {
        console.result(&text, &value)?;
    }
    Ok(Status::Intact)
}
