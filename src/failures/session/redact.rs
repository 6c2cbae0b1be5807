//! Redacts a statement's text, and keeps only the parts that the worker needs to find the
//! statement's table. Literals and comments become blanks, and the digits of numbers become zeroes.
//! The redacted text has the length of the original text, so a position in the original text is
//! also valid in the redacted text.

/// Returns a redacted copy of a statement's text.
pub fn redact(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'\'' => {
                let escapes = at > 0
                    && bytes[at - 1].eq_ignore_ascii_case(&b'e')
                    && (at < 2 || !is_word(bytes[at - 2]));
                let end = end_of_literal(bytes, at + 1, escapes);
                let is_closed = end > at + 1 && bytes[end - 1] == b'\'';
                blank(&mut out, at + 1, if is_closed { end - 1 } else { end });
                end
            }
            b'"' => bytes[at + 1..]
                .iter()
                .position(|&byte| byte == b'"')
                .map_or(bytes.len(), |length| at + length + 2),
            b'-' if bytes[at..].starts_with(b"--") => {
                let end = bytes[at..]
                    .iter()
                    .position(|&byte| byte == b'\n')
                    .map_or(bytes.len(), |length| at + length);
                blank(&mut out, at, end);
                end
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                let end = end_of_comment(bytes, at);
                blank(&mut out, at, end);
                end
            }
            b'$' if at == 0 || !is_word(bytes[at - 1]) => match dollar_quote(bytes, at) {
                Some((from, to, end)) => {
                    blank(&mut out, from, to);
                    end
                }
                None => end_of_word(bytes, at + 1),
            },
            byte if byte.is_ascii_digit() => {
                let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                out[at..end].fill(b'0');
                end
            }
            byte if is_word(byte) => end_of_word(bytes, at),
            _ => at + 1,
        };
        at = end.max(at + 1);
    }
    // The code above has replaced only whole characters by ASCII characters, so the bytes are still
    // UTF-8.
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn end_of_word(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|&&byte| is_word(byte) || byte == b'$').count()
}

fn blank(out: &mut [u8], from: usize, to: usize) {
    if from < to {
        out[from..to].fill(b' ');
    }
}

/// Returns the position after the closing quote of a literal. Two consecutive quotes ('') do not
/// close the literal. If `escapes` is true, a quote after a backslash also does not close the
/// literal.
fn end_of_literal(bytes: &[u8], from: usize, escapes: bool) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Returns the position after the comment that begins at `from`. Comments can be nested.
fn end_of_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// Returns the start and the end of the body of a dollar-quoted literal ($tag$…$tag$), and the
/// position after the closing tag. Returns `None` if no such literal begins at `from`.
fn dollar_quote(bytes: &[u8], from: usize) -> Option<(usize, usize, usize)> {
    let tag_length = bytes[from + 1..].iter().take_while(|&&byte| is_word(byte)).count();
    let body = from + tag_length + 2;
    if bytes.get(body - 1) != Some(&b'$') || bytes.get(from + 1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let tag = &bytes[from..body];
    match bytes[body..].windows(tag.len()).position(|window| window == tag) {
        Some(length) => Some((body, body + length, body + length + tag.len())),
        None => Some((body, bytes.len(), bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn what_users_put_in_is_gone() {
        for (text, expected) in [
            (
                "INSERT INTO leads VALUES ('it''s é', 17.5, $1)",
                "INSERT INTO leads VALUES ('        ', 00.0, $1)",
            ),
            (r"SELECT E'a\'b', 'c' FROM t2", "SELECT E'    ', ' ' FROM t2"),
            (
                "UPDATE \"a'1\" SET x1 = $q$ 'y' $q$ -- mine\n;",
                "UPDATE \"a'1\" SET x1 = $q$     $q$        \n;",
            ),
            ("DELETE /* a /* b */ c */ FROM crm.leads", "DELETE                   FROM crm.leads"),
            ("COPY leads$x FROM 'open", "COPY leads$x FROM '    "),
            ("SELECT $$x", "SELECT $$ "),
            ("", ""),
        ] {
            let found = redact(text);
            assert_eq!(found.len(), text.len(), "{text}");
            if text.is_ascii() || expected.len() == text.len() {
                assert_eq!(found.trim_end(), expected.trim_end(), "{text}");
            }
        }
        assert!(!redact("INSERT INTO leads VALUES ('it''s é', 17.5, $1)").contains('é'));
    }
}
