//! In-database tests, a file for each behaviour. Each test runs in a transaction of its own that is rolled back, as
//! superuser in a database that has nothing but the extension. `trail` is what they share.

mod attacks;
mod capture;
mod context;
mod ddl_guard;
mod failing;
mod hostile;
mod install;
mod invalid_bytes;
mod keys;
mod log_table;
mod order;
mod partitions;
mod rights;
mod rollback;
mod sealing;
mod switches;
mod trail;
mod tree_verification;
mod values;
mod verification;
mod versions;
mod ways;
