//! Tables of text: columns as wide as their widest cell, with a heading.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use crate::escape::escaped;

/// Bold, for headings.
pub const HEADING: Style = Style::new().bold();
/// Good news.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Bad news.
pub const BAD: Style = AnsiColor::Red.on_default();
/// Something to look at.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Details.
pub const FAINT: Style = Style::new().dimmed();

/// Widest column, in cells of the terminal. One long value must not pad all rows to its length.
const MAX_WIDTH: usize = 80;

/// One cell: escaped text, and its style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
    is_number: bool,
}

impl Cell {
    /// Text, which is escaped.
    pub fn text(text: impl std::fmt::Display) -> Self {
        Self { text: escaped(text), ..Self::default() }
    }

    /// A number, aligned to the right.
    pub fn number(text: impl std::fmt::Display) -> Self {
        Self { is_number: true, ..Self::text(text) }
    }

    /// The same cell in a style.
    pub fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

/// A table with a heading.
#[derive(Clone, Debug)]
pub struct TextTable {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl TextTable {
    /// An empty table with these headings.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with one cell for each heading.
    pub fn add(&mut self, row: impl IntoIterator<Item = Cell>) {
        self.rows.push(row.into_iter().collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table, with styles as escape sequences.
    pub fn lines(&self) -> Vec<String> {
        let is_number = |column: usize| self.rows.first().and_then(|row| row.get(column)).is_some_and(|c| c.is_number);
        let heading = self.headings.iter().enumerate().map(|(column, &text)| Cell {
            text: text.into(),
            style: HEADING,
            is_number: is_number(column),
        });
        let rows: Vec<Vec<Cell>> = [heading.collect()].into_iter().chain(self.rows.iter().cloned()).collect();
        let mut widths = vec![0; self.headings.len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width()).min(MAX_WIDTH);
            }
        }
        rows.iter().map(|row| line(row, &widths)).collect()
    }
}

fn line(row: &[Cell], widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.text.width()));
        let Cell { text, style, .. } = cell;
        let is_last = index + 1 == row.len();
        let gap = if index == 0 { "" } else { "  " };
        line += &match cell.is_number {
            true => format!("{gap}{padding}{style}{text}{style:#}"),
            // Nothing follows the last column.
            false if is_last => format!("{gap}{style}{text}{style:#}"),
            false => format!("{gap}{style}{text}{style:#}{padding}"),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(table: &TextTable) -> Vec<String> {
        table.lines().iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
    }

    #[test]
    fn a_long_value_does_not_pad_the_other_rows() {
        let mut table = TextTable::new(&["TOOL", "BACKEND"]);
        table.add([Cell::text("x".repeat(70_000)), Cell::text("b")]);
        table.add([Cell::text("a"), Cell::text("b")]);
        let lines = plain(&table);
        assert!(lines[1].ends_with("x  b"));
        assert_eq!(lines[2].len(), MAX_WIDTH + 3);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = TextTable::new(&["TOOL", "RATE", "BACKEND"]);
        table.add([Cell::text("工具"), Cell::number("1.5"), Cell::text("http://10.0.0.1:80").styled(BAD)]);
        table.add([Cell::text("a\x1b[31m"), Cell::number("12"), Cell::text("")]);
        assert_eq!(
            plain(&table),
            ["TOOL         RATE  BACKEND", "工具          1.5  http://10.0.0.1:80", "a\\u{1b}[31m    12  "]
        );
        assert!(!table.is_empty());
    }
}
