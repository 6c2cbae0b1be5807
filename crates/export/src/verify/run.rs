//! Runs the stages of verification: reads the files, judges the lines in parallel, and processes
//! the judged lines in sequence.

use super::chain::Chain;
use super::line::{Line, judge};
use super::{Fault, Report, Trust};
use crate::read::{Block, Blocks, Limits, ReadError};
use rayon::prelude::*;
use std::io::Read;
use std::sync::mpsc::sync_channel;
use thiserror::Error;

/// One input of verification.
pub struct Source {
    /// The name of the input, for people.
    pub name: String,
    /// The content of the input, uncompressed.
    pub reader: Box<dyn Read + Send>,
}

/// The progress of verification.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Number of bytes that were judged in all files, counted without compression.
    pub bytes: u64,
    /// Number of sealed entries that were processed.
    pub entries: u64,
}

/// The errors that prevent the start of verification.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The operating system cannot start a thread.
    #[error("no thread to read with: {0}")]
    Thread(std::io::Error),
}

/// Verifies the sources in the given order as one history. Calls `fault` immediately for each
/// fault, and `progress` after each block.
///
/// # Errors
/// Fails if verification cannot begin. If reading fails, the function returns a report with the
/// error in [`Report::incomplete`].
pub fn verify(
    sources: Vec<Source>,
    trust: &Trust,
    limits: Limits,
    fault: &mut dyn FnMut(Fault),
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, VerifyError> {
    let mut chain = Chain::new(trust, fault);
    for source in sources {
        let Source { name, reader } = source;
        chain.begin_file(&name);
        let error = verify_one(&mut chain, reader, trust, limits, progress)?
            .map(|error| format!("{name}: {error}"));
        chain.end_file(error.is_some());
        if let Some(error) = error {
            chain.report.incomplete = Some(error);
            break;
        }
    }
    Ok(chain.finish())
}

/// Number of faults after which the verifier stops reading. A file with more faults is most likely
/// not an export.
const MAX_FAULTS: u64 = 1_000_000;

/// The judged lines of one block, with the number of the first line and the size in bytes.
type Judged = (u64, u64, Vec<Line>);

fn verify_one(
    chain: &mut Chain,
    reader: Box<dyn Read + Send>,
    trust: &Trust,
    limits: Limits,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<String>, VerifyError> {
    // Threads judge the blocks of a group in parallel. At the same time, this thread processes the
    // previous group and another thread reads the next group.
    let width = rayon::current_num_threads() * 2;
    let (sender, receiver) = sync_channel::<Result<Vec<Block>, ReadError>>(1);
    let reading = move || {
        let mut blocks = Blocks::new(reader, limits);
        loop {
            let (mut group, mut bytes) = (Vec::with_capacity(width), 0);
            // A group of long blocks has fewer blocks, because its size in bytes is also limited.
            while group.len() < width && bytes < width * limits.block {
                match blocks.next() {
                    Some(Ok(block)) => {
                        bytes += block.bytes.len();
                        group.push(block);
                    }
                    Some(Err(error)) => {
                        // Sending fails if verification has ended, because nobody receives the
                        // group then.
                        _ = sender.send(Ok(group));
                        _ = sender.send(Err(error));
                        return;
                    }
                    None => {
                        _ = sender.send(Ok(group));
                        return;
                    }
                }
            }
            if sender.send(Ok(group)).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("read".to_owned())
            .spawn_scoped(scope, reading)
            .map_err(VerifyError::Thread)?;
        let mut waiting: Vec<Judged> = Vec::new();
        let mut error = None;
        // If the loop ends early, the receiver is dropped. Sending then fails, so the reading
        // thread ends.
        for group in receiver {
            let group = match group {
                Ok(group) => group,
                Err(found) => {
                    error = Some(found.to_string());
                    break;
                }
            };
            if let Some(version) = chain.other_version.take() {
                return Ok(Some(version));
            }
            if chain.report.fault_count() > MAX_FAULTS {
                return Ok(Some(format!("more than {MAX_FAULTS} faults: the rest was not read")));
            }
            let previous = std::mem::take(&mut waiting);
            let judge_group = || group.par_iter().map(|block| judge_block(block, trust)).collect();
            (waiting, ()) = join(judge_group, || follow(chain, previous, progress));
        }
        follow(chain, waiting, progress);
        Ok(chain.other_version.take().or(error))
    })
}

/// Runs `parallel` on a thread of the pool, and at the same time `here` on this thread. `here` runs
/// on this thread because it is not `Send`.
fn join(parallel: impl FnOnce() -> Vec<Judged> + Send, here: impl FnOnce()) -> (Vec<Judged>, ()) {
    let mut judged = Vec::new();
    rayon::in_place_scope(|scope| {
        scope.spawn(|_| judged = parallel());
        here();
    });
    (judged, ())
}

fn judge_block(block: &Block, trust: &Trust) -> Judged {
    let mut scratch = Vec::new();
    let lines = block.lines().map(|(_, line)| judge(line, &trust.keys, &mut scratch)).collect();
    (block.first_line, block.bytes.len() as u64, lines)
}

fn follow(chain: &mut Chain, judged: Vec<Judged>, progress: &mut dyn FnMut(Progress)) {
    for (first_line, bytes, lines) in judged {
        chain.report.bytes += bytes;
        chain.report.lines += lines.len() as u64;
        for (i, line) in lines.into_iter().enumerate() {
            chain.take(first_line + i as u64, line);
        }
        progress(Progress { bytes: chain.report.bytes, entries: chain.report.entries });
    }
}
