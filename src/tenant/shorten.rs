//! Shortens a tenant's text for messages.

/// The longest text, in characters.
const MAX_CHARS: usize = 120;

/// The first line of a tenant's text, at most 120 characters of it.
pub fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut shortened: String = line.chars().take(MAX_CHARS).collect();
    if shortened.len() < line.len() {
        shortened.push('…');
    }
    shortened
}
