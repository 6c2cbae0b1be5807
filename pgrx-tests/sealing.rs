//! Tests seal() and the functions for proofs. Entries become leaves of a tree, and the Python
//! verifier checks the roots and proofs as RFC 6962 defines them. Ids of rolled-back transactions
//! have no leaves. The functions refuse a request for a proof that does not exist.

#[pgrx::pg_schema]
mod tests {
    use crate::pgrx_tests::helpers::*;
    use ledger::tlog_proof::TlogProof;
    use pgrx::prelude::*;

    /// Calls the Python verifier, which computes the root of the tree for each size in `sizes`. The
    /// leaves are the entries in the order in which the checkpoints sealed them.
    fn roots(sizes: &[i64]) -> Vec<String> {
        let checksums = rows(
            "SELECT encode(e.checksum, 'hex') FROM lead_audit.checkpoint c JOIN lead_audit.entry e ON e.id <@ c.entry_ids
             ORDER BY c.tree_size, e.id",
        );
        let call = format!(
            "edge, roots = Edge(), [Edge().root()]
for line in sys.stdin:
    edge.append(leaf_hash(bytes.fromhex(line)))
    roots.append(edge.root())
for size in {sizes:?}:
    print(roots[size].hex())"
        );
        python(
            include_str!("../verifiers/python/src/lead_audit_verifier/transparency.py"),
            &call,
            &checksums,
        )
    }

    /// Asserts that every checkpoint has the root of its leaves, and that its note states the same
    /// root.
    fn assert_roots() {
        let found =
            rows("SELECT encode(root, 'hex') FROM lead_audit.checkpoint ORDER BY tree_size");
        let sizes = rows("SELECT tree_size FROM lead_audit.checkpoint ORDER BY tree_size");
        let sizes: Vec<i64> = sizes.iter().map(|size| size.parse().expect("a number")).collect();
        assert_eq!(found, roots(&sizes));
        let wrong = rows(
            "SELECT c.tree_size FROM lead_audit.checkpoint c WHERE
             c.note <> lead_audit.origin() || E'\\n' || c.tree_size || E'\\n' || encode(c.root, 'base64') || E'\\n'",
        );
        assert_eq!(wrong, [""; 0]);
    }

    fn seal() -> i64 {
        number("SELECT lead_audit.seal()")
    }

    #[pg_test]
    fn makes_one_leaf_of_each_entry() {
        begin_with_leads();
        assert_eq!(seal(), 0);
        assert_eq!(one("SELECT lead_audit.latest_checkpoint()"), "NULL");
        let mut entries = 0;
        for count in [1, 1, 2, 5, 250, 1, 260, 3] {
            run(&format!(
                "INSERT INTO leads (id) SELECT 'a' || {entries} + g FROM generate_series(1, {count}) g"
            ));
            entries += count;
            assert_eq!(seal(), entries);
            assert_eq!(seal(), entries, "there is nothing new to seal");
            assert_roots();
        }
        assert_eq!(number("SELECT count(*) FROM lead_audit.checkpoint"), 8);
        assert_eq!(
            one(
                "SELECT lead_audit.latest_checkpoint() = note FROM lead_audit.checkpoint ORDER BY tree_size DESC LIMIT 1"
            ),
            "true"
        );
        assert_eq!(
            one("SELECT string_agg(level || '/' || index || '/' || length(hashes) / 32, ' ' ORDER BY level, index) FROM
                 (SELECT level, index, hashes FROM lead_audit.tree_tile UNION ALL SELECT level, index, hashes FROM lead_audit.tree_edge) t"),
            "0/0/256 0/1/256 0/2/11 1/0/2"
        );
        assert_intact();
    }

    #[pg_test]
    fn leaves_out_what_was_rolled_back() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a');
             DO $$ BEGIN INSERT INTO leads (id) VALUES ('b'), ('c'); RAISE division_by_zero;
                   EXCEPTION WHEN division_by_zero THEN NULL; END $$;
             INSERT INTO leads (id) VALUES ('d')");
        assert_eq!(seal(), 2);
        assert_roots();
        let ids = one("SELECT entry_ids FROM lead_audit.checkpoint");
        assert_eq!(ids, one("SELECT range_agg(int8range(id, id, '[]')) FROM lead_audit.entry"));
        // The ids of the rolled-back block are open ids until the transaction ends. Until the
        // transaction ends, seal() cannot know that no entries with these ids will appear.
        assert_eq!(number("SELECT count(*) FROM lead_audit.open_gap"), 1);
        run("INSERT INTO leads (id) VALUES ('e')");
        assert_eq!(seal(), 3);
        assert_roots();
    }

    #[pg_test]
    fn rolled_back_sealing_leaves_no_trace() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a')");
        assert_eq!(seal(), 1);
        run("INSERT INTO leads (id) VALUES ('b')");
        run(
            "DO $$ BEGIN PERFORM lead_audit.seal(); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $$",
        );
        assert_eq!(number("SELECT max(tree_size) FROM lead_audit.checkpoint"), 1);
        assert_eq!(seal(), 2);
        assert_roots();
    }

    #[pg_test]
    fn proves_that_each_entry_is_in_each_tree() {
        begin_with_leads();
        for count in [3, 300, 4, 270] {
            run(&format!(
                "INSERT INTO leads (id) SELECT gen_random_uuid() FROM generate_series(1, {count})"
            ));
            seal();
        }
        let sizes: Vec<i64> = rows("SELECT tree_size FROM lead_audit.checkpoint ORDER BY 1")
            .iter()
            .map(|n| n.parse().expect("n"))
            .collect();
        assert_eq!(sizes, [3, 303, 307, 577]);
        let first = number("SELECT min(id) FROM lead_audit.entry");
        for leaf in [0, 1, 2, 3, 255, 256, 302, 303, 306, 307, 511, 512, 576] {
            let id = first + leaf;
            let checksum = one(&format!(
                "SELECT encode(checksum, 'hex') FROM lead_audit.entry WHERE id = {id}"
            ));
            let checksum: Vec<u8> = (0..32)
                .map(|i| u8::from_str_radix(&checksum[2 * i..2 * i + 2], 16).expect("hex"))
                .collect();
            let leaf_hash = ledger::leaf_hash(&checksum.try_into().expect("32 bytes"));
            for size in &sizes {
                let call = format!("SELECT lead_audit.inclusion_proof({id}, {size})");
                if leaf >= *size {
                    assert_fails(
                        &call,
                        "22023",
                        &format!("entry {id} is not in the tree of size {size}"),
                    );
                    continue;
                }
                let proof = TlogProof::parse(one(&call).as_bytes()).expect("a proof");
                let checkpoint = proof.verify_unsigned(&leaf_hash).expect("it proves");
                assert_eq!((proof.index as i64, checkpoint.size() as i64), (leaf, *size));
                assert!(proof.verify_unsigned(&ledger::leaf_hash(&[0; 32])).is_err());
            }
        }
        assert_eq!(
            one(&format!("SELECT lead_audit.inclusion_proof({first})")),
            one(&format!("SELECT lead_audit.inclusion_proof({first}, 577)"))
        );
    }

    #[pg_test]
    fn proves_that_the_tree_only_grew() {
        begin_with_leads();
        run("INSERT INTO leads (id) SELECT gen_random_uuid() FROM generate_series(1, 600)");
        seal();
        let root = |size: i64| -> [u8; 32] {
            let hex = roots(&[size]).remove(0);
            std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"))
        };
        for (from, to) in [
            (1, 600),
            (255, 256),
            (256, 257),
            (256, 512),
            (257, 600),
            (512, 600),
            (599, 600),
            (3, 7),
            (600, 600),
            (0, 600),
        ] {
            let text = one(&format!(
                "SELECT encode(decode(line, 'base64'), 'hex') FROM
                 (SELECT string_agg(encode(decode(l, 'base64'), 'hex'), '') AS line FROM
                  regexp_split_to_table(rtrim(lead_audit.consistency_proof({from}, {to}), E'\\n'), E'\\n') l) x"
            )
            .replace("encode(decode(line, 'base64'), 'hex')", "line"));
            let proof: Vec<[u8; 32]> = (0..text.len() / 64)
                .map(|n| {
                    std::array::from_fn(|i| {
                        u8::from_str_radix(&text[64 * n + 2 * i..64 * n + 2 * i + 2], 16)
                            .expect("hex")
                    })
                })
                .collect();
            ledger::merkle::verify_consistency(
                from as u64,
                &root(from),
                to as u64,
                &root(to),
                &proof,
            )
            .unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        }
        assert_eq!(
            one("SELECT lead_audit.consistency_proof(7) = lead_audit.consistency_proof(7, 600)"),
            "true"
        );
        assert_eq!(one("SELECT lead_audit.consistency_proof(NULL)"), "NULL");
    }

    #[pg_test]
    fn refuses_proofs_that_do_not_exist() {
        begin_with_leads();
        assert_fails("SELECT lead_audit.inclusion_proof(-5)", "P0002", "there is no entry -5");
        run("INSERT INTO leads (id) VALUES ('a')");
        let id = number("SELECT max(id) FROM lead_audit.entry");
        assert_fails(
            &format!("SELECT lead_audit.inclusion_proof({id})"),
            "55000",
            "is not sealed yet",
        );
        seal();
        assert_fails(
            &format!("SELECT lead_audit.inclusion_proof({id}, 7)"),
            "P0002",
            "there is no checkpoint of tree size 7",
        );
        assert_fails(
            &format!("SELECT lead_audit.inclusion_proof({id}, -1)"),
            "P0002",
            "there is no checkpoint of tree size -1",
        );
        assert_eq!(one("SELECT lead_audit.inclusion_proof(NULL)"), "NULL");
        for sizes in
            ["2", "0, 2", "1, 0", "-1, 1", "0, -1", "9223372036854775807, 9223372036854775807"]
        {
            assert_fails(
                &format!("SELECT lead_audit.consistency_proof({sizes})"),
                "22023",
                "no tree of size",
            );
        }
    }

    #[pg_test]
    fn refuses_a_damaged_tree() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a'), ('b'), ('c')");
        seal();
        run("INSERT INTO leads (id) VALUES ('d')");
        let damaged = |statement: &str, message: &str| {
            assert_eq!(
                failure(&format!(
                    "ALTER TABLE lead_audit.checkpoint DISABLE TRIGGER ALL; ALTER TABLE lead_audit.tree_edge DISABLE TRIGGER ALL;
                     {statement}; SELECT lead_audit.seal()"
                )),
                message
            );
        };
        damaged(
            "UPDATE lead_audit.tree_edge SET hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1)",
            "XX001 the tree of the audit log is damaged",
        );
        damaged(
            "UPDATE lead_audit.tree_edge SET hashes = substr(hashes, 1, 64)",
            "XX001 the tree of the audit log is damaged",
        );
        damaged(
            "UPDATE lead_audit.tree_edge SET hashes = substr(hashes, 1, 95)",
            "XX001 tile 0 of level 0 of the audit log's tree has 95 bytes",
        );
        damaged(
            "UPDATE lead_audit.checkpoint SET root = sha256('')",
            "XX001 the tree of the audit log is damaged",
        );
        damaged(
            "DELETE FROM lead_audit.checkpoint",
            "XX001 the tree of the audit log and its checkpoints do not belong together",
        );
        assert_eq!(seal(), 4);
        assert_roots();
    }

    #[pg_test]
    fn requires_ids_in_order() {
        begin_with_leads();
        for change in ["CACHE 10", "INCREMENT 2", "CYCLE"] {
            let alter = format!("ALTER SEQUENCE lead_audit.entry_id_seq {change}");
            assert_fails(&alter, "55000", "cannot be altered like this");
            // seal() refuses a sequence whose options were changed while the DDL guard was
            // disabled.
            assert_fails(
                &format!(
                    "ALTER EVENT TRIGGER lead_audit_ddl DISABLE; {alter}; SELECT lead_audit.seal()"
                ),
                "55000",
                "does not give out ids one by one",
            );
        }
    }

    #[pg_test]
    fn refuses_other_changes_of_its_tables() {
        begin_with_leads();
        run("INSERT INTO leads (id) VALUES ('a')");
        seal();
        for (table, column) in [
            ("checkpoint", "note"),
            ("leaf_range", "first_leaf"),
            ("tree_tile", "hashes"),
            ("tree_edge", "hashes"),
            ("tree", "home"),
            ("open_gap", "ids"),
        ] {
            for statement in [
                format!("UPDATE lead_audit.{table} SET {column} = {column}"),
                format!("DELETE FROM lead_audit.{table}"),
                format!("TRUNCATE lead_audit.{table}"),
            ] {
                assert_fails(&statement, "42501", "");
                assert_fails(
                    &format!("SET LOCAL session_replication_role = replica; {statement}"),
                    "42501",
                    "",
                );
            }
        }
        run("CREATE ROLE nobody_special; GRANT USAGE ON SCHEMA lead_audit TO nobody_special");
        for call in [
            "seal()",
            "inclusion_proof(1)",
            "consistency_proof(1)",
            "latest_checkpoint()",
            "origin()",
            "verifier_key()",
        ] {
            assert_fails_as(
                "nobody_special",
                &format!("SELECT lead_audit.{call}"),
                "42501",
                "permission denied",
            );
        }
        run("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lead_audit TO nobody_special");
        run_as(
            "nobody_special",
            "SELECT lead_audit.seal(), lead_audit.latest_checkpoint(), lead_audit.origin()",
        );
        for setting in ["signing_key_file = '/x'", "checkpoint_dir = '/x'", "origin = 'x'"] {
            assert_fails_as(
                "nobody_special",
                &format!("SET lead_audit.{setting}"),
                "42501",
                "permission denied",
            );
        }
    }

    #[pg_test]
    fn stats_count_unsealed_entries() {
        begin_with_leads();
        let stats = "SELECT unsealed_entries, oldest_unsealed = (SELECT min(occurred_at) FROM lead_audit.entry e WHERE NOT EXISTS
             (SELECT FROM lead_audit.leaf_range r WHERE e.id BETWEEN r.first_id AND r.last_id)) AS right, seal_lag >= '0' AS lag, open_ids >= 0 AS open,
             tree_size, last_checkpoint_at > now() - interval '1 minute' AS recent, last_checkpoint_signed, publishing_errors FROM lead_audit.stats";
        assert_eq!(one(stats), "0 | NULL | NULL | true | 0 | NULL | NULL | 0");
        run("INSERT INTO leads (id) VALUES ('a'), ('b'), ('c')");
        assert_eq!(one(stats), "3 | true | true | true | 0 | NULL | NULL | 0");
        seal();
        assert_eq!(one(stats), "0 | NULL | NULL | true | 3 | true | false | 0");
        run("INSERT INTO leads (id) VALUES ('d')");
        run(
            "DO $$ BEGIN INSERT INTO leads (id) VALUES ('e'); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $$",
        );
        assert_eq!(one(stats), "1 | true | true | true | 3 | true | false | 0");
        seal();
        assert_eq!(one(stats), "0 | NULL | NULL | true | 4 | true | false | 0");
    }

    #[pg_test]
    fn settings_are_checked() {
        begin();
        assert_fails("SET lead_audit.checkpoint_dir = 'x'", "22023", "invalid value for parameter");
        assert_fails(
            "SET lead_audit.signing_key_file = '../x'",
            "22023",
            "invalid value for parameter",
        );
        assert_fails("SET lead_audit.origin = 'a b'", "22023", "invalid value for parameter");
        assert_fails("SET lead_audit.seal_interval = '5s'", "55P02", "cannot be changed now");
        run("SET LOCAL lead_audit.origin = 'example.org/crm'");
        assert_eq!(one("SELECT lead_audit.origin()"), "example.org/crm");
        run("SET LOCAL lead_audit.origin = ''");
        assert_eq!(
            one("SELECT lead_audit.origin() = 'lead_audit/' || log_id FROM lead_audit.tree"),
            "true"
        );
    }

    /// After a change of the origin, the next sealing writes a `KEY` entry, even if all entries are
    /// sealed already. Before the first checkpoint, a change of the origin needs no entry.
    #[pg_test]
    fn another_origin_is_an_entry() {
        begin();
        run("SET LOCAL lead_audit.origin = 'example.org/zero'; SELECT lead_audit.seal();
             SET LOCAL lead_audit.origin = 'example.org/one'; CREATE TABLE t (id int PRIMARY KEY); SELECT lead_audit.enable('t');
             INSERT INTO t VALUES (1), (2); SELECT lead_audit.seal()");
        assert_eq!(one("SELECT count(*) FROM lead_audit.entry WHERE operation = 'KEY'"), "0");
        let sealed = number("SELECT tree_size FROM lead_audit.tree");
        run("SET LOCAL lead_audit.origin = 'example.org/two'");
        assert_eq!(number("SELECT lead_audit.seal()"), sealed + 1);
        assert_eq!(number("SELECT lead_audit.seal()"), sealed + 1, "once");
        // Entries that were unsealed when the origin changed are sealed after the `KEY` entry,
        // under the new origin.
        run("SET LOCAL lead_audit.origin = 'example.org/three'; INSERT INTO t VALUES (3), (4)");
        assert_eq!(number("SELECT lead_audit.seal()"), sealed + 4);
        assert_eq!(
            rows("SELECT details, outcome, table_name, row_key FROM lead_audit.entry WHERE operation = 'KEY' ORDER BY id"),
            [("one", "two"), ("two", "three")].map(|(old, new)| {
                let name = |name| format!("\"example.org/{name}\"");
                format!(
                    "{{\"new_key\":null,\"new_origin\":{},\"old_key\":null,\"old_origin\":{}}} | ok | NULL | NULL",
                    name(new),
                    name(old)
                )
            })
        );
        assert_eq!(
            rows(&format!(
                "SELECT tree_size - {sealed}, split_part(note, E'\\n', 1) FROM lead_audit.checkpoint WHERE tree_size >= {sealed} ORDER BY 1"
            )),
            [
                "0 | example.org/one",
                "1 | example.org/two",
                "2 | example.org/three",
                "4 | example.org/three"
            ]
        );
        assert_intact();
        assert_eq!(
            one("SELECT origin, verifier_key FROM lead_audit.tree"),
            "example.org/three | NULL"
        );
        // If no entry has the operation `KEY`, verify() reports the change of the origin as a
        // fault.
        run("ALTER TABLE lead_audit.entry DISABLE TRIGGER ALL");
        run("UPDATE lead_audit.entry SET operation = 'NOKEY' WHERE operation = 'KEY'");
        let faults = rows("SELECT DISTINCT fault FROM lead_audit.verify() ORDER BY 1");
        assert_eq!(faults, ["checkpoint", "checksum"]);
    }

    #[pg_test]
    fn transactions_that_cannot_seal() {
        begin();
        run("SET TRANSACTION READ ONLY");
        assert_fails("SELECT lead_audit.seal()", "25006", "read-only transaction");
    }
}
