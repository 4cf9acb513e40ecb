//! What a web service has written, on a terminal: the same in pieces of any size, and nothing in it moves the cursor.

use std::io::Write;

use urlproxy::text::must_escape;
use urlproxy::webservice::TerminalText;

pub fn check(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let whole = printed([bytes]);
    assert_eq!(printed(bytes.chunks(usize::from(piece).max(1))), whole);
    let text = String::from_utf8(whole).expect("escaped text is UTF-8");
    assert!(!text.contains(|c| must_escape(c) && !matches!(c, '\n' | '\t')), "{text:?}");
    let count = |c: char| bytes.iter().filter(|&&byte| char::from(byte) == c).count();
    assert_eq!((text.matches('\n').count(), text.matches('\t').count()), (count('\n'), count('\t')));
}

fn printed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut printed = Vec::new();
    let mut terminal = TerminalText::new(&mut printed);
    for piece in pieces {
        terminal.write_all(piece).expect("memory is writable");
    }
    terminal.flush().expect("memory is writable");
    drop(terminal);
    printed
}
