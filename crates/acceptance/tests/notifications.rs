//! Any role that may connect can make NOTIFY fail. Sealing, the files of checkpoints and the
//! server's log must not depend on NOTIFY. The worker must repeat notifications that could not be
//! sent.

use acceptance::{
    Cluster, Session, add_leads, app_database, assert_intact, assert_tree_whole, call, seal,
    sqlstate, value, wait_until,
};
use postgres::fallible_iterator::FallibleIterator;
use std::fs;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn cluster(settings: &[&str]) -> (Cluster, Session) {
    let builder = Cluster::builder()
        .preloaded()
        .setting("lead_audit.seal_interval = '100ms'")
        .setting("log_min_messages = warning");
    let cluster = settings.iter().fold(builder, |builder, line| builder.setting(line)).start();
    let directory = cluster.directory().join("checkpoints");
    fs::create_dir(&directory).expect("a directory can be made");
    cluster.give_to_server(&directory);
    let setting = format!("ALTER SYSTEM SET lead_audit.checkpoint_dir = '{}'", directory.display());
    call(&mut cluster.admin("postgres"), &setting);
    call(&mut cluster.admin("postgres"), "SELECT pg_reload_conf()");
    let admin = app_database(&cluster, "heard");
    (cluster, admin)
}

/// Returns the number of checkpoints that have a file.
fn files(cluster: &Cluster) -> usize {
    let folders =
        fs::read_dir(cluster.directory().join("checkpoints")).expect("the directory can be read");
    folders
        .map(|folder| {
            fs::read_dir(folder.expect("a folder").path()).expect("it can be read").count()
        })
        .sum()
}

/// Checks that sealing continues while NOTIFY fails, and that notifications arrive after `end` has
/// removed the cause of the failure. If `is_full` is true, the cause is a full notification queue.
fn sealing_goes_on(cluster: &Cluster, admin: &mut Session, is_full: bool, end: impl FnOnce()) {
    let mut app = cluster.session("app", "heard");
    let warned =
        |cluster: &Cluster| cluster.log_text().matches("could not be published: NOTIFY: ").count();
    let before = warned(cluster);
    for round in 0..5 {
        add_leads(&mut app, 100 * round + 1, 100 * round + 10);
        wait_until(admin, LONG, "SELECT unsealed_entries = 0 FROM lead_audit.stats");
    }
    add_leads(&mut app, 1001, 1010);
    let size = seal(admin);
    assert_eq!(
        size,
        value::<i64>(admin, "SELECT count(*) FROM lead_audit.entry"),
        "seal() seals, too"
    );
    wait_until(
        admin,
        LONG,
        "SELECT publishing_errors > 0 AND last_publishing_error LIKE 'NOTIFY: %' FROM lead_audit.stats",
    );
    // The file of a checkpoint is written shortly after the COMMIT of the checkpoint's transaction.
    let (begin, checkpoints) = (
        Instant::now(),
        value::<i64>(admin, "SELECT count(*) FROM lead_audit.checkpoint") as usize,
    );
    while files(cluster) < checkpoints {
        assert!(
            begin.elapsed() < LONG,
            "{} of {checkpoints} checkpoints have a file",
            files(cluster)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(warned(cluster) - before, 1, "it is said once");
    let status = "SELECT state FROM lead_audit.status() WHERE part = 'checkpoint notifications'";
    assert_eq!(value::<String>(admin, status), if is_full { "off" } else { "on" });

    end();
    // A new listener would receive all notifications that are still in the notification queue. The
    // call of pg_notification_queue_usage() makes PostgreSQL remove the notifications for which no
    // session waits.
    wait_until(admin, LONG, "SELECT pg_notification_queue_usage() < 0.5");
    let mut listener = cluster.session("app", "heard");
    call(&mut listener, "LISTEN lead_audit_checkpoint");
    add_leads(&mut app, 2001, 2010);
    let size = seal(admin);
    let note: String =
        value(admin, &format!("SELECT note FROM lead_audit.checkpoint WHERE tree_size = {size}"));
    let mut heard = listener.notifications();
    let found =
        heard.timeout_iter(LONG).any(|one| Ok(one.payload() == note)).expect("notifications come");
    assert!(found, "what could not be sent is sent later");
    assert_eq!(value::<String>(admin, status), "on");
    assert_tree_whole(admin);
    assert_intact(admin);
}

#[test]
fn sealing_continues_without_notify() {
    let (cluster, mut admin) = cluster(&[]);
    call(&mut admin, "ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_away");
    let mut other = cluster.admin("heard");
    sealing_goes_on(&cluster, &mut admin, false, || {
        call(
            &mut other,
            "ALTER FUNCTION pg_catalog.pg_notify_away(text, text) RENAME TO pg_notify",
        );
    });
}

/// Checks that sealing continues while the notification queue is full. Any role can fill the
/// notification queue.
fn full_queue(settings: &[&str]) {
    let (cluster, mut admin) = cluster(settings);
    let mut listener = cluster.session("app", "postgres");
    call(&mut listener, "LISTEN noise");
    call(&mut listener, "BEGIN; SELECT 1");
    let mut app = cluster.session("app", "postgres");
    let begin = Instant::now();
    // Each notification fills one page of the notification queue.
    let fill = |number: u32| {
        format!(
            "SELECT count(pg_notify('noise', repeat('x', 4200) || g)) FROM generate_series(1, {number}) g"
        )
    };
    let mut rounds = 0;
    for number in [20_000, 1000, 50, 1] {
        while app.batch_execute(&fill(number)).is_ok() {
            rounds += 1;
            assert!(rounds < 1000, "the queue is never full");
        }
    }
    println!("the queue was full after {:?}", begin.elapsed());
    assert_eq!(sqlstate(&mut app, "SELECT pg_notify('noise', 'x')"), "54000");
    sealing_goes_on(&cluster, &mut admin, true, || drop(listener));
}

#[test]
fn sealing_continues_with_a_full_notification_queue() {
    let version: i32 = value(
        &mut Cluster::start().admin("postgres"),
        "SELECT current_setting('server_version_num')::int",
    );
    if version >= 170_000 {
        full_queue(&["max_notify_queue_pages = 64"]);
    }
}

#[test]
#[ignore = "writes 8 GB, which is what the queue holds before PostgreSQL 17"]
fn sealing_continues_with_a_full_notification_queue_of_8_gb() {
    full_queue(&[]);
}
