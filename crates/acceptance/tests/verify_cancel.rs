//! A long verification can be cancelled at any time, and reports its progress.

use acceptance::{Cluster, Session, app_database, assert_intact, call, sqlstate, value};
use std::process::Command;
use std::time::{Duration, Instant};

const VERIFY: &str = "SELECT * FROM lead_audit.verify()";

#[test]
fn a_long_verification_reports_progress_and_can_be_cancelled() {
    let cluster = Cluster::builder().setting("max_wal_size = 4GB").start();
    let mut admin = app_database(&cluster, "long");
    // PostgreSQL can be built without lz4. If the server has lz4, values in the session's new
    // tables are compressed with lz4.
    call(
        &mut admin,
        "SELECT set_config(name, 'lz4', false) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)",
    );
    // The large entries make a verification take seconds.
    call(
        &mut admin,
        "CREATE TABLE wide (id int PRIMARY KEY, t text); SELECT lead_audit.enable('wide');
         INSERT INTO wide SELECT g, repeat(md5(g::text), 250) FROM generate_series(1, 150000) g",
    );
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.entry"), 150_000);
    // The first verification only fills the caches. The test measures the second verification.
    assert_intact(&mut admin);
    let begin = Instant::now();
    assert_intact(&mut admin);
    let full_time = begin.elapsed();
    println!("a full verification takes {full_time:?}");
    assert!(full_time > Duration::from_millis(500), "too short to prove anything");
    // A cancelled verification must end within a second, and long before its normal end.
    let at_once = Duration::from_secs(1).min(full_time / 4);

    let pid = admin.pid();
    for share in [0.1, 0.5] {
        let mut canceller = cluster.admin("long");
        let wait = full_time.mul_f64(share);
        let cancelling = std::thread::spawn(move || {
            std::thread::sleep(wait);
            let begin = Instant::now();
            assert!(value::<bool>(&mut canceller, &format!("SELECT pg_cancel_backend({pid})")));
            begin
        });
        assert_eq!(sqlstate(&mut admin, VERIFY), "57014");
        let end = Instant::now();
        let took = end - cancelling.join().expect("the cancel is sent");
        assert!(took < at_once, "the cancel took {took:?}");
    }
    let timeout = full_time / 4;
    call(&mut admin, &format!("SET statement_timeout = {}", timeout.as_millis()));
    let begin = Instant::now();
    assert_eq!(sqlstate(&mut admin, VERIFY), "57014");
    assert!(begin.elapsed() < timeout + at_once, "the timeout took {:?}", begin.elapsed());
    call(&mut admin, "SET statement_timeout = 0");
    // After the cancellations, the session must still work.
    assert_eq!(value::<i64>(&mut admin, "SELECT count(*) FROM lead_audit.verify(1, 1000)"), 0);
    assert!(value::<bool>(&mut admin, "SELECT lead_audit.verify_entry(1)"));

    says_how_far_it_is(&mut admin, pid, full_time);
}

/// Checks that a verification reports its progress every five seconds. During the verification,
/// stops the server process with SIGSTOP for five seconds, so that the verification takes long
/// enough for a report.
fn says_how_far_it_is(admin: &mut Session, pid: i32, full_time: Duration) {
    assert_eq!(
        admin.notices().is_empty(),
        full_time < Duration::from_secs(5),
        "it speaks every five seconds"
    );
    let holding = std::thread::spawn(move || {
        std::thread::sleep(full_time / 4);
        signal("-STOP", pid);
        std::thread::sleep(Duration::from_millis(5_100));
        signal("-CONT", pid);
    });
    let faults: i64 = value(admin, "SELECT count(*) FROM lead_audit.verify()");
    holding.join().expect("it was held up");
    assert_eq!(faults, 0);
    let notices = admin.notices();
    assert!(!notices.is_empty(), "nothing was said in more than five seconds");
    for notice in notices {
        assert_eq!(notice.severity(), "NOTICE");
        assert!(
            notice.message().contains("entries") && notice.message().contains("faults so far: 0"),
            "{notice}"
        );
    }
}

fn signal(name: &str, pid: i32) {
    assert!(
        Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs").success()
    );
}
