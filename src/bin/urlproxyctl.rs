//! urlproxyctl: shows and changes what the proxy routes.

fn main() {}
