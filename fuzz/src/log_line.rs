//! Logs of a container as the API server streams them: any bytes are printed line by line, with nothing that moves the cursor.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use urlproxy::text::must_escape;
use urlproxy::webservice::kubernetes::{LogLine, LogReader, failure};

pub fn check(bytes: &[u8]) {
    let mut reader = LogReader::new(bytes);
    let (mut printed, mut lines) = (Vec::new(), 0);
    while let Some(line) = next(&mut reader) {
        lines += 1;
        assert!(lines <= bytes.len(), "the stream does not end");
        line.print("pod-1", true, &mut printed).expect("memory is writable");
        line.print("pod-1", false, &mut Vec::new()).expect("memory is writable");
    }
    let text = String::from_utf8(printed).expect("escaped text is UTF-8");
    assert_eq!(text.matches('\n').count(), lines);
    assert!(!text.contains(|c| must_escape(c) && !matches!(c, '\n' | '\t')), "{text:?}");
    if let Some(message) = failure(bytes) {
        assert!(!message.contains('\n') && message.chars().count() < 2000);
    }
}

/// The next line; reading from memory never waits.
fn next(reader: &mut LogReader<&[u8]>) -> Option<LogLine> {
    match pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(line) => line.expect("memory is readable"),
        Poll::Pending => unreachable!("memory never waits"),
    }
}
