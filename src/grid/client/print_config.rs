//! `--print-config`: the generated configuration and the command line, for people.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;

use crate::escape::Escaped;
use crate::web_type::PreparedCommand;

/// Prints the configuration, if there is one, and the command as a line for a shell. After a configuration the line is a comment, so
/// that the output can be given to the server. A terminal gets no control characters.
pub fn print(command: &PreparedCommand) -> io::Result<()> {
    let mut text = Vec::new();
    if let Some((_, configuration)) = &command.configuration {
        text.extend_from_slice(configuration);
        text.extend_from_slice(b"# ");
    }
    text.extend_from_slice(shell_line(&command.words).as_bytes());
    text.push(b'\n');
    let mut out = io::stdout();
    if out.is_terminal() {
        for line in String::from_utf8_lossy(&text).lines() {
            writeln!(out, "{}", Escaped(line))?;
        }
        return Ok(());
    }
    out.write_all(&text)
}

/// Words that a shell reads as these words again.
fn shell_line(words: &[OsString]) -> OsString {
    let quoted: Vec<_> = words.iter().map(|word| quote(word)).collect();
    quoted.join(OsStr::new(" "))
}

fn quote(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_=/.,:@%+".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return word.to_owned();
    }
    let mut quoted = OsString::from("'");
    for (number, part) in bytes.split(|&byte| byte == b'\'').enumerate() {
        if number > 0 {
            quoted.push(r"'\''");
        }
        quoted.push(OsStr::from_bytes(part));
    }
    quoted.push("'");
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_words_stay_plain() {
        let line = |words: &[&str]| shell_line(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(line(&["uwsgi", "--http-socket", ":80", "/a=/b"]), "uwsgi --http-socket :80 /a=/b");
        assert_eq!(line(&["", "a b", "it's", "$x", "~"]), r"'' 'a b' 'it'\''s' '$x' '~'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn shell_reads_the_same_words(words in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let line = shell_line(&words.iter().map(OsString::from).collect::<Vec<_>>());
            let mut script = OsString::from("printf '%s\\0' ");
            script.push(line);
            let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
            let read: Vec<_> = output.stdout.strip_suffix(b"\0").unwrap().split(|&byte| byte == 0).collect();
            prop_assert_eq!(read, words.iter().map(String::as_bytes).collect::<Vec<_>>());
        }
    }
}
