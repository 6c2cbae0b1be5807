//! Defines the settings for recording failed statements. Only a superuser can change these
//! settings, because they determine how much of the users' input is stored.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static LOG_ROLLBACKS: GucSetting<bool> = GucSetting::<bool>::new(true);
static LOG_PARAMETERS: GucSetting<bool> = GucSetting::<bool>::new(false);
static LOG_STATEMENT_LENGTH: GucSetting<i32> = GucSetting::<i32>::new(2048);
static QUEUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

/// Returns whether the rollback of a transaction that wrote to a watched table is recorded.
pub fn log_rollbacks() -> bool {
    LOG_ROLLBACKS.get()
}

/// Returns whether entries of failed statements include the statement's parameters.
pub fn log_parameters() -> bool {
    LOG_PARAMETERS.get()
}

/// Returns the maximum length of a failed statement's text in an entry, in bytes.
pub fn log_statement_length() -> usize {
    LOG_STATEMENT_LENGTH.get().max(0) as usize
}

/// Returns the size of the queue, in bytes.
pub fn queue_bytes() -> usize {
    QUEUE_SIZE.get().max(0) as usize * 1024
}

/// Defines the settings for recording failed statements. The size of the queue is fixed at server
/// start, so the setting for this size is defined only if the library is preloaded.
pub fn define(preloading: bool) {
    GucRegistry::define_bool_guc(
        c"lead_audit.log_rollbacks",
        c"Records transactions that are rolled back after they wrote to a watched table.",
        c"Needs lead_audit in shared_preload_libraries. Only a superuser can change it.",
        &LOG_ROLLBACKS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"lead_audit.log_parameters",
        c"Records the parameters of statements that fail.",
        c"They may hold personal data. Only a superuser can change it.",
        &LOG_PARAMETERS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"lead_audit.log_statement_length",
        c"How much of the text of a statement that fails is recorded.",
        c"0 records none. Only a superuser can change it.",
        &LOG_STATEMENT_LENGTH,
        0,
        64 * 1024,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    if preloading {
        GucRegistry::define_int_guc(
            c"lead_audit.queue_size",
            c"Shared memory for failed operations that wait to be written.",
            c"When it is full, they go to the server's log. Needs lead_audit in \
              shared_preload_libraries.",
            &QUEUE_SIZE,
            256,
            1024 * 1024,
            GucContext::Postmaster,
            GucFlags::UNIT_KB,
        );
    }
}
