//! Defines the command line of `lead-audit`. The doc comments of commands and options are the text
//! of `--help`.

use clap::{Args, Parser, Subcommand};
use export::read::Limits;
use std::path::PathBuf;

/// Exports the audit trail of lead_audit, verifies it with and without the database, and witnesses
/// its checkpoints.
///
/// Exit status: 0 intact (or done), 1 tampered with, 2 could not tell (or could not be done).
#[derive(Debug, Parser)]
#[command(name = "lead-audit", version, max_term_width = 120)]
pub struct Arguments {
    /// Print JSON for programs, one object on each line
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress and no remarks, only errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Keygen(Keygen),
    Export(Export),
    Verify(Verify),
    Witness(Witness),
    Inspect(Inspect),
    Prove(Prove),
    VerifyProof(VerifyProof),
}

/// Make a key pair: write the private key to a new file, print the public key
#[derive(Debug, Args)]
pub struct Keygen {
    /// Name of the key. The key of a log has the log's origin as its name, for example
    /// example.com/leads
    #[arg(long)]
    pub name: String,
    /// Make a key for a witness instead of a log
    #[arg(long)]
    pub witness: bool,
    /// File for the private key. It must not exist yet
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

/// The connection to the database.
#[derive(Debug, Args, Clone)]
pub struct Database {
    /// URL or connection string of the database (postgresql://…). Pass a password in PGPASSWORD
    #[arg(long, value_name = "URL", env = "LEAD_AUDIT_DATABASE_URL", hide_env_values = true)]
    pub database: Option<String>,
}

/// Export entries and checkpoints, with their proofs
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub database: Database,
    /// File for the export; - is standard output. A file whose name ends in .zst is compressed
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Compress with zstd, at a level from 1 to 19
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "3",
          require_equals = true, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub zstd: Option<i32>,
    /// Continue an interrupted export, or append the newer entries to a complete one
    #[arg(long, conflicts_with_all = ["from_size", "after"])]
    pub resume: bool,
    /// Start where the export in this file ends
    #[arg(long, value_name = "FILE", conflicts_with = "from_size")]
    pub after: Option<PathBuf>,
    /// Start with the tree of this size, which must be the size of a checkpoint
    #[arg(long, value_name = "SIZE")]
    pub from_size: Option<u64>,
    /// End with the tree of this size, which must be the size of a checkpoint
    #[arg(long, value_name = "SIZE")]
    pub to_size: Option<u64>,
    /// Export only entries with this id or a higher one, each with its proof
    #[arg(long, value_name = "ID")]
    pub from_id: Option<i64>,
    /// Export only entries with this id or a lower one, each with its proof
    #[arg(long, value_name = "ID")]
    pub to_id: Option<i64>,
    /// Export only entries of this table, each with its proof: SCHEMA.NAME, or NAME if it is
    /// unambiguous
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Export only entries of the row with this primary key: its value, or a JSON object with the
    /// columns of the key
    #[arg(long, value_name = "KEY", requires = "table")]
    pub key: Option<String>,
    /// Prove that the export extends the tree of this size, for verifiers that hold its checkpoint.
    /// Can be repeated
    #[arg(long, value_name = "SIZE")]
    pub prove_from: Vec<u64>,
}

/// The keys and checkpoints that the verifier trusts.
#[derive(Debug, Args, Clone)]
pub struct TrustArguments {
    /// Public key of the log: its text, or a file that contains it. Can be repeated, for a log that
    /// has changed its key
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// File with an earlier checkpoint, or a directory of checkpoints: the state of a witness, or
    /// the directory to which the log publishes
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// Public key of a witness. Each --checkpoint must then be cosigned by a given witness
    #[arg(long, value_name = "KEY")]
    pub witness_key: Vec<String>,
    /// Origin of the log. It must be one of the origins that the log has had
    #[arg(long)]
    pub origin: Option<String>,
}

/// Verify exports, or a database
#[derive(Debug, Args)]
pub struct Verify {
    /// Files with exports, oldest first; - is standard input
    #[arg(required_unless_present = "database", conflicts_with = "database")]
    pub files: Vec<PathBuf>,
    /// Verify the database itself: its URL or connection string
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    #[command(flatten)]
    pub trust: TrustArguments,
    /// Accept an export that ends before one of the checkpoints, because it is older
    #[arg(long)]
    pub older: bool,
    /// Longest accepted line, in MiB. It limits the memory that a hostile file can use. No entry is
    /// longer than the default
    #[arg(long, value_name = "MIB", default_value_t = Limits::LINE_MIB,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(Limits::LINE_MIB)))]
    pub max_line: u32,
}

/// Follow a log: check that each checkpoint extends the last one, keep and cosign it, or raise an
/// alarm
#[derive(Debug, Args)]
pub struct Witness {
    #[command(flatten)]
    pub database: Database,
    /// Directory to which the log publishes its checkpoints. Without --database nothing proves that
    /// they extend each other
    #[arg(long, value_name = "DIRECTORY")]
    pub checkpoints: Option<PathBuf>,
    /// Directory in which this witness keeps its checkpoints
    #[arg(long, value_name = "DIRECTORY")]
    pub state: PathBuf,
    /// Public key of the log: its text, or a file that contains it. Can be repeated
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// Origin that the log must have
    #[arg(long)]
    pub origin: Option<String>,
    /// Agree to a change of the log to this origin. If the log signs, give its new --key too. Can
    /// be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub follow: Vec<String>,
    /// Private key of this witness (keygen --witness), which cosigns the checked checkpoints
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// Directory to which the witness publishes the checked (and cosigned) checkpoints
    #[arg(long, value_name = "DIRECTORY")]
    pub publish: Option<PathBuf>,
    /// Shell command to run for an alarm. LEAD_AUDIT_… variables describe the alarm
    #[arg(long, value_name = "COMMAND")]
    pub alarm: Option<String>,
    /// Look once, then end (for cron)
    #[arg(long)]
    pub once: bool,
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub interval: u32,
}

/// Show an entry, a checkpoint, a proof, a key or an export as readable text
#[derive(Debug, Args)]
pub struct Inspect {
    /// The file; - is standard input. Or the text of a public key
    pub file: PathBuf,
    /// Show the entry with this id, of an export
    #[arg(long)]
    pub id: Option<i64>,
    /// Show the record on this line, of an export
    #[arg(long, conflicts_with = "id")]
    pub line: Option<u64>,
}

/// Write the proof that an entry is in the tree (C2SP tlog-proof), and the entry
#[derive(Debug, Args)]
pub struct Prove {
    #[command(flatten)]
    pub database: Database,
    /// Id of the entry
    #[arg(long)]
    pub id: i64,
    /// File for the proof; - is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// File for the canonical JSON of the entry, the input of verify-proof
    #[arg(long, value_name = "FILE")]
    pub entry: Option<PathBuf>,
}

/// Verify a proof (C2SP tlog-proof) that an entry is in the tree
#[derive(Debug, Args)]
pub struct VerifyProof {
    /// The proof
    pub proof: PathBuf,
    /// The entry: its canonical JSON, or a line of an export
    #[arg(long, value_name = "FILE")]
    pub entry: PathBuf,
    #[command(flatten)]
    pub trust: TrustArguments,
}
