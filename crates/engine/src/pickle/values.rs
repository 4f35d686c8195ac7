//! Numbers and texts as instructions of pickles have them.

use std::borrow::Cow;

use super::Node;
use crate::document::Fault;

/// A text as newer protocols have it.
pub(super) fn utf8(bytes: &[u8]) -> Result<Node<'_>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::new("a text is not UTF-8"))?;
    Ok(Node::Text(Cow::Borrowed(text)))
}

/// A whole number in digits.
pub(super) fn decimal<'a>(text: &str) -> Result<Node<'a>, Fault> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new("this is no whole number"));
    }
    Ok(text.parse().map_or(Node::Huge, Node::Integer))
}

/// A whole number in two's complement, the least byte first.
pub(super) fn long<'a>(bytes: &[u8]) -> Node<'a> {
    let Some(last) = bytes.last() else {
        return Node::Integer(0);
    };
    if bytes.len() > 8 {
        return Node::Huge;
    }
    let mut all = [if last & 0x80 == 0 { 0 } else { 0xFF }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Node::Integer(i64::from_le_bytes(all))
}

/// A text of protocol 0: a byte for each character up to U+00FF, of others the number behind `\u` or `\U`.
pub(super) fn unescape(line: &[u8]) -> Result<String, Fault> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let [byte, after @ ..] = rest {
        let digits = match rest {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => {
                text.push(char::from(*byte));
                rest = after;
                continue;
            }
        };
        let number = rest
            .get(2..2 + digits)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let number = number.and_then(|number| u32::from_str_radix(number, 16).ok());
        let character = number.and_then(char::from_u32);
        text.push(character.ok_or_else(|| Fault::new("a text with a broken escape"))?);
        rest = &rest[2 + digits..];
    }
    Ok(text)
}

/// Bytes as Python 2 has written them, in quotes.
pub(super) fn quoted(line: &str) -> Result<Node<'_>, Fault> {
    let inner = ['\'', '"'].iter().find_map(|quote| {
        let inner = line.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.contains('\\')).then_some(inner)
    });
    let inner = inner.ok_or_else(|| Fault::new("a text in quotes that cannot be read"))?;
    Ok(Node::Bytes(inner.as_bytes().into()))
}
