//! Cursors: what was made is read again for its list alone, and nothing else is read at all.

#![no_main]

use auspex_kernel::CursorKey;
use auspex_kernel::page::{Cursor, Direction, Position};

const KEY: CursorKey = CursorKey([7; 32]);

libfuzzer_sys::fuzz_target!(|input: (&str, &str, i64, bool, usize, u8)| {
    let (list, text, number, is_text, place, byte) = input;
    if let Some(found) = Cursor::decode(text, &KEY, list) {
        panic!("nobody made the cursor {found:?}");
    }
    let last_id = if is_text {
        Position::from(text)
    } else {
        Position::from(number)
    };
    let cursor = Cursor {
        last_id,
        direction: Direction::Next,
    };
    let made = cursor.encode(&KEY, list);
    let read = Cursor::decode(&made, &KEY, list);
    assert!(read.is_none_or(|read| read == cursor), "it became another");
    let mut changed = made.clone().into_bytes();
    let place = place % changed.len();
    changed[place] = byte;
    if let Ok(changed) = String::from_utf8(changed)
        && changed != made
    {
        assert_eq!(Cursor::decode(&changed, &KEY, list), None);
    }
});
