//! One directive, one type; the pointer work is done once, in [`set`].

use std::ffi::{c_char, c_void};
use std::ptr;

use nginx_sys::{NGX_LOG_EMERG, ngx_command_t, ngx_conf_log_error, ngx_conf_t, ngx_str_t, ngx_uint_t};

use super::guard::guarded;

/// A directive of the configuration file.
pub(super) trait Directive {
    /// As it is written.
    const NAME: &'static str;
    /// Where its arguments go.
    type Conf;

    /// Takes the arguments that follow the name.
    fn apply(conf: &mut Self::Conf, args: &[&str]) -> Result<(), DirectiveError>;
}

/// Why a directive is refused. nginx adds the file and the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DirectiveError {
    #[error("\"{directive}\" invalid {what} \"{value}\", expected e.g. \"{example}\"")]
    Invalid { directive: &'static str, what: &'static str, value: String, example: &'static str },
    #[error("\"{directive}\" takes {takes}, e.g. \"{example}\"")]
    Arguments { directive: &'static str, takes: &'static str, example: &'static str },
    #[error("\"{0}\" is duplicate")]
    Duplicate(&'static str),
    #[error("{0}")]
    Other(String),
}

/// Sets a value that may be given once.
pub(super) fn set_once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), DirectiveError> {
    if slot.is_some() {
        return Err(DirectiveError::Duplicate(name));
    }
    *slot = Some(value);
    Ok(())
}

/// What nginx takes for success, and for an error that was logged.
pub(super) const CONF_OK: *mut c_char = ptr::null_mut();
pub(super) const CONF_ERROR: *mut c_char = ptr::without_provenance_mut(usize::MAX);

/// The entry of a directive in nginx's table.
pub(super) const fn command<D: Directive>(name: ngx_str_t, flags: u32, conf: usize) -> ngx_command_t {
    ngx_command_t { name, type_: flags as ngx_uint_t, set: Some(set::<D>), conf, offset: 0, post: ptr::null_mut() }
}

/// What nginx calls for a directive.
pub(super) unsafe extern "C" fn set<D: Directive>(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: nginx passes the structure that this module made for the level, of the type that belongs to the
        // directive, and lets nobody else at it during the call.
        let conf = unsafe { &mut *conf.cast::<D::Conf>() };
        // SAFETY: nginx passes its parser, with the words of the directive.
        unsafe { apply(cf, |args| D::apply(conf, args)) }
    })
}

/// Runs `f` with the directive's arguments, and logs why it refused them.
///
/// # Safety
/// `cf` is nginx's parser in the middle of a directive.
pub(super) unsafe fn apply(cf: *mut ngx_conf_t, f: impl FnOnce(&[&str]) -> Result<(), DirectiveError>) -> *mut c_char {
    // SAFETY: the caller's promise.
    let words = unsafe { words(cf) };
    let words: Result<Vec<&str>, _> = words.iter().map(|word| std::str::from_utf8(word)).collect();
    let outcome = match &words {
        Ok(words) => f(words.get(1..).unwrap_or_default()),
        Err(_) => Err(DirectiveError::Other("a directive's arguments are not UTF-8".into())),
    };
    match outcome {
        Ok(()) => CONF_OK,
        // SAFETY: the caller's promise.
        Err(error) => unsafe { refuse(cf, &error) },
    }
}

/// The words of the directive, its name first.
///
/// # Safety
/// As for [`apply`].
pub(super) unsafe fn words<'a>(cf: *mut ngx_conf_t) -> Vec<&'a [u8]> {
    // SAFETY: the caller's promise.
    let words = unsafe { *cf }.args;
    // SAFETY: the parser keeps its words in an array.
    let words = unsafe { &*words };
    // SAFETY: they are strings, and live as long as the configuration.
    let words = unsafe { words.as_slice::<ngx_str_t>() };
    // SAFETY: as above.
    words.iter().map(|word| unsafe { super::pool::bytes(*word) }).collect()
}

/// Logs an error with file and line.
///
/// # Safety
/// `cf` is nginx's parser.
pub(super) unsafe fn refuse(cf: *mut ngx_conf_t, error: &DirectiveError) -> *mut c_char {
    let text = error.to_string();
    // SAFETY: the format takes a length and that many bytes.
    unsafe {
        ngx_conf_log_error(NGX_LOG_EMERG as ngx_uint_t, cf, 0, c"%*s".as_ptr(), text.len(), text.as_ptr());
    }
    CONF_ERROR
}
