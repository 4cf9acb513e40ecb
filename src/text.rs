//! Text for operators, the same in nginx's pages and on the command line: numbers and time spans in words, and the characters that
//! must be escaped.

/// A number with commas: `3,012`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and a noun: `1 tool`, `3,012 tools`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A time span in one unit: `2 s`, `4 min`, `3 h`, `5 d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// Whether a terminal may act on the character, or show something else than is there: control characters (C0, DEL, C1), line and
/// paragraph separators, bidirectional controls (Unicode Standard Annex 9), invisible characters
/// (`Default_Ignorable_Code_Point`) and tags.
pub fn must_escape(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), want);
        }
        assert_eq!((&*counted(1, "tool"), &*counted(3012, "tool")), ("1 tool", "3,012 tools"));
    }

    #[test]
    fn spans_have_one_unit() {
        for (seconds, want) in
            [(0, "0 s"), (119, "119 s"), (240, "4 min"), (7200, "2 h"), (172_799, "47 h"), (432_000, "5 d")]
        {
            assert_eq!(span(seconds), want);
        }
    }
}
