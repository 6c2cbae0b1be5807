//! Runs the library's own SQL with a given snapshot. The functions for SPI in pgrx have no argument
//! for a snapshot.

use super::{ServerError, borrowed_text};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, Spi, pg_sys};
use std::ffi::CString;

/// A prepared statement. PostgreSQL frees the statement when the value is dropped, or when the SPI
/// connection ends.
pub struct SpiPlan {
    plan: pg_sys::SPIPlanPtr,
    arguments: usize,
}

/// Runs `work` within a connection to SPI. An [`SpiPlan`] can be prepared and run only within such
/// a connection.
pub fn with_spi<R>(work: impl FnOnce() -> R) -> R {
    Spi::connect_mut(|_| work())
}

impl SpiPlan {
    /// Prepares a statement. `types` are the types of the statement's arguments.
    pub fn prepare(sql: &str, types: &[pg_sys::Oid]) -> Self {
        let Ok(text) = CString::new(sql) else { failed(sql) };
        let mut types = types.to_vec();
        // SAFETY: the code runs within a connection to SPI. SPI copies the text and the types.
        let plan =
            unsafe { pg_sys::SPI_prepare(text.as_ptr(), types.len() as i32, types.as_mut_ptr()) };
        if plan.is_null() {
            failed(sql);
        }
        SpiPlan { plan, arguments: types.len() }
    }

    /// Runs a query that writes nothing, with this snapshot.
    pub fn read(&self, snapshot: pg_sys::Snapshot, arguments: &[Option<pg_sys::Datum>]) -> Rows {
        self.run(snapshot, true, arguments)
    }

    /// Runs a statement that may write, with this snapshot. The statement also sees the changes
    /// that its own transaction made before the call.
    pub fn write(&self, snapshot: pg_sys::Snapshot, arguments: &[Option<pg_sys::Datum>]) -> Rows {
        self.run(snapshot, false, arguments)
    }

    fn run(
        &self,
        snapshot: pg_sys::Snapshot,
        read_only: bool,
        arguments: &[Option<pg_sys::Datum>],
    ) -> Rows {
        if arguments.len() != self.arguments {
            failed(&format!("{} arguments for {}", arguments.len(), self.arguments));
        }
        let mut values: Vec<_> =
            arguments.iter().map(|value| value.unwrap_or(pg_sys::Datum::from(0))).collect();
        let nulls: Vec<_> =
            arguments.iter().map(|value| if value.is_some() { b' ' } else { b'n' } as _).collect();
        // SAFETY: the plan is alive, and takes as many arguments as `values` has. The caller keeps
        // the snapshot alive.
        let result = unsafe {
            pg_sys::SPI_execute_snapshot(
                self.plan,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                snapshot,
                std::ptr::null_mut(),
                read_only,
                true,
                0,
            )
        };
        if result < 0 {
            failed(&format!("SPI_execute_snapshot returned {result}"));
        }
        // SAFETY: SPI_execute_snapshot() has set SPI_tuptable and SPI_processed.
        unsafe { Rows { table: pg_sys::SPI_tuptable, count: pg_sys::SPI_processed as usize } }
    }
}

impl Drop for SpiPlan {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `prepare` made the plan, and only `drop` frees it.
            unsafe { pg_sys::SPI_freeplan(self.plan) };
        }
    }
}

/// The result of a statement. Dropping the result frees its rows.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
}

impl Rows {
    /// Returns the number of rows that the statement has returned. For a writing statement without
    /// RETURNING, returns the number of rows that the statement has changed.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns the value in a row and a column, both counted from 0. Returns `None` if the row or
    /// the column does not exist, if the value is NULL, or if the value is a text that is not
    /// UTF-8. Raises an error if the column's type does not fit `T`.
    pub fn get<T: FromDatum + IntoDatum>(&self, row: usize, column: usize) -> Option<T> {
        if self.table.is_null() || row >= self.count {
            return None;
        }
        let number = i32::try_from(column).ok()?.checked_add(1)?;
        // SAFETY: the result has `count` rows of its row type. SPI_getbinval returns NULL for a
        // column that does not exist. The code converts the value only if the type of the column
        // fits `T`.
        unsafe {
            let mut is_null = true;
            let (tuple, descriptor) = (*(*self.table).vals.add(row), (*self.table).tupdesc);
            let datum = pg_sys::SPI_getbinval(tuple, descriptor, number, &mut is_null);
            if is_null {
                return None;
            }
            let type_oid = pg_sys::SPI_gettypeid(descriptor, number);
            if !T::is_compatible_with(type_oid) {
                failed(&format!("column {number} is of type {}", type_oid.to_u32()));
            }
            if type_oid == pg_sys::TEXTOID && borrowed_text(datum).is_err() {
                return None;
            }
            T::from_datum(datum, is_null)
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if !self.table.is_null() && !std::thread::panicking() {
            // SAFETY: SPI made the result in this connection, and only `drop` frees it.
            unsafe { pg_sys::SPI_freetuptable(self.table) };
        }
    }
}

fn failed(what: &str) -> ! {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        message: "a statement of lead_audit's own could not be run".to_owned(),
        detail: Some(what.to_owned()),
    }
    .raise(None)
}

/// Runs `work`. While `work` runs, the planner uses TID scans instead of sequential scans. `work`
/// runs statements that find their rows by ctid. Without this function, the planner would choose a
/// sequential scan for a small table. In a serializable transaction, a sequential scan conflicts
/// with every other writer of the table.
pub fn with_tid_scans<R>(work: impl FnOnce() -> R) -> R {
    struct Restore {
        seq_scan: bool,
        tid_scan: bool,
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the code sets plain variables of the session, which the planner reads.
            unsafe {
                pg_sys::enable_seqscan = self.seq_scan;
                pg_sys::enable_tidscan = self.tid_scan;
            }
        }
    }
    // SAFETY: the code reads and sets plain variables of the session, which the planner reads.
    let _restore = unsafe {
        let former = Restore { seq_scan: pg_sys::enable_seqscan, tid_scan: pg_sys::enable_tidscan };
        pg_sys::enable_seqscan = false;
        pg_sys::enable_tidscan = true;
        former
    };
    work()
}
