//! Contains `Writer`, a session that runs random statements, as an application does. The writer
//! collects the expected entries of these statements in a `Book`.

use crate::model::{self, Book, Picture, Pictures, events_between};
use crate::tables::{Column, Table, Tables, VALUES, expression, literal, next_number, quoted};
use acceptance::{Random, Session};
use postgres::Error;
use std::collections::BTreeMap;
use std::sync::Mutex;

const TIME_ZONES: [&str; 4] = ["Asia/Kathmandu", "America/St_Johns", "<-15>+15", "UTC"];
const DATE_STYLES: [&str; 3] = ["German, DMY", "SQL, MDY", "ISO, YMD"];
const INTERVAL_STYLES: [&str; 3] = ["sql_standard", "iso_8601", "postgres_verbose"];

/// The number of refused statements, by SQLSTATE.
pub type Refusals = Mutex<BTreeMap<String, u64>>;

pub struct Writer<'a> {
    pub session: Session,
    pub book: Book,
    tables: &'a Tables,
    refusals: &'a Refusals,
    random: Random,
    /// The number that identifies this writer.
    number: u64,
    /// The number of transactions that this writer has begun.
    transactions: u64,
    /// The current value of lead_audit.request_id.
    request: String,
}

/// The reason why a statement had no effect on the database.
enum Failure {
    /// The server raised an error, and the effects of the statement were rolled back.
    Refused(Error),
    /// The statement is not possible for this table.
    NotHere,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Refused(error)
    }
}

impl<'a> Writer<'a> {
    pub fn new(session: Session, tables: &'a Tables, refusals: &'a Refusals, number: u64) -> Self {
        let random = Random::new(910 + number);
        Writer {
            session,
            book: Book::default(),
            tables,
            refusals,
            random,
            number,
            transactions: 0,
            request: String::new(),
        }
    }

    /// Runs cases that random statements could miss: rows that exist when watching begins, and a
    /// TRUNCATE of a table with rows.
    pub fn opening(&mut self, oid: u32) {
        self.request = format!("{}-0", self.number);
        let mut written = Book { committed: 1, ..Book::default() };
        let mut opening = || -> Result<(), Failure> {
            let table = Table::describe(&mut self.session, oid)?;
            self.session.batch_execute(&format!(
                "BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE; SET LOCAL lead_audit.request_id = '{}'",
                table.name, self.request
            ))?;
            for truncate in [true, false] {
                let made: Vec<i64> = (0..5).map(|_| next_number()).collect();
                let insert = self.insert(&table, &made);
                self.write(&mut written, &table, &[], &made, &insert)?;
                self.disable(&table)?;
                self.enable(&mut written, &table, true)?;
                if truncate && table.children.is_empty() {
                    self.truncate(&mut written, &table)?;
                }
            }
            Ok(self.session.batch_execute("COMMIT")?)
        };
        if let Err(Failure::Refused(error)) = opening() {
            panic!("{error:?}");
        }
        self.book.take(written);
    }

    /// Runs one transaction, and commits or rolls back this transaction.
    pub fn transaction(&mut self) {
        self.transactions += 1;
        // The request id identifies the entries of a transaction, no matter how the transaction
        // ends.
        self.request = format!("{}-{}", self.number, self.transactions);
        let mut written = Book::default();
        let committed = match self.statements(&mut written) {
            Ok(()) => self.end(),
            Err(failure) => {
                self.refused(failure);
                self.session
                    .batch_execute("ROLLBACK")
                    .expect("a transaction can always be rolled back");
                false
            }
        };
        if committed {
            written.committed = 1;
            self.book.take(written);
        } else {
            self.book.rolled_back += 1;
        }
    }

    fn end(&mut self) -> bool {
        let prepared = format!("p{}", self.request);
        let (end, commits) = match self.random.below(10) {
            0 => (vec!["ROLLBACK".to_owned()], false),
            1 => (
                vec![
                    format!("PREPARE TRANSACTION '{prepared}'"),
                    format!("ROLLBACK PREPARED '{prepared}'"),
                ],
                false,
            ),
            2 => (
                vec![
                    format!("PREPARE TRANSACTION '{prepared}'"),
                    format!("COMMIT PREPARED '{prepared}'"),
                ],
                true,
            ),
            _ => (vec!["COMMIT".to_owned()], true),
        };
        for statement in end {
            if let Err(error) = self.session.batch_execute(&statement) {
                self.refused(Failure::Refused(error));
                return false;
            }
        }
        commits
    }

    /// Counts a refused statement. Fails the test if the statement's error is not one of the
    /// expected errors.
    fn refused(&self, failure: Failure) {
        let Failure::Refused(error) = failure else { return };
        let Some(refusal) = error.as_db_error() else { panic!("{error}") };
        let code = refusal.code().code();
        // The test expects deadlocks, lock timeouts, serialization failures, violated constraints,
        // and values that do not fit after a change of type. A name can be unknown if another
        // session has renamed the object after the writer looked up the name.
        let expected = [
            "40P01", "55P03", "40001", "23", "22", "42P01", "42703", "42710", "42701", "42P07",
            "42P16", "42P10", "42702", "55006", "3F000",
        ];
        assert!(
            expected.iter().any(|prefix| code.starts_with(prefix))
                || refusal.message() == "on purpose",
            "{code} {}\n{refusal:?}",
            refusal.message()
        );
        *self.refusals.lock().expect("no writer panicked").entry(code.to_owned()).or_default() += 1;
    }

    fn statements(&mut self, written: &mut Book) -> Result<(), Failure> {
        let changes_tables = self.random.one_in(8);
        // A transaction that changes tables needs READ COMMITTED, so that its snapshots are newer
        // than its locks. With an older snapshot, the model would not see changes that another
        // session made to the table.
        let isolation = match (changes_tables, self.random.below(6)) {
            (false, 0) => "REPEATABLE READ",
            (false, 1) => "SERIALIZABLE",
            _ => "READ COMMITTED",
        };
        let oids = [self.tables.pick(&mut self.random), self.tables.pick(&mut self.random)];
        let oids = if oids[0] == oids[1] || changes_tables { &oids[..1] } else { &oids[..] };
        let mut lock = String::new();
        for &oid in oids {
            let described = Table::describe(&mut self.session, oid)?;
            for oid in std::iter::once(oid).chain(described.children) {
                let name: String =
                    self.session.query_one(&format!("SELECT {oid}::regclass::text"), &[])?.get(0);
                let mode = if changes_tables { "ACCESS EXCLUSIVE" } else { "ROW EXCLUSIVE" };
                lock += &format!("LOCK TABLE {name} IN {mode} MODE;");
            }
        }
        let settings = format!(
            "SET LOCAL TimeZone = '{}'; SET LOCAL DateStyle = '{}'; SET LOCAL IntervalStyle = '{}'; SET LOCAL bytea_output = '{}';
             SET LOCAL extra_float_digits = {}; SET LOCAL lead_audit.request_id = '{}'",
            self.random.pick(&TIME_ZONES),
            self.random.pick(&DATE_STYLES),
            self.random.pick(&INTERVAL_STYLES),
            self.random.pick(&["hex", "escape"]),
            self.random.pick(&["-15", "0", "1", "3"]),
            self.request
        );
        self.session
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; {lock} {settings}"))?;
        let count = 1 + self.random.below(6);
        self.block(written, oids, count, changes_tables, 0)
    }

    /// Runs several statements, some of them within savepoints. The savepoints are released or
    /// rolled back.
    fn block(
        &mut self,
        written: &mut Book,
        oids: &[u32],
        count: u64,
        changes_tables: bool,
        depth: u64,
    ) -> Result<(), Failure> {
        for _ in 0..count {
            let oid = self.random.pick(oids);
            if depth < 3 && self.random.one_in(3) {
                let (mut inside, request) = (Book::default(), self.request.clone());
                self.session.batch_execute("SAVEPOINT s")?;
                if self.random.one_in(3) {
                    self.request = format!("{request}.{}", next_number());
                    self.session.batch_execute(&format!(
                        "SET LOCAL lead_audit.request_id = '{}'",
                        self.request
                    ))?;
                }
                let count = 1 + self.random.below(3);
                let result = self.block(&mut inside, oids, count, changes_tables, depth + 1);
                let stays = match result {
                    Ok(()) => !self.random.one_in(3),
                    // After an error of class 40, the whole transaction must be rolled back.
                    Err(Failure::Refused(error))
                        if error.code().is_some_and(|code| code.code().starts_with("40")) =>
                    {
                        return Err(error.into());
                    }
                    Err(failure) => {
                        self.refused(failure);
                        false
                    }
                };
                if stays {
                    self.session.batch_execute("RELEASE SAVEPOINT s")?;
                    written.take(inside);
                } else {
                    // The rollback to the savepoint also resets the value of lead_audit.request_id.
                    self.request = request;
                    self.session.batch_execute("ROLLBACK TO SAVEPOINT s; RELEASE SAVEPOINT s")?;
                }
                continue;
            }
            let table = Table::describe(&mut self.session, oid)?;
            let result = if changes_tables && self.random.one_in(2) {
                self.change_of_table(written, &table)
            } else {
                self.change_of_rows(written, &table)
            };
            match result {
                Err(Failure::NotHere) | Ok(()) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Runs DDL or TRUNCATE on a table, or begins or ends the watching of the table. The
    /// transaction already has an exclusive lock on the table.
    fn change_of_table(&mut self, written: &mut Book, table: &Table) -> Result<(), Failure> {
        match self.random.below(8) {
            0 if table.children.is_empty() => self.truncate(written, table),
            1 if table.watched => self.disable(table),
            1..=5 if !table.watched => {
                let with_baseline = self.random.one_in(2);
                self.enable(written, table, with_baseline)
            }
            _ => {
                let change = table.random_change(&mut self.random);
                Ok(self.session.batch_execute(&change)?)
            }
        }
    }

    fn truncate(&mut self, written: &mut Book, table: &Table) -> Result<(), Failure> {
        let rows: i64 =
            self.session.query_one(&format!("SELECT count(*) FROM {}", table.name), &[])?.get(0);
        let restart = self.random.pick(&["", " RESTART IDENTITY"]);
        self.session.batch_execute(&format!("TRUNCATE {}{restart}", table.name))?;
        if table.watched {
            written.truncated.push((self.request.clone(), rows));
        }
        Ok(())
    }

    fn disable(&mut self, table: &Table) -> Result<(), Failure> {
        Ok(self.session.batch_execute(&format!(
            "SELECT lead_audit.disable({0}::regclass); UPDATE model.watching SET is_on = false WHERE relation = {0}",
            table.oid
        ))?)
    }

    fn enable(
        &mut self,
        written: &mut Book,
        table: &Table,
        with_baseline: bool,
    ) -> Result<(), Failure> {
        if with_baseline {
            let rows = self.pictures(table, "true", "")?;
            written.events.extend(model::baseline(&rows, &self.request));
        }
        Ok(self.session.batch_execute(&format!(
            "SELECT lead_audit.enable({0}::regclass, baseline => {with_baseline});
             UPDATE model.watching SET is_on = true WHERE relation = {0}",
            table.oid
        ))?)
    }

    /// Runs a random statement that writes to existing and new rows of a table.
    fn change_of_rows(&mut self, written: &mut Book, table: &Table) -> Result<(), Failure> {
        let size = if self.random.one_in(8) { 60 } else { 1 + self.random.below(6) };
        let chosen = self.session.query(
            &format!("SELECT rid FROM {} ORDER BY random() LIMIT {size}", table.name),
            &[],
        )?;
        let chosen: Vec<i64> = chosen.iter().map(|row| row.get(0)).collect();
        let made: Vec<i64> = (0..size).map(|_| next_number()).collect();
        let statement = self.statement(table, &chosen, &made)?;
        self.write(written, table, &chosen, &made, &statement)
    }

    /// Runs the statement `statement`, which can write only to the rows `chosen` and insert only
    /// rows whose `rid` is in `made`. Reads these rows before and after the statement, and adds the
    /// expected entries to `written`.
    fn write(
        &mut self,
        written: &mut Book,
        table: &Table,
        chosen: &[i64],
        made: &[i64],
        statement: &str,
    ) -> Result<(), Failure> {
        let concerned = format!("rid = ANY ('{}')", array(&[chosen, made].concat()));
        let before = self.pictures(table, &concerned, "FOR UPDATE")?;
        let mut children = Vec::new();
        for &child in &table.children {
            let child = Table::describe(&mut self.session, child)?;
            let linked = self.session.query(
                &format!(
                    "SELECT rid FROM {} WHERE parent = ANY ('{}') FOR UPDATE",
                    child.name,
                    array(chosen)
                ),
                &[],
            )?;
            let linked: Vec<i64> = linked.iter().map(|row| row.get(0)).collect();
            let concerned = format!("rid = ANY ('{}')", array(&linked));
            let before = self.pictures(&child, &concerned, "FOR UPDATE")?;
            children.push((child, concerned, before));
        }

        self.session.batch_execute(statement)?;

        let after = self.pictures(table, &concerned, "")?;
        if table.watched {
            written.events.extend(events_between(&before, &after, &self.request));
        }
        for (child, concerned, before) in children {
            let after = self.pictures(&child, &concerned, "")?;
            if child.watched {
                written.events.extend(events_between(&before, &after, &self.request));
            }
        }
        Ok(())
    }

    fn pictures(&mut self, table: &Table, condition: &str, lock: &str) -> Result<Pictures, Error> {
        if !lock.is_empty() {
            self.session.batch_execute(&format!(
                "SELECT FROM {} WHERE {condition} ORDER BY rid {lock}",
                table.name
            ))?;
        }
        let keys: Vec<String> = table.key.iter().map(|name| literal(name)).collect();
        let rows = self.session.query(
            &format!(
                "SELECT rid, (p.p).whole, (p.p).key FROM (SELECT rid, model.picture(t, ARRAY[{}]::text[]) AS p FROM {} t WHERE {condition}) p",
                keys.join(", "),
                table.name
            ),
            &[],
        )?;
        let picture =
            |row: &postgres::Row| (row.get(0), Picture { whole: row.get(1), key: row.get(2) });
        Ok(rows.iter().map(picture).collect())
    }

    fn statement(
        &mut self,
        table: &Table,
        chosen: &[i64],
        made: &[i64],
    ) -> Result<String, Failure> {
        let name = &table.name;
        let these = format!("rid = ANY ('{}')", array(chosen));
        let free: Vec<&Column> = table.free_columns().collect();
        Ok(match self.random.below(14) {
            _ if chosen.is_empty() => self.insert(table, made),
            0..=2 => self.insert(table, made),
            3..=5 => format!("UPDATE {name} SET {} WHERE {these}", self.assignments(&free)),
            6 => format!("DELETE FROM {name} WHERE {these}"),
            // The new partition can equal the old partition of the row.
            7 => format!("UPDATE {name} SET part = {} WHERE {these}", self.random.below(6)),
            8 if table.has("k1") => {
                let one = chosen[0];
                format!("UPDATE {name} SET k1 = {} WHERE rid = {one}", key_value(table, "k1", next_number()))
            }
            9 if !table.key.is_empty() => {
                let insert = self.insert_with(table, chosen, &made[..1]);
                let action = match self.random.below(3) {
                    0 => "NOTHING".to_owned(),
                    _ => format!("UPDATE SET {}", self.assignments(&free)),
                };
                format!("{insert} ON CONFLICT ({}) DO {action}", table.key.join(", "))
            }
            10 => format!(
                "MERGE INTO {name} t USING (SELECT unnest('{}'::bigint[]) AS n) s ON t.rid = s.n
                 WHEN MATCHED AND s.n % 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET {}
                 WHEN NOT MATCHED THEN INSERT (rid{}) VALUES (s.n{})",
                array(&[chosen, &made[..1]].concat()),
                self.assignments(&free),
                key_columns(table),
                key_values(table, made[0])
            ),
            11 => format!(
                "WITH gone AS (DELETE FROM {name} WHERE rid = {} RETURNING rid), new AS ({} RETURNING rid)
                 UPDATE {name} SET {} WHERE {these} AND rid <> {0}",
                chosen[0],
                self.insert(table, made),
                self.assignments(&free)
            ),
            // The writes in the block with EXCEPTION are rolled back when the error is caught.
            12 => format!(
                "DO $do$ BEGIN
                   BEGIN DELETE FROM {name} WHERE {these}; RAISE 'on purpose'; EXCEPTION WHEN OTHERS THEN NULL; END;
                   BEGIN {}; UPDATE {name} SET {} WHERE {these}; END;
                 END $do$",
                self.insert(table, made),
                self.assignments(&free)
            ),
            13 if self.random.one_in(2) => format!(
                "DO $do$ DECLARE c CURSOR FOR SELECT * FROM {name} WHERE {these} FOR UPDATE; r record; BEGIN
                   OPEN c; LOOP FETCH c INTO r; EXIT WHEN NOT FOUND;
                     IF r.rid % 2 = 0 THEN DELETE FROM {name} WHERE CURRENT OF c; ELSE UPDATE {name} SET {} WHERE CURRENT OF c; END IF;
                   END LOOP; CLOSE c; END $do$",
                self.assignments(&free)
            ),
            // This UPDATE fails at the last row.
            13 => format!("UPDATE {name} SET {}, part = 1 / (rid - {})::int WHERE {these}", self.assignments(&free), chosen[chosen.len() - 1]),
            _ => return Err(Failure::NotHere),
        })
    }

    fn insert(&mut self, table: &Table, made: &[i64]) -> String {
        self.insert_with(table, &[], made)
    }

    /// Returns an INSERT of new rows, and of rows whose key already exists.
    fn insert_with(&mut self, table: &Table, same_key_as: &[i64], made: &[i64]) -> String {
        let free: Vec<Column> = table.free_columns().cloned().collect();
        let names: String =
            free.iter().map(|column| format!(", {}", quoted(&column.name))).collect();
        let mut rows = Vec::new();
        for &rid in made {
            let values: String =
                free.iter().map(|column| format!(", {}", self.value(column))).collect();
            let part = if table.partitioned { self.random.below(6) } else { 0 };
            let parent = match &table.parent {
                None => String::new(),
                Some(parent) => format!(
                    ", (SELECT rid FROM {parent} WHERE rid % 4 > 0 ORDER BY random() LIMIT 1)"
                ),
            };
            rows.push(format!("({rid}, {part}{}{parent}{values})", key_values(table, rid)));
        }
        let parent = if table.parent.is_some() { ", parent" } else { "" };
        let (columns, key) =
            (format!("rid, part{}{parent}{names}", key_columns(table)), key_columns(table));
        match same_key_as.first() {
            None => format!("INSERT INTO {} ({columns}) VALUES {}", table.name, rows.join(", ")),
            Some(there) => format!(
                "INSERT INTO {0} (rid, part{key}) SELECT {1}, part{key} FROM {0} WHERE rid = {there}",
                table.name, made[0]
            ),
        }
    }

    fn value(&mut self, column: &Column) -> String {
        if self.random.one_in(8) {
            return "DEFAULT".to_owned();
        }
        match VALUES.iter().find(|(type_name, _)| *type_name == column.type_name) {
            Some((_, choices)) => {
                format!("({})::{}", expression(&mut self.random, choices), column.type_name)
            }
            None => "DEFAULT".to_owned(),
        }
    }

    /// Returns the assignments of a SET clause, for one to three columns.
    fn assignments(&mut self, free: &[&Column]) -> String {
        let mut set = BTreeMap::new();
        for _ in 0..1 + self.random.below(3) {
            if !free.is_empty() {
                let column = self.random.pick(free);
                let value =
                    if self.random.one_in(6) { quoted(&column.name) } else { self.value(column) };
                set.insert(quoted(&column.name), value);
            }
        }
        if set.is_empty() {
            set.insert("rid".to_owned(), "rid".to_owned());
        }
        set.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
    }
}

fn array(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

/// Returns those of the columns `k1` and `k2` that the table has, as the end of a list of columns.
fn key_columns(table: &Table) -> String {
    ["k1", "k2"]
        .iter()
        .filter(|column| table.has(column))
        .map(|column| format!(", {column}"))
        .collect()
}

fn key_values(table: &Table, number: i64) -> String {
    ["k1", "k2"]
        .iter()
        .filter(|column| table.has(column))
        .map(|column| format!(", {}", key_value(table, column, number)))
        .collect()
}

/// Returns a value for a column of the key. Different values of `number` result in different
/// values.
fn key_value(table: &Table, column: &str, number: i64) -> String {
    match table.type_of(column) {
        Some("text") => format!("'k \"ü\" ' || {number}"),
        Some("uuid") => format!("md5('{number}')::uuid"),
        Some("numeric") => format!("{number}.10"),
        Some("timestamp with time zone") => {
            format!("timestamptz '2024-03-31 00:30+00' + {number} * interval '1 h'")
        }
        _ => number.to_string(),
    }
}
