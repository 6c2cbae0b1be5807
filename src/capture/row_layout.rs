//! Defines the layout of a relation: its columns in canonical order, the encoder of each column,
//! and the primary key.
//!
//! A session makes one layout for each relation that it writes to. The session drops the layout of
//! a relation when PostgreSQL reports that the relation has changed.

use super::encode::Encoder;
use super::foreign_code::ForeignCasts;
use super::output_settings::MoneyTypes;
use crate::pg::{
    Text, attribute, attribute_name, in_context, new_context, relation_name, schema_name,
};
use ledger::canonical::{compare_keys, write_string};
use pgrx::{PgList, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// A column that is part of the row's JSON.
pub struct Column {
    /// The column's position in a deformed tuple, counted from 0.
    pub index: usize,
    /// The column's name.
    pub name: ColumnName,
    /// The beginning of the column's member in the JSON object of a row: `"name":`.
    pub member: Vec<u8>,
    /// The encoder of the column's values.
    pub encoder: Encoder,
    /// The length of the column's values as in pg_attribute.attlen, which is negative if the length
    /// varies.
    pub length: i16,
    /// Whether the column's values are passed by value.
    pub by_value: bool,
}

/// The name of a column as it appears in the JSON object of a row.
pub struct ColumnName {
    /// The text of the column's name. No other column of the relation has the same text.
    pub text: String,
    /// Whether the name is percent-encoded because its bytes are not valid text.
    pub is_encoded: bool,
}

/// The columns and names of a relation, in the form in which capture needs them.
pub struct RowLayout {
    /// The relation.
    pub relation: pg_sys::Oid,
    /// The schema's name.
    pub schema: Text,
    /// The relation's name.
    pub name: Text,
    /// The columns in canonical order.
    pub columns: Vec<Column>,
    /// The columns of the primary key, as positions in `columns`. The vector is empty if the
    /// relation has no primary key.
    pub key: Vec<usize>,
    /// The names in `columns` that are percent-encoded because their bytes are not valid text.
    pub encoded_names: Vec<String>,
    /// The soft-delete column, as a position in `columns`. `None` if the relation has none.
    pub soft_delete: Option<usize>,
    /// The name of the soft-delete column for which this layout was made. The name is empty if the
    /// table has no soft-delete column.
    soft_delete_name: String,
    /// Whether writing a row of this layout can raise an error.
    pub may_raise: bool,
    /// Whether the layout still matches the relation. A change of the relation sets this field to
    /// false.
    is_valid: Cell<bool>,
    /// The memory context that contains the data of the encoders. The layout owns this memory
    /// context.
    context: pg_sys::MemoryContext,
}

impl Drop for RowLayout {
    fn drop(&mut self) {
        // SAFETY: this layout owns the memory context, and only the layout's encoders point into
        // it.
        unsafe { pg_sys::MemoryContextDelete(self.context) }
    }
}

impl RowLayout {
    /// Makes the layout of an open relation.
    ///
    /// # Safety
    /// `relation` must be an open relation.
    unsafe fn new(relation: pg_sys::Relation, soft_delete_name: &str) -> Self {
        // SAFETY: the caller keeps the relation open while this function reads its relcache entry.
        // The layout contains copies, and no pointers into the relcache entry.
        unsafe {
            // When the layout is finished, this function makes CacheMemoryContext the parent of the
            // context. If an error occurs before the layout is finished, PostgreSQL frees the
            // context with its parent, the current memory context.
            let context = new_context(pg_sys::CurrentMemoryContext, c"lead_audit row layout");
            let descriptor = (*relation).rd_att;
            let names = column_names(descriptor);
            let mut money = MoneyTypes::default();
            let mut named: Vec<(i16, Column)> = Vec::with_capacity(names.len());
            for (index, name) in names {
                let definition = attribute(descriptor, index);
                let mut member = Vec::with_capacity(name.text.len() + 3);
                write_string(&mut member, &name.text);
                member.push(b':');
                let column = Column {
                    index,
                    name,
                    member,
                    encoder: encoder_for(definition.atttypid, context, &mut money),
                    length: definition.attlen,
                    by_value: definition.attbyval,
                };
                named.push((definition.attnum, column));
            }
            named.sort_by(|(_, a), (_, b)| compare_keys(&a.name.text, &b.name.text));
            let key_attributes = primary_key(relation);
            let key = (0..named.len()).filter(|&i| key_attributes.contains(&named[i].0)).collect();
            let columns: Vec<Column> = named.into_iter().map(|(_, column)| column).collect();
            let is_soft_delete = |column: &Column| {
                column.name.text == soft_delete_name
                    && !column.name.is_encoded
                    && matches!(column.encoder, Encoder::Bool)
            };
            let soft_delete = columns.iter().position(is_soft_delete);
            let schema = schema_name((*(*relation).rd_rel).relnamespace);
            pg_sys::MemoryContextSetParent(context, pg_sys::CacheMemoryContext);
            RowLayout {
                relation: (*relation).rd_id,
                schema,
                name: relation_name(relation),
                key,
                encoded_names: columns
                    .iter()
                    .filter(|column| column.name.is_encoded)
                    .map(|column| column.name.text.clone())
                    .collect(),
                soft_delete,
                soft_delete_name: soft_delete_name.to_owned(),
                may_raise: columns.iter().any(|column| column.encoder.may_raise()),
                columns,
                is_valid: Cell::new(true),
                context,
            }
        }
    }
}

impl RowLayout {
    /// Returns the columns of the primary key.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> + Clone {
        self.key.iter().map(|&i| &self.columns[i])
    }

    /// Returns the names of the columns at the given positions in `self.columns`.
    pub fn names_of(&self, columns: &[usize]) -> impl Iterator<Item = &str> {
        columns.iter().filter_map(|&place| self.columns.get(place)).map(|column| &*column.name.text)
    }

    /// Returns whether the relations of this layout and of `other` have columns with the same names
    /// and the same storage. For two partitions of one table, the result is true.
    pub fn same_columns(&self, other: &RowLayout) -> bool {
        let alike = |(a, b): (&Column, &Column)| {
            (&a.member, a.length, a.by_value) == (&b.member, b.length, b.by_value)
        };
        self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(alike)
    }
}

thread_local! {
    static LAYOUTS: RefCell<HashMap<pg_sys::Oid, Rc<RowLayout>>> = RefCell::new(HashMap::new());
    // Whether all layouts are invalid, because PostgreSQL reported a changed relation while
    // `LAYOUTS` was borrowed.
    static ALL_STALE: Cell<bool> = const { Cell::new(false) };
}

/// Invalidates the layout of `relation`, or all layouts if `relation` is `None`. The hooks call
/// this function when a relation may have changed.
pub fn relation_changed(relation: Option<pg_sys::Oid>) {
    LAYOUTS.with(|layouts| match layouts.try_borrow() {
        Ok(layouts) => match relation {
            Some(relation) => {
                layouts.get(&relation).into_iter().for_each(|layout| layout.is_valid.set(false))
            }
            None => layouts.values().for_each(|layout| layout.is_valid.set(false)),
        },
        Err(_) => ALL_STALE.set(true),
    });
}

/// Returns the layout of an open relation. Caches the layout until the relation changes.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn layout_of(relation: pg_sys::Relation, soft_delete_name: &str) -> Rc<RowLayout> {
    // SAFETY: the relation is open (see # Safety).
    let oid = unsafe { (*relation).rd_id };
    if ALL_STALE.take() {
        LAYOUTS.with_borrow_mut(HashMap::clear);
    }
    let known = LAYOUTS.with_borrow(|layouts| layouts.get(&oid).cloned());
    if let Some(layout) = known
        && layout.is_valid.get()
        && layout.soft_delete_name == soft_delete_name
    {
        return layout;
    }
    // SAFETY: the relation is open (see # Safety). `LAYOUTS` is not borrowed during the call of
    // `new`. `new` opens other relations, and opening a relation can invalidate layouts.
    let layout = Rc::new(unsafe { RowLayout::new(relation, soft_delete_name) });
    LAYOUTS.with_borrow_mut(|layouts| {
        // This call removes all invalid layouts, because the layout of a dropped relation would
        // otherwise stay in the cache forever.
        layouts.retain(|_, layout| layout.is_valid.get());
        layouts.insert(oid, Rc::clone(&layout));
    });
    layout
}

/// Returns the positions and names of the recorded columns. Bytes of a name that are not valid text
/// are percent-encoded. If another column already has the encoded name, `%` is appended to the
/// name. No percent-encoded name ends with `%`, so the result is unique.
///
/// # Safety
/// `descriptor` must be a row type.
pub unsafe fn column_names(descriptor: pg_sys::TupleDesc) -> Vec<(usize, ColumnName)> {
    // SAFETY: `descriptor` is a row type (see # Safety).
    let recorded = |&index: &usize| unsafe {
        let definition = attribute(descriptor, index);
        // Virtual generated columns (PostgreSQL 18) are not stored, and PostgreSQL does not compute
        // them for triggers.
        !definition.attisdropped && definition.attgenerated as u8 != b'v'
    };
    // SAFETY: `descriptor` is a row type, and `index` is the index of one of its columns.
    let name = |index| unsafe {
        let name = Text::from_server(attribute_name(descriptor, index));
        (index, ColumnName { text: name.as_str().to_owned(), is_encoded: name.is_encoded() })
    };
    // SAFETY: `descriptor` is a row type (see # Safety).
    let attributes = unsafe { (*descriptor).natts } as usize;
    let mut names: Vec<_> = (0..attributes).filter(recorded).map(name).collect();
    for place in 0..names.len() {
        while names[place].1.is_encoded
            && names.iter().filter(|(_, name)| name.text == names[place].1.text).count() > 1
        {
            names[place].1.text.push('%');
        }
    }
    names
}

/// Returns the attribute numbers of the primary key. The function also finds a deferrable primary
/// key. By default, RelationGetPrimaryKeyIndex() leaves out a deferrable primary key, because a
/// deferrable key cannot serve as a replica identity.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn primary_key(relation: pg_sys::Relation) -> Vec<i16> {
    // SAFETY: the relation is open, so its indexes can be opened. Each index is closed before the
    // next index is opened.
    unsafe {
        let indexes = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(relation));
        for oid in indexes.iter_oid() {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let definition = (*index).rd_index;
            let columns = (*definition).indisprimary.then(|| {
                (*definition).indkey.values.as_slice((*definition).indnkeyatts as usize).to_vec()
            });
            pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            if let Some(columns) = columns {
                return columns;
            }
        }
    }
    Vec::new()
}

/// Returns the encoder for values of a type. Allocates in `context` the memory that the encoder
/// points to.
///
/// # Safety
/// `context` must be a memory context that lives as long as the encoder.
pub unsafe fn encoder_for(
    type_oid: pg_sys::Oid,
    context: pg_sys::MemoryContext,
    money: &mut MoneyTypes,
) -> Encoder {
    // SAFETY: the call only looks up the type in the catalog. A domain is stored like its base
    // type.
    let base = unsafe { pg_sys::getBaseType(type_oid) };
    match base {
        pg_sys::BOOLOID => Encoder::Bool,
        pg_sys::INT2OID => Encoder::Int2,
        pg_sys::INT4OID => Encoder::Int4,
        pg_sys::INT8OID => Encoder::Int8,
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Encoder::Text,
        pg_sys::UUIDOID => Encoder::Uuid,
        pg_sys::BYTEAOID => Encoder::Bytea,
        pg_sys::NUMERICOID => Encoder::Numeric,
        pg_sys::FLOAT4OID => Encoder::Float4,
        pg_sys::FLOAT8OID => Encoder::Float8,
        pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Encoder::DateTime(base),
        pg_sys::JSONBOID => Encoder::Jsonb,
        // SAFETY: `context` lives as long as the encoder (see # Safety).
        _ => unsafe {
            Encoder::ToJsonb {
                call: to_jsonb_call(type_oid, context),
                monetary: money.contains(base),
                casts: ForeignCasts::of(base),
            }
        },
    }
}

/// Returns the call information of to_jsonb(anyelement), with an expression node that carries the
/// type of the argument.
///
/// # Safety
/// `context` must be a memory context that lives as long as the result.
unsafe fn to_jsonb_call(
    type_oid: pg_sys::Oid,
    context: pg_sys::MemoryContext,
) -> Box<pg_sys::FmgrInfo> {
    let mut call = Box::new(pg_sys::FmgrInfo::default());
    // SAFETY: the expression nodes are allocated in `context`, which outlives the call information.
    // to_jsonb has one argument.
    unsafe {
        pg_sys::fmgr_info_cxt(pg_sys::Oid::from(pg_sys::F_TO_JSONB), &mut *call, context);
        let expression = in_context(context, || {
            let mut arguments = PgList::<pg_sys::Const>::new();
            arguments.push(pg_sys::makeNullConst(type_oid, -1, pg_sys::InvalidOid));
            pg_sys::makeFuncExpr(
                pg_sys::Oid::from(pg_sys::F_TO_JSONB),
                pg_sys::JSONBOID,
                arguments.into_pg(),
                pg_sys::InvalidOid,
                pg_sys::InvalidOid,
                pg_sys::CoercionForm::COERCE_EXPLICIT_CALL,
            )
        });
        call.fn_expr = expression.cast();
    }
    call
}
