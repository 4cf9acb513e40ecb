//! A service.manifest: any bytes yield a web service or a reason to skip it; its words are safe in a command line. What
//! webservice reads in it, it writes so that it reads the same again, and so that webservicemonitor reads the same.

use urlproxy::monitor::parse_manifest;
use urlproxy::tenant::{Manifest, SafeWord};

pub fn check(bytes: &[u8]) {
    if let Some(manifest) = std::str::from_utf8(bytes).ok().and_then(|text| Manifest::parse(text).ok()) {
        let written = manifest.to_text();
        assert_eq!(Manifest::parse(&written).as_ref(), Ok(&manifest), "{written}");
        if let Ok(read) = parse_manifest(written.as_bytes(), None, None) {
            assert_eq!(Some(read.web.as_str()), manifest.web.as_deref());
        }
    }
    let ours = SafeWord::try_new("bookworm");
    match parse_manifest(bytes, None, None) {
        Ok(manifest) => {
            for word in [Some(&manifest.web), manifest.release.as_ref()].into_iter().flatten() {
                let first = word.as_str().as_bytes()[0];
                assert!(first.is_ascii_lowercase() || first.is_ascii_digit());
                assert!(word.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            }
            // A release filter never changes the web service.
            if let Ok(same) = parse_manifest(bytes, ours.as_ref(), ours.as_ref()) {
                assert_eq!(same.web, manifest.web);
            }
        }
        Err(skip) => {
            assert!(skip.to_string().len() < 1000 && !skip.to_string().contains('\n'));
        }
    }
}
