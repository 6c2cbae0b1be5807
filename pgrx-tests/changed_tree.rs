//! Tests that verification finds the changes of a superuser who knows the code of lead_audit.
//! Besides entries, the superuser changes the data that is computed from entries: checksums,
//! leaves, inner nodes, checkpoints. verify() reports each kind of change as a different fault, and
//! never reports an unchanged entry.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use pgrx::prelude::*;

    /// Creates 600 entries and seals them with three checkpoints, whose tree sizes are 300, 301 and
    /// 600. Then creates ten entries without sealing them. Disables all triggers that protect the
    /// log. Creates the SQL function `forge(id)`, which computes an entry's checksum from its
    /// columns and stores the checksum.
    fn begin_sealed() {
        begin();
        run("CREATE TABLE t (id int PRIMARY KEY, note text); SELECT lead_audit.enable('t');
             INSERT INTO t SELECT g FROM generate_series(1, 300) g; SELECT lead_audit.seal();
             INSERT INTO t VALUES (301); SELECT lead_audit.seal();
             INSERT INTO t SELECT g FROM generate_series(302, 600) g; SELECT lead_audit.seal();
             INSERT INTO t SELECT g FROM generate_series(601, 610) g");
        run("DO $$ DECLARE t text; BEGIN
               FOREACH t IN ARRAY ARRAY['entry', 'checkpoint', 'leaf_range', 'tree_tile', 'tree_edge', 'tree', 'open_gap'] LOOP
                 EXECUTE format('ALTER TABLE lead_audit.%I DISABLE TRIGGER ALL', t); END LOOP; END $$");
        run(r#"CREATE FUNCTION pg_temp.forge(which bigint) RETURNS void LANGUAGE sql AS $$
             UPDATE lead_audit.entry u SET checksum = (SELECT sha256(convert_to('{' || string_agg(to_json(c.key)::text || ':' ||
                 CASE WHEN c.key = 'occurred_at' THEN to_json(to_char(u.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
                      WHEN c.key IN ('id', 'txid', 'relation') THEN c.value #>> '{}'
                      ELSE c.value::text END, ',' ORDER BY c.key COLLATE "C") || '}', 'UTF8'))
               FROM json_each(row_to_json(u)) c WHERE c.key <> 'checksum' AND c.value::text <> 'null')
             WHERE id = which $$;
             CREATE FUNCTION pg_temp.first() RETURNS bigint LANGUAGE sql AS 'SELECT min(id) FROM lead_audit.entry';
             CREATE FUNCTION pg_temp.leaf_hash(which bigint) RETURNS bytea LANGUAGE sql AS
               $$ SELECT sha256('\x00'::bytea || checksum) FROM lead_audit.entry WHERE id = which $$;
             CREATE FUNCTION pg_temp.set_leaf(leaf int, hash bytea) RETURNS void LANGUAGE sql AS $$
               UPDATE lead_audit.tree_tile SET hashes = overlay(hashes PLACING hash FROM leaf % 256 * 32 + 1) WHERE level = 0 AND index = leaf / 256;
               UPDATE lead_audit.tree_edge SET hashes = overlay(hashes PLACING hash FROM leaf % 256 * 32 + 1) WHERE level = 0 AND index = leaf / 256 $$"#);
        // Checks forge() itself: after forge() has stored the checksum of each unchanged entry,
        // every entry still verifies.
        run("SELECT pg_temp.forge(id) FROM lead_audit.entry");
        assert_intact();
    }

    /// Runs the statements, calls verify(), and undoes the statements. Returns the faults that
    /// verify() found. The ids in the result are renumbered, so that the first entry has the id 1.
    fn faults_after(statements: &str) -> Vec<String> {
        let result = one(&format!(
            "SELECT pg_temp.failure({})",
            literal(&format!(
                "DO $tampering$ BEGIN {statements}; END $tampering$;
                 DO $tampering$ BEGIN RAISE EXCEPTION '%', (SELECT coalesce(string_agg(concat_ws(' ', v.id - f + 1, fault), ', ' ORDER BY v.id, fault), 'none')
                 FROM lead_audit.verify() v, pg_temp.first() f); END $tampering$"
            ))
        ));
        let faults =
            result.strip_prefix("P0001 ").unwrap_or_else(|| panic!("{result}\n{statements}"));
        if faults == "none" { Vec::new() } else { faults.split(", ").map(str::to_owned).collect() }
    }

    fn entry(number: i64) -> i64 {
        number + number_of_first() - 1
    }

    fn number_of_first() -> i64 {
        number("SELECT pg_temp.first()")
    }

    #[pg_test]
    fn names_an_entry_that_was_rewritten_with_its_checksum() {
        begin_sealed();
        let (sealed, unsealed) = (entry(77), entry(605));
        let rewrite = |id: i64| {
            format!(
                "UPDATE lead_audit.entry SET user_id = 'eve' WHERE id = {id}; PERFORM pg_temp.forge({id})"
            )
        };
        assert_eq!(faults_after(&rewrite(sealed)), ["77 rewritten"]);
        assert_eq!(
            faults_after(&format!(
                "UPDATE lead_audit.entry SET user_id = 'eve' WHERE id = {sealed}"
            )),
            ["77 checksum"]
        );
        // verify() cannot find a change of an unsealed entry if the checksum was changed to match.
        // The tree has no leaf for an unsealed entry yet.
        assert_eq!(faults_after(&rewrite(unsealed)), [""; 0]);
        assert_eq!(
            faults_after(&format!("{}; {}", rewrite(sealed), rewrite(entry(600)))),
            ["77 rewritten", "600 rewritten"]
        );
    }

    #[pg_test]
    fn names_entries_that_are_gone_or_new() {
        begin_sealed();
        let delete = |from: i64, to: i64| {
            format!(
                "DELETE FROM lead_audit.entry WHERE id BETWEEN {} AND {}",
                entry(from),
                entry(to)
            )
        };
        assert_eq!(
            faults_after(&delete(1, 1)),
            ["1 deleted"].map(|_| "0 deleted"),
            "the first entry is another now"
        );
        assert_eq!(faults_after(&delete(256, 258)), ["256 deleted", "257 deleted", "258 deleted"]);
        assert_eq!(faults_after(&delete(600, 600)), ["600 deleted"]);
        assert_eq!(
            faults_after(&delete(605, 606)),
            [""; 0],
            "entries that are not sealed can be lost without a trace"
        );
        let copy = |to: i64| {
            format!(
                "INSERT INTO lead_audit.entry SELECT (jsonb_populate_record(e, jsonb_build_object('id', {to}))).* FROM lead_audit.entry e
                 WHERE id = {}; PERFORM pg_temp.forge({to})",
                entry(3)
            )
        };
        // The first statement copies an entry to an id above the last id of the sequence. The
        // second statement copies the entry to an id below the first id of the log.
        assert_eq!(faults_after(&copy(entry(700))), ["700 inserted"]);
        assert_eq!(faults_after(&copy(-5)).len(), 1);
        // If the id of an entry is changed, verify() reports the old id as deleted and the new id
        // as inserted.
        assert_eq!(
            faults_after(
                &format!(
                    "UPDATE lead_audit.entry SET id = {} WHERE id = {}; PERFORM pg_temp.forge({0})",
                    entry(900),
                    entry(9)
                )
                .replace("{0}", &entry(900).to_string())
            ),
            ["9 deleted", "900 inserted"]
        );
    }

    #[pg_test]
    fn names_an_entry_that_was_inserted_into_a_gap() {
        begin_sealed();
        run("DO $$ BEGIN INSERT INTO t VALUES (1000); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $$;
             INSERT INTO t VALUES (1001); SELECT lead_audit.seal()");
        let slip_in = format!(
            "INSERT INTO lead_audit.entry SELECT (jsonb_populate_record(e, jsonb_build_object('id', {gap}))).* FROM lead_audit.entry e
             WHERE id = {}; PERFORM pg_temp.forge({gap})",
            entry(3),
            gap = entry(611)
        );
        // The forged entry has an open id of this test's own transaction. Until the transaction
        // ends, verify() does not report an entry with an open id.
        assert_eq!(faults_after(&slip_in), [""; 0]);
        assert_eq!(
            faults_after(&format!("DELETE FROM lead_audit.open_gap; {slip_in}")),
            ["611 inserted", "open_gap"]
        );
    }

    #[pg_test]
    fn names_entries_that_changed_places() {
        begin_sealed();
        let swap = |a: i64, b: i64| {
            format!(
                "UPDATE lead_audit.entry SET id = -1 WHERE id = {a}; UPDATE lead_audit.entry SET id = {a} WHERE id = {b};
                 UPDATE lead_audit.entry SET id = {b} WHERE id = -1",
                a = entry(a),
                b = entry(b)
            )
        };
        assert_eq!(faults_after(&swap(5, 400)), ["5 reordered", "400 reordered"]);
        // After the two entries exchanged their ids and got new checksums, neither entry fits its
        // leaf.
        assert_eq!(
            faults_after(&format!(
                "{}; PERFORM pg_temp.forge({}), pg_temp.forge({})",
                swap(5, 400),
                entry(5),
                entry(400)
            )),
            ["5 rewritten", "400 rewritten"]
        );
        // The statement exchanges the leaf hashes of the entries 5 and 400.
        assert_eq!(
            faults_after(&format!(
                "PERFORM pg_temp.set_leaf(4, pg_temp.leaf_hash({})), pg_temp.set_leaf(399, pg_temp.leaf_hash({}))",
                entry(400),
                entry(5)
            )),
            ["5 tree_leaf", "400 tree_leaf", "tree_tile"]
        );
        // The statements exchange the ids 301 and 302 in the checkpoints and in `leaf_range`.
        // Afterwards the id 301 leads to the leaf of the entry 302, and the id 302 to the leaf of
        // the entry 301.
        assert_eq!(
            faults_after(&format!(
                "UPDATE lead_audit.checkpoint SET entry_ids = '{{[{b},{after_b})}}' WHERE tree_size = 301;
                 UPDATE lead_audit.checkpoint SET entry_ids = '{{[{a},{b}),[{after_b},{after_z})}}' WHERE tree_size = 600;
                 DELETE FROM lead_audit.leaf_range WHERE first_leaf >= 300;
                 INSERT INTO lead_audit.leaf_range VALUES ({b}, {b}, 300), ({a}, {a}, 301), ({after_b}, {after_z} - 1, 302)",
                a = entry(301),
                b = entry(302),
                after_b = entry(302) + 1,
                after_z = entry(600) + 1
            )),
            ["301 reordered", "302 reordered"]
        );
    }

    #[pg_test]
    fn names_a_leaf_that_was_changed() {
        begin_sealed();
        for leaf in [0, 255, 256, 299, 300, 511, 512, 599] {
            let fault = format!("{} tree_leaf", leaf + 1);
            let faults = faults_after(&format!("PERFORM pg_temp.set_leaf({leaf}, sha256(''))"));
            assert_eq!(faults[0], fault, "{faults:?}");
            assert!(faults[1..].iter().all(|fault| fault == "tree_tile"), "{faults:?}");
        }
        for statement in [
            "DELETE FROM lead_audit.tree_tile WHERE level = 0 AND index = 1",
            "DELETE FROM lead_audit.tree_edge",
            "UPDATE lead_audit.tree_edge SET hashes = substr(hashes, 33) WHERE level = 0",
            "UPDATE lead_audit.tree_edge SET hashes = hashes || sha256('') WHERE level = 0",
            "UPDATE lead_audit.tree_edge SET hashes = set_byte(hashes, 5, get_byte(hashes, 5) # 1) WHERE level = 1",
            "UPDATE lead_audit.tree_edge SET hashes = substr(hashes, 1, 33) WHERE level = 1",
        ] {
            let faults = faults_after(statement);
            assert!(
                !faults.is_empty()
                    && faults.iter().all(|f| f == "tree_tile" || f.ends_with(" tree_leaf")),
                "{statement}: {faults:?}"
            );
        }
    }

    #[pg_test]
    fn entry_changed_together_with_its_leaf() {
        begin_sealed();
        let id = entry(350);
        let rewrite = format!(
            "UPDATE lead_audit.entry SET user_id = 'eve' WHERE id = {id}; PERFORM pg_temp.forge({id});
             PERFORM pg_temp.set_leaf(349, pg_temp.leaf_hash({id}))"
        );
        // The changed leaf hash fits neither the stored nodes above the leaf nor the root in the
        // checkpoint.
        assert_eq!(faults_after(&rewrite), ["checkpoint", "tree_tile"]);
        let id = entry(550);
        let rewrite = format!(
            "UPDATE lead_audit.entry SET user_id = 'eve' WHERE id = {id}; PERFORM pg_temp.forge({id});
             PERFORM pg_temp.set_leaf(549, pg_temp.leaf_hash({id}))"
        );
        assert_eq!(faults_after(&rewrite), ["checkpoint"]);
        run(&format!("DO $$ BEGIN {rewrite}; END $$"));
        let detail = one("SELECT detail FROM lead_audit.verify()");
        assert!(
            detail.contains("from the checkpoint of tree size 600 on")
                && detail.contains(&format!("between ids {} and {}", entry(302), entry(600))),
            "{detail}"
        );
    }

    #[pg_test]
    fn names_a_checkpoint_that_was_changed() {
        begin_sealed();
        for (change, faults) in [
            ("SET root = sha256('') WHERE tree_size = 301", vec!["checkpoint", "checkpoint"]),
            ("SET note = replace(note, '301', '302') WHERE tree_size = 301", vec!["checkpoint"]),
            ("SET note = '' WHERE tree_size = 300", vec!["checkpoint"]),
            ("SET tree_size = 302 WHERE tree_size = 301", vec!["checkpoint"; 4]),
            ("SET entry_ids = '{}' WHERE tree_size = 301", vec!["checkpoint", "checkpoint"]),
        ] {
            let found = faults_after(&format!("UPDATE lead_audit.checkpoint {change}"));
            assert!(
                !found.is_empty() && found.iter().all(|fault| fault == "checkpoint"),
                "{change}: {found:?}, {faults:?}"
            );
        }
        for size in [300, 301, 600] {
            let found = faults_after(&format!(
                "DELETE FROM lead_audit.checkpoint WHERE tree_size = {size}"
            ));
            assert!(found.iter().any(|fault| fault == "checkpoint"), "{size}: {found:?}");
        }
        for statement in [
            "UPDATE lead_audit.leaf_range SET first_leaf = first_leaf + 1 WHERE first_leaf = 301",
            "DELETE FROM lead_audit.leaf_range WHERE first_leaf = 301",
            "INSERT INTO lead_audit.leaf_range VALUES (-7, -7, 5)",
            "UPDATE lead_audit.tree SET looked_to = 0",
            "UPDATE lead_audit.tree SET tree_size = 599",
        ] {
            let found = faults_after(statement);
            assert!(found.iter().any(|fault| fault == "checkpoint"), "{statement}: {found:?}");
        }
    }

    #[pg_test]
    fn names_surplus_rows() {
        begin_sealed();
        for (statement, faults) in [
            (
                "INSERT INTO lead_audit.tree_tile (index, level, hashes) VALUES (2, 0, '')",
                vec!["tree_tile"],
            ),
            (
                "INSERT INTO lead_audit.tree_tile (index, level, hashes) VALUES (-1, 0, '')",
                vec!["tree_tile"],
            ),
            (
                "INSERT INTO lead_audit.tree_tile (index, level, hashes) VALUES (0, 1, sha256(''))",
                vec!["tree_tile"; 2],
            ),
            (
                "INSERT INTO lead_audit.tree_tile (index, level, hashes) VALUES (0, 7, ''), (0, 9, '')",
                vec!["tree_tile"; 2],
            ),
            (
                "INSERT INTO lead_audit.tree_edge (index, level, hashes) VALUES (0, 5, '')",
                vec!["tree_tile"],
            ),
            (
                "INSERT INTO lead_audit.open_gap VALUES (-9, now(), '{[-9,-8)}', '{}')",
                vec!["open_gap"; 2],
            ),
            (
                "INSERT INTO lead_audit.open_gap VALUES (-9, now(), '{[-9,-8)}', '{}'); UPDATE lead_audit.tree SET open_gaps = open_gaps + 1",
                vec!["open_gap"],
            ),
            ("UPDATE lead_audit.tree SET open_gaps = open_gaps + 1", vec!["open_gap"]),
            ("UPDATE lead_audit.tree SET log_id = gen_random_uuid()", vec!["log_id"]),
            (
                "UPDATE lead_audit.tree SET log_id = gen_random_uuid(); UPDATE lead_audit.checkpoint SET log_id = NULL",
                vec!["log_id"],
            ),
        ] {
            let found = faults_after(statement);
            assert!(
                found.len() >= faults.len()
                    && faults.iter().all(|fault| found.iter().any(|f| f.ends_with(fault))),
                "{statement}: {found:?}, {faults:?}"
            );
        }
    }

    #[pg_test]
    fn note_of_another_log() {
        begin_sealed();
        for size in [300, 301, 600] {
            let faults = faults_after(&format!(
                "UPDATE lead_audit.checkpoint SET note = E'evil\\n' || substr(note, strpos(note, E'\\n') + 1) WHERE tree_size = {size}"
            ));
            assert!(
                !faults.is_empty() && faults.iter().all(|fault| fault == "checkpoint"),
                "{size}: {faults:?}"
            );
        }
    }

    /// Forges an entry under an id that the sequence has not given out yet. When the sequence later
    /// gives this id to a write, the writer stores the write's entry under another id. verify()
    /// reports the forged entry, and seal() never seals it.
    #[pg_test]
    fn entry_ahead_of_the_sequence() {
        begin_sealed();
        let last = number("SELECT max(id) FROM lead_audit.entry");
        for (ahead, batch) in [(3, 5), (1, 4), (2, 2)] {
            let from = number("SELECT last_value FROM lead_audit.entry_id_seq");
            let forged = from + ahead;
            run(&format!(
                "INSERT INTO lead_audit.entry SELECT (jsonb_populate_record(e, jsonb_build_object('id', {forged}))).* FROM lead_audit.entry e
                 WHERE id = {}; SELECT pg_temp.forge({forged})",
                entry(3)
            ));
            let named = || {
                rows("SELECT id, fault FROM lead_audit.verify() ORDER BY id")
                    .last()
                    .cloned()
                    .unwrap_or_default()
            };
            assert_eq!(named(), format!("{forged} | inserted"), "before its turn");
            let writes =
                format!("INSERT INTO t SELECT {from} * 10 + g FROM generate_series(1, {batch}) g");
            run(&writes);
            let written = rows(&format!(
                "SELECT row_key ->> 'id' FROM lead_audit.entry WHERE id > {from} AND id <> {forged} ORDER BY id"
            ));
            let expected: Vec<String> =
                (1..=batch).map(|row| (from * 10 + row).to_string()).collect();
            assert_eq!(written, expected, "each write has its entry, in its order");
            assert_eq!(named(), format!("{forged} | inserted"), "when the sequence has come by");
            let before = number("SELECT tree_size FROM lead_audit.tree");
            let unsealed =
                number(&format!("SELECT count(*) FROM lead_audit.entry WHERE id > {last}"));
            assert!(number("SELECT lead_audit.seal()") > before, "{unsealed}");
            assert_eq!(named(), format!("{forged} | inserted"), "after the sealing");
            assert_eq!(
                one(&format!(
                    "SELECT count(*) FROM lead_audit.leaf_range WHERE {forged} BETWEEN first_id AND last_id"
                )),
                "0"
            );
        }
        assert_eq!(one("SELECT entries_not_written FROM lead_audit.stats"), "0");
    }

    #[pg_test]
    fn range_checks_entries_and_leaves() {
        begin_sealed();
        let id = entry(350);
        run(&format!(
            "UPDATE lead_audit.entry SET user_id = 'eve' WHERE id = {id}; SELECT pg_temp.forge({id});
             DELETE FROM lead_audit.entry WHERE id = {}",
            entry(100)
        ));
        let found = |arguments: String| {
            rows(&format!(
                "SELECT id - pg_temp.first() + 1, fault FROM lead_audit.verify({arguments})"
            ))
        };
        assert_eq!(found(String::new()), ["100 | deleted", "350 | rewritten"]);
        assert_eq!(found(format!("{}", entry(101))), ["350 | rewritten"]);
        assert_eq!(found(format!("{}, {}", entry(90), entry(349))), ["100 | deleted"]);
        assert_eq!(found(format!("{0}, {0}", entry(100))), ["100 | deleted"]);
        assert_eq!(found(format!("to_id => {}", entry(99))), [""; 0]);
        assert_eq!(
            found("from_time => '-infinity'::timestamptz + interval '0'".to_owned()),
            ["100 | deleted", "350 | rewritten"]
        );
        assert_eq!(found("from_time => '2000-01-01'".to_owned()), ["350 | rewritten"]);
        assert_eq!(
            one(&format!(
                "SELECT lead_audit.verify_entry({id}), lead_audit.verify_entry({}), lead_audit.verify_entry({})",
                entry(100),
                entry(101)
            )),
            "false | false | true"
        );
    }
}
