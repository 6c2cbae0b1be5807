//! Defines the tampering attempts as data.

use crate::Facts;

/// A tampering attempt.
pub struct Attempt {
    pub name: String,
    /// The row of the printed result table in which this attempt is counted.
    pub kind: &'static str,
    pub from: From,
    /// Whether the triggers that protect the log are disabled before the first step.
    pub unguarded: bool,
    pub steps: Vec<Step>,
    pub expected: Expected,
    /// The ids of the entries that the attempt changes, if the attempt changes single entries.
    /// Verification must name no other entry.
    pub about: Vec<i64>,
    /// Whether offline verification must name every entry whose id is in `about`.
    pub named: bool,
}

/// The database of which an attempt changes a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum From {
    Honest,
    /// The copy of the database that was made after the fourth checkpoint.
    Older,
}

/// One step of an attempt.
pub enum Step {
    /// SQL that a superuser executes in one transaction.
    Sql(String),
    /// SQL of a superuser that the triggers of the log must refuse.
    Refused(String),
    /// SQL that the application executes.
    App(String),
    /// A superuser connects again, so that changed settings take effect in the new session.
    Reconnect,
    /// Replaces the signatures of the checkpoints that match the SQL condition. The new signatures
    /// are made with a different key that has the name of the log's key.
    ForgeNotes(&'static str),
}

/// The verifiers that must find an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Offline verification or the witness must find the attempt.
    Found,
    /// Only `lead_audit.verify()` must find the attempt, because all sealed data is unchanged.
    ByServer,
    /// No verifier can find the attempt, as docs/security-model.md explains.
    Nobody,
}

impl Attempt {
    fn new(kind: &'static str, name: impl Into<String>, steps: Vec<Step>) -> Self {
        let name = format!("{kind}: {}", name.into());
        Attempt {
            name,
            kind,
            from: From::Honest,
            unguarded: true,
            steps,
            expected: Expected::Found,
            about: Vec::new(),
            named: false,
        }
    }

    fn about(mut self, ids: impl Into<Vec<i64>>) -> Self {
        self.about = ids.into();
        self
    }

    fn named(mut self, ids: impl Into<Vec<i64>>) -> Self {
        self.named = true;
        self.about(ids)
    }

    fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    fn guarded(mut self) -> Self {
        self.unguarded = false;
        self
    }

    fn older(mut self) -> Self {
        self.from = From::Older;
        self
    }
}

fn sql(text: impl Into<String>) -> Step {
    Step::Sql(text.into())
}

/// A tamperer who changes an entry can also recompute the stored values that depend on the entry.
/// Each element names the values that the tamperer recomputes at one depth. The index of the
/// element is the depth.
const DEPTHS: [&str; 7] = [
    "checksum",
    "checksum, leaf",
    "checksum, leaf, nodes",
    "checksum, leaf, nodes, roots",
    "checksum, leaf, nodes, roots, text of the notes",
    "checksum, leaf, nodes, roots, notes without signature",
    "checksum, leaf, nodes, roots, notes signed with a key of the same name",
];

/// Returns the steps that recompute the stored values that `DEPTHS[depth]` names, without the
/// checksum.
fn repaired(depth: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    if depth > 0 {
        steps.push(sql(format!("SELECT kit.repair({})", depth.min(4))));
    }
    match depth {
        5 => steps.push(sql("SELECT kit.unsign()")),
        6 => steps.push(Step::ForgeNotes("true")),
        _ => {}
    }
    steps
}

/// Returns the steps that delete the tree and let the server seal all entries again with the log's
/// own key.
fn sealed_anew() -> Vec<Step> {
    vec![sql("SELECT kit.unseal()"), sql("SELECT lead_audit.seal()")]
}

/// Columns of lead_audit.entry, each with an SQL expression. An attempt replaces the value of the
/// column by the value of the expression.
const COLUMNS: [(&str, &str); 29] = [
    ("format", "2"),
    ("txid", "(txid::text::numeric + 1)::text::xid8"),
    ("occurred_at", "occurred_at - interval '1 day'"),
    ("watch_id", "gen_random_uuid()"),
    ("key_hash", "key_hash + 1"),
    ("previous_key_hash", "17"),
    ("relation", "(relation::bigint + 1)::oid"),
    ("backend_pid", "backend_pid + 1"),
    ("table_schema", "'other'"),
    ("table_name", "'other'"),
    ("operation", "'SNAPSHOT'"),
    ("outcome", "'failed'"),
    ("soft_delete", "'deleted'"),
    ("row_key", "'{\"id\":\"another\"}'"),
    ("row_values", "replace(row_values::text, '@example', '@evil')::json"),
    ("changed_values", "'{\"source\":\"evil\"}'"),
    ("details", "'{\"row_count\":1}'"),
    ("user_id", "'somebody else'"),
    ("user_ip", "'203.0.113.1'"),
    ("user_agent", "NULL"),
    ("request_id", "'request'"),
    ("db_session_user", "'postgres'"),
    ("db_current_user", "'postgres'"),
    ("client_addr", "'203.0.113.1'"),
    ("application_name", "NULL"),
    ("error_code", "'23505'"),
    ("error_message", "'message'"),
    ("error_detail", "'detail'"),
    ("statement", "'DELETE FROM leads'"),
];

/// Returns all attempts.
pub fn attempts(facts: &Facts) -> Vec<Attempt> {
    let mut all = Vec::new();
    changed(facts, &mut all);
    deleted(facts, &mut all);
    inserted(facts, &mut all);
    reordered(facts, &mut all);
    taken_back(facts, &mut all);
    checkpoints(facts, &mut all);
    tree(facts, &mut all);
    guards(facts, &mut all);
    unsealed(facts, &mut all);
    all
}

fn changed(facts: &Facts, all: &mut Vec<Attempt>) {
    let mut change = |column: &str, value: &str, depth: usize, id: i64| {
        let key_hash = matches!(column, "watch_id" | "row_key")
            .then_some("UPDATE lead_audit.entry e SET key_hash = kit.key_hash(e)");
        let key_hash = key_hash.map(|sql| format!("{sql} WHERE id = {id};")).unwrap_or_default();
        let mut steps = vec![sql(format!(
            "UPDATE lead_audit.entry SET {column} = {value} WHERE id = {id}; {key_hash} SELECT kit.reckon({id})"
        ))];
        steps.extend(repaired(depth));
        let attempt = Attempt::new(
            "one column changed",
            format!("{column} of {id} ({})", DEPTHS[depth]),
            steps,
        );
        // From depth 4 on, the attempt also recomputes the roots in the notes, so no stored value
        // identifies the changed entry.
        all.push(if depth < 4 { attempt.named([id]) } else { attempt });
    };
    let ids = &facts.inserts;
    for (number, (column, value)) in COLUMNS.into_iter().enumerate() {
        change(column, value, number % DEPTHS.len(), ids[number % ids.len()]);
    }
    for depth in 0..DEPTHS.len() {
        change("row_values", COLUMNS[14].1, depth, ids[(depth * 3 + 1) % ids.len()]);
        change("occurred_at", COLUMNS[2].1, depth, ids[(depth * 5 + 2) % ids.len()]);
    }
    let id = ids[3];
    all.push(
        Attempt::new(
            "one column changed",
            "checksum left as it was",
            vec![sql(format!("UPDATE lead_audit.entry SET user_id = 'x' WHERE id = {id}"))],
        )
        .named([id]),
    );
    let set = "UPDATE lead_audit.entry SET user_id = 'x' WHERE id";
    let mut steps = vec![sql(format!("{set} = {id}; SELECT kit.reckon({id})"))];
    steps.extend(sealed_anew());
    all.push(Attempt::new("all sealed anew by the server", "after a change", steps));
}

fn deleted(facts: &Facts, all: &mut Vec<Attempt>) {
    let targets: [(&str, Vec<i64>); 6] = [
        ("one", vec![facts.inserts[5]]),
        ("the oldest", vec![facts.sealed.0]),
        ("the newest", vec![facts.sealed.1]),
        ("a transaction", facts.transaction.clone()),
        ("those of a table", facts.table.clone()),
        ("those of the last checkpoint", facts.newest.clone()),
    ];
    for (name, ids) in targets {
        let list = format!("{ids:?}").replace(['[', ']'], "");
        let delete = || sql(format!("DELETE FROM lead_audit.entry WHERE id IN ({list})"));
        all.push(Attempt::new("entries deleted", name, vec![delete()]).named(ids.clone()));
        let forget = || sql("SELECT kit.forget_missing(), kit.repair(4)");
        all.push(Attempt::new(
            "entries deleted",
            format!("{name}, and all that follows from it"),
            vec![delete(), forget()],
        ));
        let steps = vec![delete(), forget(), Step::ForgeNotes("true")];
        all.push(Attempt::new(
            "entries deleted",
            format!("{name}, and signed with a key of the same name"),
            steps,
        ));
        let mut steps = vec![delete()];
        steps.extend(sealed_anew());
        all.push(Attempt::new(
            "all sealed anew by the server",
            format!("after {name} was deleted"),
            steps,
        ));
    }
    all.push(Attempt::new("entries deleted", "all", vec![sql("TRUNCATE lead_audit.entry")]));
    let mut steps = vec![sql("TRUNCATE lead_audit.entry")];
    steps.extend(sealed_anew());
    all.push(Attempt::new("all sealed anew by the server", "after all were deleted", steps));
}

fn inserted(facts: &Facts, all: &mut Vec<Attempt>) {
    let kind = "entry inserted";
    let (model, gap, other_gap) = (facts.inserts[2], facts.gaps[0], facts.gaps[1]);
    let last = facts.sealed.1;
    let copy = |to: i64| sql(format!("SELECT kit.copy({model}, {to})"));
    all.push(Attempt::new(kind, "in a gap", vec![copy(gap)]).named([gap]));
    all.push(
        Attempt::new(kind, "in a gap, with its old checksum", vec![sql(format!(
            "CREATE TEMP TABLE x AS SELECT * FROM lead_audit.entry WHERE id = {model}; UPDATE x SET id = {gap}; INSERT INTO lead_audit.entry TABLE x"
        ))])
        .named([gap]),
    );
    all.push(
        Attempt::new(kind, "two in gaps", vec![copy(gap), copy(other_gap)]).named([gap, other_gap]),
    );
    for id in [0, -5, i64::MIN + 1] {
        all.push(
            Attempt::new(kind, format!("before the first, as {id}"), vec![copy(id)]).named([id]),
        );
    }
    let into = |text: &str| {
        format!(
            "UPDATE lead_audit.checkpoint SET entry_ids = entry_ids + int8multirange(int8range({gap}, {gap}, '[]')) WHERE tree_size =
             (SELECT min(tree_size) FROM lead_audit.checkpoint WHERE upper(entry_ids) > {gap}); {text}"
        )
    };
    all.push(Attempt::new(
        kind,
        "in a gap and the ids of its checkpoint",
        vec![copy(gap), sql(into(""))],
    ));
    let steps = || {
        vec![
            copy(gap),
            sql(into(&format!(
                "UPDATE lead_audit.checkpoint SET tree_size = -1 - tree_size WHERE upper(entry_ids) > {gap};
                 UPDATE lead_audit.checkpoint SET tree_size = -tree_size WHERE tree_size < 0; SELECT kit.index_leaves(), kit.repair(4)"
            ))),
        ]
    };
    let free =
        || sql("ALTER TABLE lead_audit.checkpoint DROP CONSTRAINT checkpoint_tree_size_check");
    let with = |mut last: Vec<Step>| {
        let mut all = vec![free()];
        all.extend(steps());
        all.append(&mut last);
        all
    };
    all.push(Attempt::new(kind, "in a gap, and all that follows from it", with(Vec::new())));
    all.push(Attempt::new(
        kind,
        "in a gap, and signed with a key of the same name",
        with(vec![Step::ForgeNotes("true")]),
    ));
    let mut anew = vec![copy(gap)];
    anew.extend(sealed_anew());
    all.push(Attempt::new(
        "all sealed anew by the server",
        "after one was inserted in a gap",
        anew,
    ));
    let mut between = vec![sql(format!(
        "UPDATE lead_audit.entry SET id = -id WHERE id > {model}; UPDATE lead_audit.entry SET id = 1 - id WHERE id < 0;
         SELECT kit.copy({model}, {model} + 1); UPDATE lead_audit.entry e SET checksum = kit.checksum(e) WHERE id > {model};
         SELECT setval('lead_audit.entry_id_seq', (SELECT max(id) FROM lead_audit.entry))"
    ))];
    between.extend(sealed_anew());
    all.push(Attempt::new(
        "all sealed anew by the server",
        "after one was inserted between two",
        between,
    ));
    // In the next two attempts, the tamperer also changes the stored state of sealing. The changed
    // state claims that sealing has not examined the missing id, or that the missing id is an open
    // id.
    all.push(
        Attempt::new(
            kind,
            "in a gap that is said to be new",
            vec![copy(gap), sql(format!("UPDATE lead_audit.tree SET looked_to = {gap} - 1"))],
        )
        .expecting(Expected::ByServer),
    );
    all.push(
        Attempt::new(kind, "inserted in a gap that is said to be open: proven to be sealed later", vec![
            copy(gap),
            sql(format!(
                "INSERT INTO lead_audit.open_gap VALUES ({gap}, now(), int8multirange(int8range({gap}, {gap}, '[]')), '{{}}'); UPDATE lead_audit.tree SET open_gaps = 1"
            )),
        ])
        .expecting(Expected::ByServer),
    );
    all.push(
        Attempt::new(
            "no finder",
            "inserted at the end, backdated: proven to be sealed later",
            vec![sql(format!("SELECT kit.copy({model}, nextval('lead_audit.entry_id_seq'))"))],
        )
        .expecting(Expected::Nobody),
    );
    all.push(
        Attempt::new(kind, "beyond the last id, not sealed", vec![copy(last + 10_000)])
            .named([last + 10_000]),
    );
}

fn reordered(facts: &Facts, all: &mut Vec<Attempt>) {
    let kind = "entries exchanged, moved, doubled";
    let (a, b) = (facts.inserts[4], facts.inserts[5]);
    let far = *facts.inserts.last().unwrap_or(&b);
    let swap = |a: i64, b: i64| sql(format!("SELECT kit.swap({a}, {b})"));
    all.push(Attempt::new(kind, "ids exchanged", vec![swap(a, b)]).named([a, b]));
    all.push(
        Attempt::new(kind, "ids exchanged, of two checkpoints", vec![swap(a, far)]).named([a, far]),
    );
    for (depth, what) in DEPTHS.iter().enumerate() {
        let mut steps = vec![swap(a, far), sql(format!("SELECT kit.reckon({a}, {far})"))];
        steps.extend(repaired(depth));
        let attempt = Attempt::new(kind, format!("ids exchanged ({what})"), steps);
        all.push(if depth == 0 { attempt.named([a, far]) } else { attempt });
    }
    let mut steps = vec![swap(a, b), sql(format!("SELECT kit.reckon({a}, {b})"))];
    steps.extend(sealed_anew());
    all.push(Attempt::new("all sealed anew by the server", "after two were exchanged", steps));
    let gap = facts.gaps[0];
    all.push(
        Attempt::new(
            kind,
            "an entry moved to a gap",
            vec![sql(format!(
                "UPDATE lead_audit.entry SET id = {gap} WHERE id = {a}; SELECT kit.reckon({gap})"
            ))],
        )
        .named([a, gap]),
    );
    let double = |change: &str| {
        sql(format!(
            "ALTER TABLE lead_audit.entry DROP CONSTRAINT entry_pkey; CREATE INDEX entry_pkey ON lead_audit.entry (id);
             CREATE TEMP TABLE x AS SELECT * FROM lead_audit.entry WHERE id = {a}; {change} INSERT INTO lead_audit.entry TABLE x"
        ))
    };
    all.push(Attempt::new(kind, "the same entry twice", vec![double("")]).named([a]));
    all.push(
        Attempt::new(
            kind,
            "another entry of the same id",
            vec![double("UPDATE x SET user_id = 'x';")],
        )
        .named([a]),
    );
    let ids = |from: usize, to: usize| {
        format!(
            "UPDATE lead_audit.checkpoint SET entry_ids = (SELECT entry_ids FROM lead_audit.checkpoint WHERE tree_size = {}) WHERE tree_size = {}",
            facts.sizes[from], facts.sizes[to]
        )
    };
    all.push(Attempt::new(kind, "the ids of one checkpoint in another", vec![sql(ids(1, 4))]));
}

fn taken_back(facts: &Facts, all: &mut Vec<Attempt>) {
    let kind = "history taken back, or another one";
    let (fourth, last) = (facts.sizes[3], facts.sizes[5]);
    let cut = || sql(format!("SELECT kit.cut({fourth})"));
    let gone =
        || sql("DELETE FROM lead_audit.entry WHERE id > (SELECT looked_to FROM lead_audit.tree)");
    let grow = |count: i64| {
        Step::App(format!(
            "INSERT INTO leads (id, email) SELECT 'other-' || g, 'other@example.com' FROM generate_series(1, {count}) g"
        ))
    };
    let seal = || sql("SELECT lead_audit.seal()");
    all.push(Attempt::new(kind, "the tree cut, the entries not", vec![cut()]));
    all.push(Attempt::new(kind, "tree and entries cut", vec![cut(), gone()]));
    all.push(Attempt::new(
        kind,
        "cut, and some other entries since",
        vec![cut(), gone(), grow(20), seal()],
    ));
    all.push(Attempt::new(
        kind,
        "cut, and many other entries since",
        vec![cut(), gone(), grow(400), seal()],
    ));
    all.push(Attempt::new(
        kind,
        "cut, and as many other entries since",
        vec![cut(), gone(), grow(last - fourth), seal()],
    ));
    all.push(
        Attempt::new(
            "no finder",
            "the tree cut, and the same entries sealed anew: the same history",
            vec![cut(), seal()],
        )
        .expecting(Expected::Nobody),
    );
    all.push(Attempt::new(kind, "an old backup restored", Vec::new()).older());
    all.push(
        Attempt::new(kind, "an old backup, and some entries since", vec![grow(20), seal()]).older(),
    );
    all.push(
        Attempt::new(kind, "an old backup, and many entries since", vec![grow(400), seal()])
            .older(),
    );
    all.push(
        Attempt::new(
            kind,
            "an old backup, and as many entries since",
            vec![grow(last - fourth), seal()],
        )
        .older(),
    );
    let rows =
        |which: &str| sql(format!("DELETE FROM lead_audit.checkpoint WHERE tree_size {which}"));
    all.push(Attempt::new(kind, "the newest checkpoint deleted", vec![rows(&format!("= {last}"))]));
    all.push(Attempt::new(
        kind,
        "the newest two deleted",
        vec![rows(&format!("> {}", facts.sizes[3]))],
    ));
    all.push(Attempt::new(
        kind,
        "one checkpoint deleted",
        vec![rows(&format!("= {}", facts.sizes[2]))],
    ));
    all.push(Attempt::new(kind, "all checkpoints deleted", vec![rows("> 0")]));
    all.push(Attempt::new(kind, "the tree emptied", vec![sql("SELECT kit.unseal()")]));
    all.push(
        Attempt::new("no finder", "a checkpoint's ids put into the next one: the same history", vec![sql(format!(
            "UPDATE lead_audit.checkpoint SET entry_ids = entry_ids + (SELECT entry_ids FROM lead_audit.checkpoint WHERE tree_size = {0}) WHERE tree_size = {1};
             DELETE FROM lead_audit.checkpoint WHERE tree_size = {0}; SELECT kit.index_leaves()",
            facts.sizes[4], facts.sizes[5]
        ))])
        .expecting(Expected::Nobody),
    );
    let all_new = |setup: &str| {
        let mut steps = vec![sql(setup), Step::Reconnect];
        steps.extend([grow(3), seal()]);
        steps
    };
    let set = |value: &str| {
        format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {value}', current_database()); END $$"
        )
    };
    let [same, other] = facts.other_keys.each_ref().map(|path| path.display().to_string());
    let kind = "the log's name or key changed";
    all.push(Attempt::new(
        kind,
        "no key any more",
        all_new(&set("lead_audit.signing_key_file = ''''")),
    ));
    all.push(Attempt::new(
        kind,
        "another key of the same name",
        all_new(&set(&format!("lead_audit.signing_key_file = ''{same}''"))),
    ));
    all.push(Attempt::new(
        kind,
        "another key of another name",
        all_new(&set(&format!("lead_audit.signing_key_file = ''{other}''"))),
    ));
    all.push(Attempt::new(
        kind,
        "another origin in the notes",
        vec![sql("UPDATE lead_audit.checkpoint SET note = replace(note, 'example.com/leads', 'example.com/other')")],
    ));
}

fn checkpoints(facts: &Facts, all: &mut Vec<Attempt>) {
    let kind = "a checkpoint changed";
    let size = facts.sizes[2];
    for (which, condition) in [
        ("one", format!("tree_size = {size}")),
        ("the newest", format!("tree_size = {}", facts.sizes[5])),
    ] {
        let mut set = |name: &str, what: &str| {
            let text = format!("UPDATE lead_audit.checkpoint SET {what} WHERE {condition}");
            all.push(Attempt::new(kind, format!("{which}: {name}"), vec![sql(text)]));
        };
        set("root", "root = sha256(root)");
        set(
            "note of another",
            &format!(
                "note = (SELECT note FROM lead_audit.checkpoint WHERE tree_size = {})",
                facts.sizes[0]
            ),
        );
        set("note is none", "note = 'nothing'");
        set("note empty", "note = ''");
        set("size in the note", r"note = regexp_replace(note, E'\n[0-9]+\n', E'\n7\n')");
        set("a line more in the note", r"note = replace(note, E'\n\n', E'\nmore\n\n')");
        set("signature", r"note = overlay(note PLACING 'AAAA' FROM length(note) - 20)");
        set("signature away", r"note = split_part(note, E'\n\n', 1) || E'\n'");
        set("tree size", "tree_size = tree_size + 1");
        set(
            "one id less",
            "entry_ids = entry_ids - int8multirange(int8range(lower(entry_ids), lower(entry_ids), '[]'))",
        );
        set(
            "one id more",
            "entry_ids = entry_ids + int8multirange(int8range(upper(entry_ids), upper(entry_ids), '[]'))",
        );
        set("no ids", "entry_ids = '{}'");
        set("very many ids", "entry_ids = '{[1,9223372036854775807)}'");
        set(
            "very many ids before",
            "entry_ids = int8multirange(int8range(-9223372036854775807, upper(entry_ids)))",
        );
        set("ids without end", "entry_ids = '{(,)}'");
    }
    for column in ["root", "note", "entry_ids"] {
        all.push(Attempt::new(kind, format!("no {column} any more"), vec![sql(format!(
            "ALTER TABLE lead_audit.checkpoint ALTER {column} DROP NOT NULL; UPDATE lead_audit.checkpoint SET {column} = NULL WHERE tree_size = {size}"
        ))]));
    }
    all.push(Attempt::new(kind, "all: signatures away", vec![sql("SELECT kit.unsign()")]));
    all.push(Attempt::new(
        kind,
        "one signed with a key of the same name",
        vec![Step::ForgeNotes(
            "tree_size = (SELECT tree_size FROM lead_audit.checkpoint ORDER BY 1 OFFSET 1 LIMIT 1)",
        )],
    ));
    all.push(
        Attempt::new(
            "no finder",
            "the first note signed with a key of the same name: the log may have had another",
            vec![Step::ForgeNotes(
                "tree_size = (SELECT min(tree_size) FROM lead_audit.checkpoint)",
            )],
        )
        .expecting(Expected::Nobody),
    );
    all.push(Attempt::new(
        kind,
        "all signed with a key of the same name",
        vec![Step::ForgeNotes("true")],
    ));
    all.push(
        Attempt::new(
            "no finder",
            "time of sealing: for information only",
            vec![sql("UPDATE lead_audit.checkpoint SET sealed_at = sealed_at - interval '1 year'")],
        )
        .expecting(Expected::Nobody),
    );
    all.push(
        Attempt::new("no finder", "a stranger's signature more", vec![sql(
            r"UPDATE lead_audit.checkpoint SET note = note || E'\u2014 example.com/stranger ' || replace(encode(decode(repeat('5a', 68), 'hex'), 'base64'), E'\n', '') || E'\n'"
        )])
        .expecting(Expected::Nobody),
    );
}

fn tree(facts: &Facts, all: &mut Vec<Attempt>) {
    let kind = "what is stored of the tree";
    let id = facts.inserts[1];
    let mut add = |name: &str, text: String, expected: Expected| {
        all.push(Attempt::new(kind, name, vec![sql(text)]).expecting(expected))
    };
    let flip = "hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1)";
    add(
        "a leaf hash",
        format!("UPDATE lead_audit.tree_tile SET {flip} WHERE level = 0 AND index = 0"),
        Expected::Found,
    );
    add(
        "a leaf hash at the edge",
        format!("UPDATE lead_audit.tree_edge SET {flip} WHERE level = 0"),
        Expected::Found,
    );
    let swapped = "overlay(overlay(hashes PLACING substr(hashes, 321, 32) FROM 353) PLACING substr(hashes, 353, 32) FROM 321)";
    add(
        "two leaf hashes exchanged",
        format!("UPDATE lead_audit.tree_tile SET hashes = {swapped} WHERE level = 0 AND index = 0"),
        Expected::Found,
    );
    add(
        "an inner node",
        "UPDATE lead_audit.tree_edge SET hashes = sha256(hashes) WHERE level = 1".to_owned(),
        Expected::ByServer,
    );
    add(
        "a tile deleted",
        "DELETE FROM lead_audit.tree_tile WHERE level = 0 AND index = 0".to_owned(),
        Expected::ByServer,
    );
    add(
        "the edge deleted",
        "DELETE FROM lead_audit.tree_edge WHERE level = 0".to_owned(),
        Expected::ByServer,
    );
    add(
        "the edge shortened",
        "UPDATE lead_audit.tree_edge SET hashes = substr(hashes, 1, 32) WHERE level = 0".to_owned(),
        Expected::ByServer,
    );
    add(
        "all tiles deleted",
        "TRUNCATE lead_audit.tree_tile, lead_audit.tree_edge".to_owned(),
        Expected::ByServer,
    );
    add(
        "where ids are, deleted",
        format!("DELETE FROM lead_audit.leaf_range WHERE {id} BETWEEN first_id AND last_id"),
        Expected::ByServer,
    );
    add(
        "where ids are, shifted",
        format!(
            "UPDATE lead_audit.leaf_range SET first_leaf = first_leaf + 1 WHERE {id} BETWEEN first_id AND last_id"
        ),
        Expected::ByServer,
    );
    add(
        "where ids are, without end",
        "UPDATE lead_audit.leaf_range SET last_id = 9223372036854775807 WHERE first_id = (SELECT max(first_id) FROM lead_audit.leaf_range)".to_owned(),
        Expected::ByServer,
    );
    add(
        "tree size",
        "UPDATE lead_audit.tree SET tree_size = tree_size - 1".to_owned(),
        Expected::ByServer,
    );
    add(
        "the state of sealing deleted",
        "DELETE FROM lead_audit.tree".to_owned(),
        Expected::ByServer,
    );
    add(
        "looked to the end of time",
        "UPDATE lead_audit.tree SET looked_to = 9223372036854775806".to_owned(),
        Expected::Found,
    );
    add(
        "the log's id",
        "UPDATE lead_audit.tree SET log_id = gen_random_uuid()".to_owned(),
        Expected::ByServer,
    );
    add(
        "a tile too many",
        "INSERT INTO lead_audit.tree_tile (index, level, hashes) VALUES (99, 0, '')".to_owned(),
        Expected::ByServer,
    );
    add(
        "an edge too many",
        "INSERT INTO lead_audit.tree_edge (index, level, hashes) VALUES (0, 6, '')".to_owned(),
        Expected::ByServer,
    );
    add(
        "an open gap too many",
        format!(
            "INSERT INTO lead_audit.open_gap VALUES ({id}, now(), int8multirange(int8range({id}, {id}, '[]')), '{{}}')"
        ),
        Expected::ByServer,
    );
    add(
        "an open gap without end",
        "INSERT INTO lead_audit.open_gap VALUES (1, now(), '{(,)}', '{}'); UPDATE lead_audit.tree SET open_gaps = 1".to_owned(),
        Expected::ByServer,
    );
}

fn guards(facts: &Facts, all: &mut Vec<Attempt>) {
    let kind = "around the guards";
    let id = facts.inserts[6];
    let change = format!(
        "UPDATE lead_audit.entry SET user_id = 'x' WHERE id = {id}; SELECT kit.reckon({id});"
    );
    all.push(
        Attempt::new(
            "refused by the guards",
            "session_replication_role",
            vec![sql("SET session_replication_role = replica"), Step::Refused(change.clone())],
        )
        .guarded()
        .expecting(Expected::Nobody),
    );
    all.push(
        Attempt::new(
            "refused by the guards",
            "every statement that the guards know",
            vec![
                Step::Refused(change.clone()),
                Step::Refused(format!("DELETE FROM lead_audit.entry WHERE id = {id}")),
                Step::Refused("TRUNCATE lead_audit.entry".to_owned()),
                Step::Refused("UPDATE lead_audit.checkpoint SET root = sha256(root)".to_owned()),
                Step::Refused("DELETE FROM lead_audit.tree_tile".to_owned()),
                Step::Refused("UPDATE lead_audit.tree SET tree_size = 0".to_owned()),
                Step::Refused("DELETE FROM lead_audit.tree_edge".to_owned()),
                Step::Refused("DELETE FROM lead_audit.leaf_range".to_owned()),
            ],
        )
        .guarded()
        .expecting(Expected::Nobody),
    );
    let mut attempt = |name: &str, text: String| {
        all.push(Attempt::new(kind, name, vec![sql(text)]).guarded().named([id]))
    };
    attempt("trigger dropped", format!("DROP TRIGGER append_only ON lead_audit.entry; {change}"));
    attempt(
        "trigger's function replaced",
        format!(
            "CREATE OR REPLACE FUNCTION lead_audit_internal.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; {change}"
        ),
    );
    attempt(
        "catalog",
        format!(
            "SET allow_system_table_mods = on; UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = 'lead_audit.entry'::regclass; {change}"
        ),
    );
    attempt("verify() replaced", format!(
        "SELECT kit.unguard(); {change}
         CREATE OR REPLACE FUNCTION lead_audit.verify(from_id bigint DEFAULT NULL, to_id bigint DEFAULT NULL, from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL)
         RETURNS TABLE (id bigint, fault text, detail text) LANGUAGE sql AS 'SELECT 1::bigint, ''a'', ''b'' WHERE false'"
    ));
    attempt(
        "a view in its place",
        format!(
            "CREATE TABLE kit.entry AS TABLE lead_audit.entry; UPDATE kit.entry SET user_id = 'x' WHERE id = {id};
         ALTER TABLE lead_audit.entry RENAME TO entry_; CREATE VIEW lead_audit.entry AS TABLE kit.entry"
        ),
    );
    attempt("another table in its place", format!(
        "CREATE TABLE kit.entry (LIKE lead_audit.entry); CREATE UNIQUE INDEX ON kit.entry (id); INSERT INTO kit.entry TABLE lead_audit.entry;
         UPDATE kit.entry SET user_id = 'x' WHERE id = {id};
         ALTER TABLE lead_audit.entry RENAME TO entry_; ALTER TABLE kit.entry SET SCHEMA lead_audit"
    ));
    let unsealed = facts.sealed.1 + 6;
    all.push(
        Attempt::new(
            kind,
            "a trigger that changes new entries",
            vec![
        sql("CREATE FUNCTION kit.change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.user_id := 'x'; RETURN NEW; END $$;
             CREATE TRIGGER a BEFORE INSERT ON lead_audit.entry FOR EACH ROW EXECUTE FUNCTION kit.change()"),
        Step::App("INSERT INTO leads (id) VALUES ('n')".to_owned()),
    ],
        )
        .guarded()
        .named([unsealed]),
    );
}

fn unsealed(facts: &Facts, all: &mut Vec<Attempt>) {
    let kind = "no finder";
    let id = facts.unsealed;
    let change = format!("UPDATE lead_audit.entry SET user_id = 'x' WHERE id = {id}");
    all.push(
        Attempt::new(
            "one column changed",
            "of one that is not sealed, without its checksum",
            vec![sql(&*change)],
        )
        .named([id]),
    );
    all.push(
        Attempt::new(
            kind,
            "changed before it was sealed, with its checksum",
            vec![sql(format!("{change}; SELECT kit.reckon({id})"))],
        )
        .expecting(Expected::Nobody),
    );
    all.push(
        Attempt::new(
            kind,
            "deleted before it was sealed",
            vec![sql(format!("DELETE FROM lead_audit.entry WHERE id = {id}"))],
        )
        .expecting(Expected::Nobody),
    );
    all.push(
        Attempt::new(
            kind,
            "written while recording was off",
            vec![sql("SET lead_audit.enabled = off; INSERT INTO leads (id) VALUES ('silent')")],
        )
        .expecting(Expected::Nobody),
    );
}
