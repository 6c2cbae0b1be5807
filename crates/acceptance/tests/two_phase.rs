//! With two-phase commit, entries belong to the prepared transaction that made the change. The
//! session that ends this transaction does not matter, nor does the time.

use acceptance::{
    Cluster, add_leads, app_database, assert_intact, assert_trail_gives_table, call, value,
};

#[test]
fn entries_belong_to_the_prepared_transaction() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "two_phase");
    let mut app = cluster.session("app", "two_phase");
    add_leads(&mut app, 1, 10);
    let mut expected = 10_i64;
    let count = "SELECT count(*) FROM lead_audit.entry";
    assert_eq!(value::<i64>(&mut admin, count), expected);

    for name in ["committed", "after_restart", "after_crash", "rolled_back"] {
        call(
            &mut app,
            &format!("SET lead_audit.user_id = '{name}'; SET lead_audit.request_id = 'req-{name}'"),
        );
        call(
            &mut app,
            &format!(
                "BEGIN; UPDATE leads SET updated_by = '{name}' WHERE id = lpad('1', 32, '0') AND '{name}' = 'committed';
                 INSERT INTO leads (id, updated_by) SELECT '{name}-' || g, '{name}' FROM generate_series(1, 100) g;
                 SAVEPOINT s; DELETE FROM leads WHERE id LIKE '{name}-%'; ROLLBACK TO s;
                 DELETE FROM leads WHERE id = '{name}-1'; PREPARE TRANSACTION '{name}'"
            ),
        );
    }
    assert_eq!(
        value::<i64>(&mut admin, count),
        expected,
        "nothing of a prepared transaction is visible"
    );

    // A session with another context ends the prepared transaction. The entries do not contain the
    // context of the session that ends the transaction.
    call(&mut admin, "SET lead_audit.user_id = 'somebody else'");
    call(&mut admin, "COMMIT PREPARED 'committed'");
    expected += 102;
    assert_eq!(value::<i64>(&mut admin, count), expected);
    call(&mut admin, "ROLLBACK PREPARED 'rolled_back'");
    assert_eq!(value::<i64>(&mut admin, count), expected);
    drop((admin, app));

    for (mode, name) in [("fast", "after_restart"), ("immediate", "after_crash")] {
        cluster.stop(mode);
        cluster.start_again();
        let mut admin = cluster.admin("two_phase");
        assert_eq!(value::<i64>(&mut admin, count), expected);
        call(&mut admin, &format!("COMMIT PREPARED '{name}'"));
        expected += 101;
        assert_eq!(value::<i64>(&mut admin, count), expected);
    }

    let mut admin = cluster.admin("two_phase");
    let by_writer: String = value(
        &mut admin,
        "SELECT string_agg(concat_ws(' ', user_id, request_id, db_session_user, transactions, entries), ', ' ORDER BY user_id)
         FROM (SELECT user_id, request_id, db_session_user, count(DISTINCT txid) AS transactions, count(*) AS entries
               FROM lead_audit.entry WHERE user_id IS NOT NULL GROUP BY 1, 2, 3) e",
    );
    assert_eq!(
        by_writer,
        "after_crash req-after_crash app 1 101, after_restart req-after_restart app 1 101, committed req-committed app 1 102"
    );
    assert_trail_gives_table(&mut admin, "leads");
    assert_intact(&mut admin);
}
