//! Provides database sessions, and the queries that most tests need.

use postgres::error::{DbError, SqlState};
use postgres::types::FromSqlOwned;
use postgres::{Client, Config, Error, NoTls};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A client's connection to a server, with the notices and warnings that the server has sent.
pub struct Session {
    client: Client,
    notices: Arc<Mutex<Vec<DbError>>>,
}

impl Session {
    /// Opens a connection to a server.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        let notices: Arc<Mutex<Vec<DbError>>> = Arc::default();
        let mut config = config.clone();
        let sink = Arc::clone(&notices);
        config.notice_callback(move |notice| {
            sink.lock().expect("no holder of this lock panics").push(notice)
        });
        Ok(Session { client: config.connect(NoTls)?, notices })
    }

    /// Returns the notices and warnings that the server has sent since the last call of `notices`
    /// or `warnings`.
    ///
    /// # Panics
    /// Never panics, because no thread panics while it holds the lock of the notices.
    pub fn notices(&self) -> Vec<DbError> {
        std::mem::take(&mut *self.notices.lock().expect("no holder of this lock panics"))
    }

    /// Returns the messages of the warnings that the server has sent since the last call of
    /// `notices` or `warnings`. Discards the received notices.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.notices().into_iter().filter(|notice| notice.severity() == "WARNING");
        warnings.map(|notice| notice.message().to_owned()).collect()
    }

    /// Returns the process id of this session's server process.
    #[must_use]
    pub fn pid(&mut self) -> i32 {
        value(self, "SELECT pg_backend_pid()")
    }
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Runs statements that must succeed.
///
/// # Panics
/// Panics if a statement fails.
#[track_caller]
pub fn call(session: &mut Session, sql: &str) {
    if let Err(error) = session.batch_execute(sql) {
        panic!("{}\n{sql}", describe(&error));
    }
}

/// Ends the session's transaction and its `statement_timeout`.
///
/// If a timeout ends after a statement's last check for interrupts, PostgreSQL completes the
/// statement, and reports the timeout as an error of the next statement (`ProcessInterrupts()` in
/// tcop/postgres.c). Therefore, the function repeats its statements if they fail with the error of
/// a timeout.
///
/// # Errors
/// Returns an error if the session does not execute the statements.
pub fn end_timeout(session: &mut Session) -> Result<(), Error> {
    let mut repetitions = 0..20;
    loop {
        match session.batch_execute("ROLLBACK; SET statement_timeout = 0; SELECT 1") {
            Err(error)
                if matches!(
                    error.code(),
                    Some(&SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE)
                ) && repetitions.next().is_some() => {}
            answer => return answer,
        }
    }
}

/// Runs statements. If a statement fails, returns the SQLSTATE and the message of the statement's
/// error.
///
/// # Errors
/// Returns an error if a statement fails.
pub fn try_call(session: &mut Session, sql: &str) -> Result<(), String> {
    session.batch_execute(sql).map_err(|error| describe(&error))
}

/// Returns the single value of a query's result.
///
/// # Panics
/// Panics if the query fails, or if the query does not return exactly one row whose first value
/// has the type `T`.
#[track_caller]
pub fn value<T: FromSqlOwned>(session: &mut Session, sql: &str) -> T {
    match session.query_one(sql, &[]) {
        Ok(row) => row.try_get(0).unwrap_or_else(|error| panic!("{error}\n{sql}")),
        Err(error) => panic!("{}\n{sql}", describe(&error)),
    }
}

/// Repeats the query `condition` until the single value of its result is true.
///
/// # Panics
/// Panics if the value is still false after the time `longest`.
#[track_caller]
pub fn wait_until(session: &mut Session, longest: Duration, condition: &str) {
    let begin = Instant::now();
    while !value::<bool>(session, condition) {
        assert!(begin.elapsed() < longest, "this did not become true: {condition}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs statements, one of which must fail. Returns the SQLSTATE of the statement that failed.
///
/// # Panics
/// Panics if no statement fails, or if the error does not come from the server.
#[track_caller]
pub fn sqlstate(session: &mut Session, sql: &str) -> String {
    match session.batch_execute(sql) {
        Ok(()) => panic!("this was not refused: {sql}"),
        Err(error) => match error.code() {
            Some(code) => code.code().to_owned(),
            None => panic!("{error}\n{sql}"),
        },
    }
}

fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            let detail = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}: {}{detail}", error.code().code(), error.message())
        }
        None => error.to_string(),
    }
}
