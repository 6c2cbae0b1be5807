//! SQL that the library runs itself, with the snapshot that it says: pgrx's own interface takes the
//! transaction's.

use super::{ServerError, borrowed_text};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, Spi, pg_sys};
use std::ffi::CString;

/// A prepared statement. It is freed with this, or with the connection to SPI at the latest.
pub struct SpiPlan {
    plan: pg_sys::SPIPlanPtr,
    arguments: usize,
}

/// Connects to SPI, within which plans can be made and run.
pub fn with_spi<R>(work: impl FnOnce() -> R) -> R {
    Spi::connect_mut(|_| work())
}

impl SpiPlan {
    /// Prepares a statement whose arguments have these types.
    pub fn prepare(sql: &str, types: &[pg_sys::Oid]) -> Self {
        let Ok(text) = CString::new(sql) else { failed(sql) };
        let mut types = types.to_vec();
        // SAFETY: within a connection to SPI; the text and the types are copied.
        let plan =
            unsafe { pg_sys::SPI_prepare(text.as_ptr(), types.len() as i32, types.as_mut_ptr()) };
        if plan.is_null() {
            failed(sql);
        }
        SpiPlan { plan, arguments: types.len() }
    }

    /// Runs a query that changes nothing.
    pub fn read(&self, snapshot: pg_sys::Snapshot, arguments: &[Option<pg_sys::Datum>]) -> Rows {
        self.run(snapshot, true, arguments)
    }

    /// Runs a statement that may change something. It sees what the transaction itself has done
    /// before, whatever the snapshot.
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
        // SAFETY: the plan is alive and takes as many arguments; a snapshot of the caller's is
        // active.
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
        // SAFETY: set by the call.
        unsafe { Rows { table: pg_sys::SPI_tuptable, count: pg_sys::SPI_processed as usize } }
    }
}

impl Drop for SpiPlan {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by us and not freed since.
            unsafe { pg_sys::SPI_freeplan(self.plan) };
        }
    }
}

/// What a statement returned. The rows are freed with this.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
}

impl Rows {
    /// How many rows there are, or, without RETURNING, were changed.
    pub fn len(&self) -> usize {
        self.count
    }

    /// A value, both counted from 0; `None` for a row or column that is not there, for NULL, and
    /// for a text that is not UTF-8. A column of another type than `T` is an error, which is
    /// raised.
    pub fn get<T: FromDatum + IntoDatum>(&self, row: usize, column: usize) -> Option<T> {
        if self.table.is_null() || row >= self.count {
            return None;
        }
        let number = i32::try_from(column).ok()?.checked_add(1)?;
        // SAFETY: the table has `count` rows of its row type; SPI_getbinval gives NULL for a column
        // that is not there, whose type is invalid. The value is read as its type, and as text only
        // if it is one.
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
            // SAFETY: made by SPI in this connection and not freed since.
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

/// Runs `work`, whose statements find their rows by ctid. PostgreSQL prefers to read a small table
/// from its beginning to its end. In a serializable transaction, that would conflict with every
/// other writer of the table.
pub fn with_tid_scans<R>(work: impl FnOnce() -> R) -> R {
    struct Restore {
        seq_scan: bool,
        tid_scan: bool,
    }
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: plain variables of the session, which the planner reads.
            unsafe {
                pg_sys::enable_seqscan = self.seq_scan;
                pg_sys::enable_tidscan = self.tid_scan;
            }
        }
    }
    // SAFETY: as above.
    let _restore = unsafe {
        let former = Restore { seq_scan: pg_sys::enable_seqscan, tid_scan: pg_sys::enable_tidscan };
        pg_sys::enable_seqscan = false;
        pg_sys::enable_tidscan = true;
        former
    };
    work()
}
