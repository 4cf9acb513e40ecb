//! The word that a typing error was meant to be.

/// The nearest of some words: at most a third of its letters, and at most two, are wrong.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A word from the command line may have any length.
    if word.len() > 64 {
        return None;
    }
    let near = |name: &&str| distance(word, name) <= (name.len() / 3).clamp(1, 2);
    words.into_iter().filter(near).min_by_key(|name| distance(word, name))
}

/// Letters to insert, delete, replace, or exchange with their neighbor (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_have_a_nearest_word() {
        let words = ["start", "stop", "status", "lighttpd", "lighttpd-plain", "nodejs"];
        for (word, want) in [
            ("strat", Some("start")),
            ("start", Some("start")),
            ("statsu", Some("status")),
            ("stpo", Some("stop")),
            ("lightttpd", Some("lighttpd")),
            ("lighttpd-pain", Some("lighttpd-plain")),
            ("node", Some("nodejs")),
            ("python", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), want, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), words), None);
    }
}
