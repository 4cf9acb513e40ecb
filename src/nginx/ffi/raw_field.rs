//! Fields of nginx's structures.

/// A field of what a handle points to, read or written; the value is made first.
macro_rules! raw_field {
    ($handle:ident . $($field:ident).+ = $value:expr) => {{
        let value = $value;
        // SAFETY: what a handle points to is there for the handle's life; nginx reads and writes it between calls of this
        // module alone.
        unsafe { (*$handle.raw.as_ptr()).$($field).+ = value };
    }};
    ($handle:ident . $($field:ident).+) => {
        // SAFETY: as for writing.
        unsafe { (*$handle.raw.as_ptr()).$($field).+ }
    };
}
