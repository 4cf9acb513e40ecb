//! Replies of an identd: any bytes give a user within one line or an error.

use urlproxy::grid::{Query, parse_ident_reply};

pub fn check(bytes: &[u8]) {
    let query = Query { client_port: 6193, our_port: 8282 };
    // Also with valid ports, so that the parser gets past them.
    for reply in [bytes, &[b"6193 , 8282 : USERID :", bytes].concat()] {
        if let Ok(user) = parse_ident_reply(reply, query) {
            assert!(!user.is_empty() && !user.contains('\n') && user.len() < 1000);
        }
    }
}
