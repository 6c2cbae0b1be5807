//! Defines the order, the names and the types of the columns of `lead_audit.entry`.

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `oid`
    Oid,
    /// `xid8`
    Xid8,
    /// `timestamp with time zone`
    Timestamptz,
    /// `uuid`
    Uuid,
    /// `bytea`
    Bytea,
    /// `text`
    Text,
    /// `json`, whose value is an object
    Json,
}

impl ColumnType {
    /// Returns the name of the type as PostgreSQL's `format_type()` writes it.
    pub const fn sql_name(self) -> &'static str {
        match self {
            ColumnType::Int2 => "smallint",
            ColumnType::Int4 => "integer",
            ColumnType::Int8 => "bigint",
            ColumnType::Oid => "oid",
            ColumnType::Xid8 => "xid8",
            ColumnType::Timestamptz => "timestamp with time zone",
            ColumnType::Uuid => "uuid",
            ColumnType::Bytea => "bytea",
            ColumnType::Text => "text",
            ColumnType::Json => "json",
        }
    }
}

macro_rules! columns {
    ($($variant:ident $name:literal $type:ident $required:literal,)*) => {
        /// A column of `lead_audit.entry`. The number of a variant is the position of the column in
        /// the table, counted from 0.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "docs/FORMAT.md describes the columns")]
        pub enum EntryColumn {
            $($variant,)*
        }

        impl EntryColumn {
            /// All columns, in the order of the table.
            pub const ALL: &'static [EntryColumn] = &[$(EntryColumn::$variant,)*];

            /// The number of columns.
            pub const COUNT: usize = Self::ALL.len();

            /// Returns the column's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(EntryColumn::$variant => $name,)*
                }
            }

            /// Returns the column's type.
            pub const fn column_type(self) -> ColumnType {
                match self {
                    $(EntryColumn::$variant => ColumnType::$type,)*
                }
            }

            /// Returns whether the column is never NULL.
            pub const fn is_required(self) -> bool {
                match self {
                    $(EntryColumn::$variant => $required,)*
                }
            }
        }
    };
}

// The columns are in the order of sql/30_entry.sql.
columns! {
    Id "id" Int8 true,
    Txid "txid" Xid8 true,
    OccurredAt "occurred_at" Timestamptz true,
    KeyHash "key_hash" Int8 false,
    PreviousKeyHash "previous_key_hash" Int8 false,
    WatchId "watch_id" Uuid false,
    Relation "relation" Oid false,
    BackendPid "backend_pid" Int4 false,
    Format "format" Int2 true,
    Checksum "checksum" Bytea true,
    Operation "operation" Text true,
    Outcome "outcome" Text true,
    TableSchema "table_schema" Text false,
    TableName "table_name" Text false,
    SoftDelete "soft_delete" Text false,
    RowKey "row_key" Json false,
    RowValues "row_values" Json false,
    ChangedValues "changed_values" Json false,
    Details "details" Json false,
    UserId "user_id" Text false,
    UserIp "user_ip" Text false,
    UserAgent "user_agent" Text false,
    RequestId "request_id" Text false,
    DbSessionUser "db_session_user" Text false,
    DbCurrentUser "db_current_user" Text false,
    ClientAddr "client_addr" Text false,
    ApplicationName "application_name" Text false,
    ErrorCode "error_code" Text false,
    ErrorMessage "error_message" Text false,
    ErrorDetail "error_detail" Text false,
    Statement "statement" Text false,
}

impl EntryColumn {
    /// The columns of the preimage, in the order of the preimage: all columns except the checksum,
    /// sorted by name.
    pub const IN_PREIMAGE: [EntryColumn; Self::COUNT - 1] = {
        let mut sorted = [EntryColumn::Id; Self::COUNT - 1];
        let (mut length, mut next) = (0, 0);
        while next < Self::COUNT {
            let column = Self::ALL[next];
            next += 1;
            if matches!(column, EntryColumn::Checksum) {
                continue;
            }
            let mut place = length;
            while place > 0 && is_before(column.name(), sorted[place - 1].name()) {
                sorted[place] = sorted[place - 1];
                place -= 1;
            }
            sorted[place] = column;
            length += 1;
        }
        sorted
    };
}

/// Returns whether the name `one` sorts before the name `other`. The two names must be ASCII.
const fn is_before(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return one[at] < other[at];
        }
        at += 1;
    }
    one.len() < other.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::members;
    use crate::{Entry, canonical::compare_keys};

    #[test]
    fn the_preimage_has_the_columns_in_the_order_of_their_names() {
        let text = Some("{}");
        let entry = Entry {
            watch_id: Some([0; 16]),
            key_hash: Some(0),
            previous_key_hash: Some(0),
            relation: Some(0),
            backend_pid: Some(0),
            table_schema: text,
            table_name: text,
            soft_delete: text,
            row_key: text,
            row_values: text,
            changed_values: text,
            details: text,
            user_id: text,
            user_ip: text,
            user_agent: text,
            request_id: text,
            db_session_user: text,
            db_current_user: text,
            client_addr: text,
            application_name: text,
            error_code: text,
            error_message: text,
            error_detail: text,
            statement: text,
            ..Entry::default()
        };
        let mut preimage = Vec::new();
        entry.write_preimage(&mut preimage);
        let preimage = String::from_utf8(preimage).unwrap();
        let written: Vec<&str> = members(&preimage).map(|(name, _)| name).collect();
        let names = EntryColumn::IN_PREIMAGE.map(EntryColumn::name);
        assert_eq!(written, names);
        assert!(names.is_sorted_by(|one, other| compare_keys(one, other).is_lt()));
    }
}
