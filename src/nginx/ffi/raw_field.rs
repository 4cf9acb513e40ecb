//! Access to fields of nginx's structures.

/// Reads or writes a field through the pointer of a handle. A written value is evaluated first.
macro_rules! raw_field {
    ($handle:ident . $($field:ident).+ = $value:expr) => {{
        let value = $value;
        // SAFETY: the target of a handle is valid for the handle's lifetime, and nginx accesses it only between calls of
        // this module.
        unsafe { (*$handle.raw.as_ptr()).$($field).+ = value };
    }};
    ($handle:ident . $($field:ident).+) => {
        // SAFETY: as for writing.
        unsafe { (*$handle.raw.as_ptr()).$($field).+ }
    };
}
