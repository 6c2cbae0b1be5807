//! Writes a jsonb value as canonical JSON. PostgreSQL's jsonb orders the keys of an object by
//! length, whereas canonical JSON orders them by UTF-16 code units.

use super::numeric::write_numeric;
use crate::pg::TextWriter;
use ledger::Sink;
use ledger::canonical::compare_key_bytes;
use pgrx::pg_sys;
use pgrx::pg_sys::{JsonbIteratorToken as Token, jbvType};
use std::ops::Range;

/// Appends the value of `jsonb` to `out`.
///
/// # Safety
/// `jsonb` must point to a jsonb that is not toasted.
pub unsafe fn write(out: &mut TextWriter, jsonb: *mut pg_sys::Jsonb) {
    // SAFETY: the iterator and the values that it returns live in the current memory context and in
    // `jsonb`.
    unsafe {
        let scalar = (*jsonb).root.header & pg_sys::JB_FSCALAR != 0;
        let mut tokens = Tokens { iterator: pg_sys::JsonbIteratorInit(&raw mut (*jsonb).root) };
        if scalar {
            // jsonb stores a scalar as the only element of an array. The array around a scalar is
            // not part of the JSON value.
            tokens.next();
            let (_, value) = tokens.next();
            return write_scalar(out, &value);
        }
        let (first, value) = tokens.next();
        write_value(out, &mut tokens, first, &value)
    }
}

/// A key of an object, and the range of bytes in the output that holds the key and its value.
type Member<'a> = (&'a [u8], Range<usize>);

struct Tokens {
    iterator: *mut pg_sys::JsonbIterator,
}

impl Tokens {
    fn next(&mut self) -> (Token::Type, pg_sys::JsonbValue) {
        let mut value = pg_sys::JsonbValue::default();
        // SAFETY: JsonbIteratorInit made the iterator, and only this function advances it.
        let token = unsafe { pg_sys::JsonbIteratorNext(&mut self.iterator, &mut value, false) };
        (token, value)
    }
}

/// # Safety
/// `value` must be the value that the iterator returned with `token`.
unsafe fn write_value(
    out: &mut TextWriter,
    tokens: &mut Tokens,
    token: Token::Type,
    value: &pg_sys::JsonbValue,
) {
    // SAFETY: the iterator returned `token` and `value` together (see # Safety).
    // check_stack_depth() raises an error before the stack overflows.
    unsafe {
        pg_sys::check_stack_depth();
        match token {
            Token::WJB_BEGIN_ARRAY => write_array(out, tokens),
            Token::WJB_BEGIN_OBJECT => write_object(out, tokens),
            _ => write_scalar(out, value),
        }
    }
}

/// # Safety
/// The last token from the iterator must be the beginning of an array.
unsafe fn write_array(out: &mut TextWriter, tokens: &mut Tokens) {
    out.push(b'[');
    let mut first = true;
    loop {
        let (token, value) = tokens.next();
        if matches!(token, Token::WJB_END_ARRAY | Token::WJB_DONE) {
            break;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        // SAFETY: the iterator returned `token` and `value` together.
        unsafe { write_value(out, tokens, token, &value) };
        // After an overflow of `out`, `write_value` may have returned before the end of the
        // element. If `write_value` returned early, the iterator is still inside the element.
        if out.has_overflowed() {
            return;
        }
    }
    out.push(b']');
}

/// # Safety
/// The token that the iterator returned most recently must be the beginning of an object.
unsafe fn write_object(out: &mut TextWriter, tokens: &mut Tokens) {
    let start = out.len();
    // The code first writes the members of the object in the order in which jsonb stores their
    // keys. If this order differs from the canonical order, the code at the end of this function
    // sorts the members.
    let mut members: Vec<Member> = Vec::new();
    out.push(b'{');
    loop {
        let (token, value) = tokens.next();
        if matches!(token, Token::WJB_END_OBJECT | Token::WJB_DONE) {
            break;
        }
        // SAFETY: a key is a string that lies in the jsonb.
        let key = unsafe { string_bytes(&value) };
        if !members.is_empty() {
            out.push(b',');
        }
        let member = out.len();
        out.append_json_string(key);
        out.push(b':');
        let (token, value) = tokens.next();
        // SAFETY: the iterator returned `token` and `value` together.
        unsafe { write_value(out, tokens, token, &value) };
        // After an overflow of `out`, the iterator may still be inside the member's value.
        if out.has_overflowed() || members.try_reserve(1).is_err() {
            return out.note_overflow(members.len().saturating_mul(size_of::<Member>()));
        }
        members.push((key, member..out.len()));
    }
    out.push(b'}');
    if !members.is_sorted_by(|(a, _), (b, _)| compare_key_bytes(a, b).is_lt()) {
        members.sort_unstable_by(|(a, _), (b, _)| compare_key_bytes(a, b));
        put_in_order(out, start, &members);
    }
}

/// Rewrites the object that begins at `start`, with its members in the order of `members`.
fn put_in_order(out: &mut TextWriter, start: usize, members: &[Member]) {
    let mut written = Vec::new();
    let object = &out.bytes()[start..];
    if written.try_reserve_exact(object.len()).is_err() {
        return out.note_overflow(object.len());
    }
    written.extend_from_slice(object);
    out.truncate(start);
    out.push(b'{');
    for (i, (_, member)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.append(&written[member.start - start..member.end - start]);
    }
    out.push(b'}');
}

/// # Safety
/// `value` must be a string or key from an iterator.
unsafe fn string_bytes<'a>(value: &pg_sys::JsonbValue) -> &'a [u8] {
    // SAFETY: the value is a string or key (see # Safety), so the union holds a string.
    unsafe {
        std::slice::from_raw_parts(value.val.string.val.cast(), value.val.string.len as usize)
    }
}

/// # Safety
/// `value` must be a scalar from an iterator.
unsafe fn write_scalar(out: &mut TextWriter, value: &pg_sys::JsonbValue) {
    // SAFETY: `type_` tells which field of the union `val` is set.
    unsafe {
        match value.type_ {
            jbvType::jbvString => out.append_json_string(string_bytes(value)),
            jbvType::jbvNumeric => write_numeric(out, pg_sys::Datum::from(value.val.numeric)),
            jbvType::jbvBool => out.append(if value.val.boolean { b"true" } else { b"false" }),
            _ => out.append(b"null"),
        }
    }
}
