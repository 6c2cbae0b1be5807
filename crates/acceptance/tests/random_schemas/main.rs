//! Several sessions run random statements on random tables. A model predicts the entries of these
//! statements, and the test compares the audit trail with the prediction. The model shares no code
//! with the extension. With PostgreSQL's own `to_jsonb`, the model reads the rows of each statement
//! before and after the statement. The model discards the events of rolled-back statements.

mod model;
mod statements;
mod tables;

use acceptance::{Cluster, Random, assert_intact, call, setting, value};
use model::{Book, compare};
use statements::Writer;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tables::Tables;

const WRITERS: u64 = 4;

#[test]
fn entries_match_the_model() {
    let seconds = setting("LEAD_AUDIT_ACCEPTANCE_SECONDS", 6);
    let cluster = Cluster::builder().setting("lock_timeout = 2s").start();
    call(&mut cluster.admin("postgres"), "CREATE DATABASE random");
    let mut admin = cluster.admin("random");
    if value(&mut admin, "SELECT count(*) = 0 FROM pg_available_extensions WHERE name = 'hstore'") {
        eprintln!("not run: the types are also those of contrib, which this server is without");
        return;
    }
    call(&mut admin, "CREATE EXTENSION lead_audit");
    call(&mut admin, model::SCHEMA);
    call(&mut admin, tables::TYPES);
    let tables = Tables::make(&mut admin, &mut Random::new(900), 6);

    let refusals = Mutex::new(BTreeMap::new());
    let until = Instant::now() + Duration::from_secs(seconds);
    let books: Vec<Book> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (cluster, tables, refusals) = (&cluster, &tables, &refusals);
                scope.spawn(move || {
                    let mut writer = Writer::new(cluster.admin("random"), tables, refusals, number);
                    writer.opening(tables.nth(number as usize));
                    // Each writer runs at least 40 transactions, even if a busy machine needs
                    // longer than planned.
                    for transaction in 0.. {
                        if transaction >= 40 && Instant::now() >= until {
                            break;
                        }
                        writer.transaction();
                    }
                    let mut warnings = writer.session.warnings();
                    warnings.retain(|warning| warning != "there is no transaction in progress");
                    assert_eq!(warnings, [""; 0]);
                    writer.book
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("each writer ends")).collect()
    });

    let book = Book::merge(books);
    println!("{book}; refused by the server: {:?}", refusals.lock().expect("no writer panicked"));
    compare(&mut admin, &book);
    assert_eq!(value::<i64>(&mut admin, "SELECT entries_not_written FROM lead_audit.stats"), 0);
    assert_intact(&mut admin);
    book.assert_varied();
}
