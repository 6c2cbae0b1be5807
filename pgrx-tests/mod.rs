//! In-database tests, a file for each behaviour. Each test runs in a transaction of its own that is rolled back, as
//! superuser in a database that has nothing but the extension. `trail` is what they share.

mod capture;
//TODO mod context;
//TODO mod ddl_guard;
//TODO mod failing;
//TODO mod hostile;
mod install;
mod keys;
mod order;
//TODO mod rights;
mod rollback;
//TODO mod switches;
mod trail;
//TODO mod values;
//TODO mod verification;
