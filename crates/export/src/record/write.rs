//! Writes a record as one line of an export.

use super::{Kind, Record, VERSION};
use ledger::canonical::write_string;
use ledger::merkle::Hash;

impl Record<'_> {
    /// Appends the record to `out` as one line, with a newline. If the slices in the record are
    /// canonical JSON objects, the line is a canonical JSON object too.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        match self {
            Record::Export(header) => {
                let mut inner = object.object("export");
                inner.instant("exported_at", header.exported_at);
                inner.string(
                    "kind",
                    if header.kind == Kind::History { "history" } else { "selection" },
                );
                inner.optional("origin", header.origin.as_deref(), Object::string);
                inner.optional("selection", header.selection.as_deref(), Object::string);
                inner.number("version", VERSION);
                inner.close();
            }
            Record::Start(start) => {
                let mut inner = object.object("start");
                inner.hashes("edge", &start.edge);
                inner.optional("note", start.note.as_deref(), Object::string);
                inner.number("tree_size", start.tree_size);
                inner.close();
            }
            Record::Consistency { from_size, hashes } => {
                let mut inner = object.object("consistency");
                inner.number("from_size", from_size);
                inner.hashes("hashes", hashes);
                inner.close();
            }
            Record::Checkpoint(checkpoint) => {
                let mut inner = object.object("checkpoint");
                inner.optional("edge", checkpoint.edge.as_deref(), Object::hashes);
                inner.string("entry_ids", &checkpoint.entry_ids.to_string());
                inner.string("note", &checkpoint.note);
                inner.string("root", &hex::encode(checkpoint.root));
                inner.instant("sealed_at", checkpoint.sealed_at);
                inner.number("tree_size", checkpoint.tree_size);
                inner.close();
            }
            Record::Sealed { checksum, entry, leaf, place } => {
                object.string("checksum", &hex::encode(checksum));
                object.raw("entry", entry.as_bytes());
                object.optional("index", place.as_ref().map(|place| place.index), |o, n, v| {
                    o.number(n, v)
                });
                object.optional("leaf", leaf.as_ref(), |o, n, v| o.string(n, &hex::encode(v)));
                object.optional(
                    "proof",
                    place.as_ref().map(|place| &place.proof[..]),
                    Object::hashes,
                );
            }
            Record::Unsealed { checksum, entry } => {
                object.string("checksum", &hex::encode(checksum));
                object.raw("unsealed", entry.as_bytes());
            }
            Record::Inserted { checksum, entry } => {
                object.string("checksum", &hex::encode(checksum));
                object.raw("inserted", entry.as_bytes());
            }
            Record::Missing { id, leaf } => {
                let mut inner = object.object("missing");
                inner.optional("id", id.as_ref(), Object::number);
                inner.optional("leaf", leaf.as_ref(), |o, n, v| o.string(n, &hex::encode(v)));
                inner.close();
            }
            Record::Damaged(damaged) => {
                let mut inner = object.object("damaged");
                inner.string("fault", &damaged.fault);
                inner.optional("id", damaged.id, |o, n, v| o.number(n, v));
                inner.optional("leaf", damaged.leaf.as_ref(), |o, n, v| {
                    o.string(n, &hex::encode(v))
                });
                inner.close();
            }
            Record::Unknown(unknown) => {
                let mut inner = object.object("unknown");
                inner.string("column", &unknown.column);
                inner.optional("id", unknown.id, |o, n, v| o.number(n, v));
                inner.optional("leaf", unknown.leaf.as_ref(), |o, n, v| {
                    o.string(n, &hex::encode(v))
                });
                inner.close();
            }
            Record::End(end) => {
                let mut inner = object.object("end");
                inner.number("lines", end.lines);
                inner.number("tree_size", end.tree_size);
                inner.close();
            }
        }
        object.close();
        out.push(b'\n');
    }
}

/// A JSON object under construction. The members of the object must be added in the order of their
/// names.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, first: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(value);
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        write_string(self.out, value);
    }

    fn number(&mut self, name: &str, value: impl ToString) {
        self.raw(name, value.to_string().as_bytes());
    }

    fn instant(&mut self, name: &str, micros: i64) {
        self.name(name);
        self.out.push(b'"');
        ledger::time::write_timestamp(self.out, micros);
        self.out.push(b'"');
    }

    fn hashes(&mut self, name: &str, hashes: &[Hash]) {
        self.name(name);
        self.out.push(b'[');
        for (i, hash) in hashes.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            self.out.extend_from_slice(format!("{comma}\"{}\"", hex::encode(hash)).as_bytes());
        }
        self.out.push(b']');
    }

    fn optional<T>(
        &mut self,
        name: &str,
        value: Option<T>,
        write: impl FnOnce(&mut Self, &str, T),
    ) {
        if let Some(value) = value {
            write(self, name, value);
        }
    }

    fn object(&mut self, name: &str) -> Object<'_> {
        self.name(name);
        Object::open(self.out)
    }

    fn close(self) {
        self.out.push(b'}');
    }
}
