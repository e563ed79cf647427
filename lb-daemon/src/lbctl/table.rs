//! Tables without borders, no wider than 100 columns, and the words in them.

use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

const WIDTH: u16 = 100;
/// Enough of a digest to compare two by eye.
const DIGEST_CHARS: usize = 16;

/// A column, named as its heading.
pub(super) enum Column {
    Left(&'static str),
    /// For numbers.
    Right(&'static str),
}

pub(super) fn table(
    columns: &[Column],
    rows: impl IntoIterator<Item = Vec<Cell>>,
    colour: bool,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .force_no_tty();
    if colour {
        table.enforce_styling();
    }
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(name) | Column::Right(name) => Cell::new(name).add_attribute(Attribute::Dim),
    }));
    table.add_rows(rows);
    for (i, column) in columns.iter().enumerate() {
        if let Some(laid_out) = table.column_mut(i) {
            laid_out.set_padding((0, 2));
            laid_out.set_cell_alignment(match column {
                Column::Left(_) => CellAlignment::Left,
                Column::Right(_) => CellAlignment::Right,
            });
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

pub(super) fn text(text: impl ToString) -> Cell {
    Cell::new(text.to_string())
}

/// As it should be.
pub(super) fn good(text: impl ToString) -> Cell {
    Cell::new(text.to_string()).fg(Color::Green)
}

/// Worth a look.
pub(super) fn bad(text: impl ToString) -> Cell {
    Cell::new(text.to_string()).fg(Color::Yellow)
}

/// A line of its own that must not be missed.
pub(super) fn warning(text: &str, colour: bool) -> String {
    if colour { format!("\x1b[33mwarning:\x1b[0m {text}\n") } else { format!("warning: {text}\n") }
}

/// `3m 12s`; below a second in milliseconds.
pub(super) fn duration(ms: u64) -> String {
    let whole = if ms < 1000 { Duration::from_millis(ms) } else { Duration::from_secs(ms / 1000) };
    humantime::format_duration(whole).to_string()
}

/// `12,345,678`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

pub(super) fn digest(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_read_at_a_glance() {
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), want);
        }
        for (ms, want) in [(0, "0s"), (40, "40ms"), (61_999, "1m 1s")] {
            assert_eq!(duration(ms), want);
        }
    }

    #[test]
    fn a_table_is_aligned_and_fits_and_has_colours_only_where_they_are_wanted() {
        let columns = [Column::Left("NAME"), Column::Right("WEIGHT"), Column::Left("WHY")];
        let rows = || [vec![good("a"), text(1), text("long words ".repeat(20))]];
        let plain = table(&columns, rows(), false);
        assert!(plain.starts_with("NAME  WEIGHT  WHY\na          1  long words"), "{plain}");
        assert!(plain.lines().all(|line| line.len() <= 100), "{plain}");
        assert!(!plain.contains('\x1b'));
        assert!(table(&columns, rows(), true).contains('\x1b'));
    }
}
