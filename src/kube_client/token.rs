//! The form of tokens.

use hyper::header::HeaderValue;
use kube::client::AuthError;
use kube::config::AuthInfo;
use secrecy::ExposeSecret;

/// Refuses a token that no header can have, such as one with a line break: the kube crate panics on it.
///
/// # Errors
/// [`AuthError::InvalidBearerToken`].
pub fn check_token(auth_info: &AuthInfo) -> kube::Result<()> {
    let Some(token) = &auth_info.token else { return Ok(()) };
    let header = HeaderValue::try_from(token.expose_secret());
    header.map(|_| ()).map_err(|error| kube::Error::Auth(AuthError::InvalidBearerToken(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_fit_into_a_header() {
        let check = |token: Option<&str>| {
            let token = token.map(|token| token.to_owned().into());
            check_token(&AuthInfo { token, ..AuthInfo::default() })
        };
        for token in [None, Some("abc.DEF-1_2="), Some("")] {
            assert!(check(token).is_ok(), "{token:?}");
        }
        for token in ["a\nb", "a\0", "\u{7f}"] {
            let error = super::super::describe(&check(Some(token)).unwrap_err());
            assert!(error.contains("invalid bearer token") && !error.contains('\n'), "{error}");
        }
    }
}
