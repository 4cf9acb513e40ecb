//! Draws the screen of `top`.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::state::State;
use super::{HEADINGS, row};
use crate::ctl::api::{IN_STEP, ToolItem};
use crate::ctl::options::Sort;
use crate::escape::escaped;
use crate::text::{count, counted};

const KEYS: &str = "q quit   r rate  e errors  l latency  n name   / search   arrows move";

/// Draws the state.
pub fn draw(frame: &mut Frame<'_>, state: &State, has_color: bool) {
    let rows = Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)]);
    let [top, middle, bottom] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(header(state, has_color)), top);
    let items = state.sample.as_ref().map(|sample| &sample.tools.items[..]).unwrap_or_default();
    let mut selection = TableState::new().with_selected((!items.is_empty()).then_some(state.selected));
    frame.render_stateful_widget(table(items, state.sort, has_color), middle, &mut selection);
    let keys = match state.is_typing {
        true => Line::from(format!("search: {}_   Enter keeps it, Esc ends it", escaped(&state.search))),
        false => Line::from(KEYS).style(Style::new().add_modifier(Modifier::DIM)),
    };
    frame.render_widget(Paragraph::new(keys), bottom);
}

fn colored(color: Color, has_color: bool) -> Style {
    if has_color { Style::new().fg(color) } else { Style::new() }
}

fn header(state: &State, has_color: bool) -> Text<'static> {
    let mut lines = Vec::new();
    match &state.sample {
        None => lines.push(Line::from("asking nginx ...")),
        Some(sample) => {
            let summary = &sample.status.summary;
            let color = if summary.state == IN_STEP { Color::Green } else { Color::Red };
            let style = colored(color, has_color).add_modifier(Modifier::BOLD);
            lines.push(Line::from(Span::styled(escaped(&summary.text), style)));
            let search = match state.search.as_str() {
                "" => String::new(),
                search => format!(", {} with \"{}\"", count(sample.tools.matching), escaped(search)),
            };
            let (counts, rejected) = (&sample.status.counts, sample.status.rejected.routes);
            let rejected = if rejected > 0 { format!(", {} rejected", count(rejected)) } else { String::new() };
            let routes = counted(counts.routes, "route");
            lines.push(Line::from(format!("{}{search}; {routes}{rejected}", counted(counts.tools, "tool"))));
        }
    }
    if let Some(error) = &state.error {
        lines.push(Line::from(Span::styled(escaped(error), colored(Color::Red, has_color))));
    }
    Text::from(lines)
}

fn table(items: &[ToolItem], sort: Sort, has_color: bool) -> Table<'static> {
    let sorted = |text: &'static str, by: Sort| {
        let style = Style::new().add_modifier(Modifier::BOLD);
        Span::styled(text, if by == sort { style.add_modifier(Modifier::UNDERLINED) } else { style })
    };
    let plain = |text: &'static str| Span::styled(text, Style::new().add_modifier(Modifier::BOLD));
    let right = |span: Span<'static>| Cell::from(Line::from(span).alignment(Alignment::Right));
    let [name, rate, errors, latency, requests, backends, backend] = HEADINGS;
    let heading = Row::new([
        Cell::from(sorted(name, Sort::Name)),
        right(sorted(rate, Sort::Rate)),
        right(sorted(errors, Sort::Errors)),
        right(sorted(latency, Sort::Latency)),
        right(plain(requests)),
        right(plain(backends)),
        Cell::from(plain(backend)),
    ]);
    let cells: Vec<_> = items.iter().map(row).collect();
    // As wide as their content; what is left over is for names and backends.
    let mut widths = HEADINGS.map(|heading| heading.len());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let bad = |is_bad: bool| if is_bad { colored(Color::Red, has_color) } else { Style::new() };
    let rows: Vec<_> = items
        .iter()
        .zip(cells)
        .map(|(tool, [name, rate, errors, latency, requests, backends, backend])| {
            let has_errors = tool.error_rate.is_some_and(|rate| rate > 0.0);
            Row::new([
                Cell::from(escaped(name)),
                right(rate.into()),
                right(Span::styled(errors, bad(has_errors))),
                right(latency.into()),
                right(requests.into()),
                right(Span::styled(backends, bad(tool.unavailable > 0))),
                Cell::from(escaped(backend)),
            ])
        })
        .collect();
    let [_, rate, errors, latency, requests, backends, _] = widths.map(|width| Constraint::Length(width as u16));
    let widths = [Constraint::Fill(1), rate, errors, latency, requests, backends, Constraint::Fill(1)];
    Table::new(rows, widths).header(heading).row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;
    use crate::ctl::command::top::Sample;

    #[test]
    fn screen_shows_health_tools_and_nothing_unsafe() {
        let value = json!({"matching": 2, "items": [
            {"name": "busy\u{1b}[2J\u{202e}", "backends": 2, "unavailable": 1, "backend": "http://10.0.0.1:8000",
             "requests": [0, 90, 0, 0, 10], "milliseconds": 99, "rate": 12.34, "error_rate": 1.234, "mean_milliseconds": 49.6},
            {"name": "quiet", "requests": [0, 0, 0, 0, 0]},
        ]});
        let status = json!({
            "table": "tools", "now": 1.0, "summary": {"state": "in_step", "text": "In step with Redis."},
            "counts": {"tools": 3012, "redirects": 0, "domains": 0, "routes": 3300},
            "capacity": {"records": 1, "memory_bytes": 1, "memory_used_bytes": 0},
            "source": {"url": "redis://h:1/0", "connected": true}, "rejected": {"routes": 3},
        });
        let mut state = State::new(Sort::Rate, "b");
        state.sample = Some(Sample {
            status: serde_json::from_value(status).unwrap(),
            tools: serde_json::from_value(value.clone()).unwrap(),
            value,
        });
        state.error = Some("lost\u{9b}".into());
        let mut terminal = Terminal::new(TestBackend::new(110, 8)).unwrap();
        terminal.draw(|frame| draw(frame, &state, true)).unwrap();
        let screen = terminal.backend().to_string();
        for part in [
            "In step with Redis.",
            "3,012 tools, 2 with \"b\"; 3,300 routes, 3 rejected",
            "lost\\u{9b}",
            "12.3",
            "10.0 %",
            "50",
            "100",
            "2, 1 down",
            "busy\\u{1b}[2J\\u{202e}",
            "http://10.0.0.1:8000",
            "quiet",
            "q quit",
        ] {
            assert!(screen.contains(part), "{part}:\n{screen}");
        }
    }
}
