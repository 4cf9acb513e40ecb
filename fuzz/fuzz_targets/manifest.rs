//! A service.manifest of any bytes yields a web service or a reason to skip it, never a crash; its words are safe in a command line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::monitor::parse_manifest;
use urlproxy::tenant::SafeWord;

fuzz_target!(|bytes: &[u8]| {
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
});
