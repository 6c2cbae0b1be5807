//! The command line.

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
    /// Print JSON, one object on each line, for machines
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress, and nothing on standard error but errors
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

/// Make a key: a private one in a new file, and its public one on standard output
#[derive(Debug, Args)]
pub struct Keygen {
    /// Name of the key: for a log its origin, like example.com/leads
    #[arg(long)]
    pub name: String,
    /// A key for a witness, which cosigns, instead of one for a log
    #[arg(long)]
    pub witness: bool,
    /// File of the private key; it must not exist yet
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
}

/// Where the database is.
#[derive(Debug, Args, Clone)]
pub struct Database {
    /// URL or connection string of the database (postgresql://…). A password in it can be left to
    /// PGPASSWORD
    #[arg(long, value_name = "URL", env = "LEAD_AUDIT_DATABASE_URL", hide_env_values = true)]
    pub database: Option<String>,
}

/// Export entries, checkpoints and what proves them
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub database: Database,
    /// The file; - is standard output. One whose name ends in .zst is compressed
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Compress with zstd, at a level from 1 to 19
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, default_missing_value = "3", require_equals = true,
          value_parser = clap::value_parser!(i32).range(1..=19))]
    pub zstd: Option<i32>,
    /// Go on with the file where it was broken off, or add what came since it was complete
    #[arg(long, conflicts_with_all = ["from_size", "after"])]
    pub resume: bool,
    /// Start where the export in this file ended
    #[arg(long, value_name = "FILE", conflicts_with = "from_size")]
    pub after: Option<PathBuf>,
    /// Start with the tree of this size: that of a checkpoint
    #[arg(long, value_name = "SIZE")]
    pub from_size: Option<u64>,
    /// End with the tree of this size: that of a checkpoint
    #[arg(long, value_name = "SIZE")]
    pub to_size: Option<u64>,
    /// Only entries with this id or higher ones, each with its proof
    #[arg(long, value_name = "ID")]
    pub from_id: Option<i64>,
    /// Only entries with this id or lower ones, each with its proof
    #[arg(long, value_name = "ID")]
    pub to_id: Option<i64>,
    /// Only entries of this table (SCHEMA.NAME, or NAME if that is clear), each with its proof
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Only entries of the row with this key: its value, or a JSON object with the columns of the
    /// key
    #[arg(long, value_name = "KEY", requires = "table")]
    pub key: Option<String>,
    /// Prove that the export extends the tree of this size, for whoever holds that checkpoint; may
    /// be given several times
    #[arg(long, value_name = "SIZE")]
    pub prove_from: Vec<u64>,
}

/// What whoever verifies knows from elsewhere.
#[derive(Debug, Args, Clone)]
pub struct TrustArguments {
    /// Public key of the log (its text, or a file with it); may be given several times, after a
    /// change of keys
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// A checkpoint that was kept from earlier, or a directory of them: a witness's state, or what
    /// the log has published
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// Public key of a witness: then each --checkpoint has to be cosigned by one
    #[arg(long, value_name = "KEY")]
    pub witness_key: Vec<String>,
    /// The log that it has to be: one of the origins that it has had
    #[arg(long)]
    pub origin: Option<String>,
}

/// Verify exports, or a database
#[derive(Debug, Args)]
pub struct Verify {
    /// Exports, in the order in which they were made; - is standard input
    #[arg(required_unless_present = "database", conflicts_with = "database")]
    pub files: Vec<PathBuf>,
    /// Verify the database itself: its URL or connection string
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    #[command(flatten)]
    pub trust: TrustArguments,
    /// The export may be older than the checkpoints: that it ends before one of them is no fault
    #[arg(long)]
    pub older: bool,
    /// Longest line that is accepted, in MiB: what a hostile file can make this program take. No
    /// entry is longer than the default
    #[arg(long, value_name = "MIB", default_value_t = Limits::LINE_MIB, value_parser = clap::value_parser!(u32).range(1..=i64::from(Limits::LINE_MIB)))]
    pub max_line: u32,
}

/// Follow a log: check that each checkpoint extends the last one, keep it, cosign it, and raise the
/// alarm if it does not
#[derive(Debug, Args)]
pub struct Witness {
    #[command(flatten)]
    pub database: Database,
    /// Directory in which the log publishes its checkpoints. Without --database nothing proves that
    /// they extend each other
    #[arg(long, value_name = "DIRECTORY")]
    pub checkpoints: Option<PathBuf>,
    /// Directory in which this witness keeps what it has seen
    #[arg(long, value_name = "DIRECTORY")]
    pub state: PathBuf,
    /// Public key of the log (its text, or a file with it); may be given several times
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// The log that it has to be
    #[arg(long)]
    pub origin: Option<String>,
    /// Consent to the log's change to this origin; its --key has to be given too, if it signs. May
    /// be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub follow: Vec<String>,
    /// Private key of this witness (from keygen --witness): cosign what was checked
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// Directory to publish checkpoints in that were checked (and cosigned)
    #[arg(long, value_name = "DIRECTORY")]
    pub publish: Option<PathBuf>,
    /// Shell command to run when the alarm is raised, with the facts in LEAD_AUDIT_… variables
    #[arg(long, value_name = "COMMAND")]
    pub alarm: Option<String>,
    /// Look once and end, for cron
    #[arg(long)]
    pub once: bool,
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub interval: u32,
}

/// Show an entry, a checkpoint, a proof, a key or an export readably
#[derive(Debug, Args)]
pub struct Inspect {
    /// The file; - is standard input. The text of a public key may stand here itself
    pub file: PathBuf,
    /// Of an export: the entry with this id
    #[arg(long)]
    pub id: Option<i64>,
    /// Of an export: the record on this line
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
    /// File for the entry: its canonical JSON, which verify-proof takes
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
