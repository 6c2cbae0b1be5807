//! A statement that changes very many rows has an entry for each row. The entries of the statement
//! are never all in memory at the same time.

use acceptance::{Cluster, add_leads, app_database, call, value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const ROWS: i64 = 300_000;

/// The limit for the memory, in bytes, that a bulk statement may add to its process. Without
/// batches, the entries of the statement would take about 300,000 × 1 kB = 300 MB. With batches of
/// 1 MB, nearly all memory is PostgreSQL's own: the queue of trigger events (16 bytes per row,
/// about 5 MB), the plan and the caches. malloc returns only little of the freed memory to the
/// operating system. The bound of 48 MB is far above PostgreSQL's own memory, and far below 300 MB.
const BOUND: u64 = 48 << 20;

#[test]
fn a_bulk_update_has_all_its_entries_in_bounded_memory() {
    let cluster = Cluster::builder().setting("max_wal_size = 4GB").start();
    let mut admin = app_database(&cluster, "bulk");
    assert_eq!(value::<String>(&mut admin, "SHOW lead_audit.batch_memory"), "1MB");
    let mut app = cluster.session("app", "bulk");
    let pid = app.pid();
    // These writes load the library and fill the caches before the measurement.
    add_leads(&mut app, 1, 100);
    call(&mut app, "UPDATE leads SET source = 'warm'");
    let before = memory_of(pid);
    let inserted = peak_while(pid, || add_leads(&mut app, 101, ROWS as u32));
    let updated = peak_while(pid, || {
        let rows = app
            .execute("UPDATE leads SET enrichment_status = 'COMPLETED'", &[])
            .expect("the update succeeds");
        assert_eq!(rows as i64, ROWS);
    });
    println!("memory before {before}, at most {inserted} in the INSERT, {updated} in the UPDATE");
    let count = |admin: &mut _, operation: &str| -> i64 {
        value(
            admin,
            &format!(
                "SELECT count(*) FROM (SELECT DISTINCT row_key::text FROM lead_audit.entry
                 WHERE operation = '{operation}' AND (changed_values::text = '{{\"enrichment_status\":\"COMPLETED\"}}' OR operation = 'INSERT')) e"
            ),
        )
    };
    assert_eq!(count(&mut admin, "UPDATE"), ROWS);
    assert_eq!(count(&mut admin, "INSERT"), ROWS);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.entry"), 2 * ROWS + 100);
    let transactions: i64 = value(
        &mut admin,
        "SELECT count(DISTINCT txid) FROM lead_audit.entry WHERE changed_values::text = '{\"enrichment_status\":\"COMPLETED\"}'",
    );
    assert_eq!(transactions, 1);
    assert!(inserted - before < BOUND, "the INSERT took {} bytes more", inserted - before);
    assert!(updated - before < BOUND, "the UPDATE took {} bytes more", updated - before);
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.verify()"), 0);
}

/// A trigger of the application executes one INSERT for each row, each in a block with an exception
/// handler. The entry of each inner INSERT must be written when the inner INSERT ends, and must not
/// stay in memory until the outer statement ends.
#[test]
fn entries_of_inner_statements_leave_memory() {
    const INNER: u64 = 20_000;
    // The entries of all inner statements together have 20,000 × 4 kB = 80 MB. If the table `notes`
    // were not watched, the statement would need almost no memory.
    const INNER_BOUND: u64 = 20 << 20;
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "inner_writes");
    call(
        &mut admin,
        &format!(
            "CREATE TABLE notes (id int PRIMARY KEY, note text); SELECT lead_audit.enable('notes');
             CREATE FUNCTION add_notes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               FOR i IN 1 .. {INNER} LOOP
                 BEGIN INSERT INTO notes VALUES (i, repeat('x', 3000)); EXCEPTION WHEN division_by_zero THEN NULL; END;
               END LOOP; RETURN NULL; END $$;
             CREATE TRIGGER add_notes AFTER INSERT ON leads FOR EACH ROW EXECUTE FUNCTION add_notes()"
        ),
    );
    let pid = admin.pid();
    let before = memory_of(pid);
    let peak = peak_while(pid, || call(&mut admin, "INSERT INTO leads (id) VALUES ('outer')"));
    println!("memory before {before}, at most {peak}");
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.entry") as u64, INNER + 1);
    assert!(peak - before < INNER_BOUND, "the statement took {} bytes more", peak - before);
}

/// Returns the peak memory of a process while `work` runs.
fn peak_while(pid: i32, work: impl FnOnce()) -> u64 {
    let (stop, peak) = (AtomicBool::new(false), AtomicU64::new(memory_of(pid)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(memory_of(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // The thread that measures the memory must end even if `work` panics.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    peak.into_inner()
}

/// Returns the private memory of a process in bytes. Shared memory (shared_buffers) is not counted.
fn memory_of(pid: i32) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells RssAnon");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes * 1024
}
