//! The dashboard: one page with its style and script, and the policy by which a browser runs nothing else.

/// The files of a script, joined at compile time; the page needs no other request.
macro_rules! script {
    () => {
        concat!(
            "\n",
            include_str!("dashboard/dom.js"),
            include_str!("dashboard/plot.js"),
            include_str!("dashboard/views.js"),
            include_str!("dashboard/main.js")
        )
    };
}
macro_rules! style {
    () => {
        concat!("\n", include_str!("dashboard/style.css"))
    };
}

/// The page, `text/html; charset=utf-8`. It asks the API by relative URLs, so its own must end with a slash.
pub const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<style>",
    style!(),
    "</style>\n<script type=\"module\">",
    script!(),
    "</script>\n",
    include_str!("dashboard/page.html"),
);

/// The page's `Content-Security-Policy`. Only the style and the script with these SHA-256 hashes are used, so markup that came
/// from a tenant would do nothing; the last two directives also forbid making markup from strings. After a change of the files,
/// the test below prints the new hashes.
pub const POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'sha256-95pJA+NcL/LsfAd938Cb7wq6Ny+6m8tpL4salj1afCk='; ",
    "style-src 'sha256-qSDSypq3YxoDZYyBDHlK6YdAesX2R8c+xAuvClpLOAQ='; ",
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; ",
    "require-trusted-types-for 'script'; trusted-types 'none'",
);

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ring::digest::{SHA256, digest};

    use super::*;

    /// The text of the only element of that name, as a browser hashes it.
    fn inline(element: &str) -> &'static str {
        let (start, end) = (format!("<{element}"), format!("</{element}>"));
        let found: Vec<_> = PAGE.match_indices(&start).collect();
        assert_eq!((found.len(), PAGE.matches(&end).count()), (1, 1), "{element}");
        let (_, text) = PAGE[found[0].0..].split_once('>').unwrap();
        text.split_once(&end).unwrap().0
    }

    #[test]
    fn policy_has_the_hashes_of_style_and_script() {
        for element in ["script", "style"] {
            let source =
                format!("{element}-src 'sha256-{}'; ", STANDARD.encode(digest(&SHA256, inline(element).as_bytes())));
            assert!(POLICY.contains(&source), "the policy must have: {source}");
        }
    }

    #[test]
    fn page_obeys_its_policy() {
        let markup = PAGE.replace(inline("script"), "").replace(inline("style"), "");
        for attribute in [" style=", " src=", "http:"] {
            assert!(!markup.contains(attribute), "{attribute:?} in the page");
        }
        let handler = regex::Regex::new(r"\son[a-z]+\s*=").unwrap();
        assert!(!handler.is_match(&markup), "a handler in the page");
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "Function(",
            "import(",
            ".style",
        ] {
            assert!(!inline("script").contains(sink), "{sink:?} in the script");
        }
        for source in ["url(", "@import", "@font-face"] {
            assert!(!inline("style").contains(source), "{source:?} in the style");
        }
        assert!(!PAGE.contains('\r'), "a browser hashes the text with other line ends");
    }
}
