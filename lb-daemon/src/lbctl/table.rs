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
    let mut table = plain(colour);
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(name) | Column::Right(name) => Cell::new(name).add_attribute(Attribute::Dim),
    }));
    table.add_rows(rows);
    for (i, column) in columns.iter().enumerate() {
        if let Some(laid_out) = table.column_mut(i) {
            laid_out.set_cell_alignment(match column {
                Column::Left(_) => CellAlignment::Left,
                Column::Right(_) => CellAlignment::Right,
            });
        }
    }
    lines(&mut table)
}

/// One thing: a line for each of its properties, with its name.
pub(super) fn fields(
    fields: impl IntoIterator<Item = (&'static str, Cell)>,
    colour: bool,
) -> String {
    let mut table = plain(colour);
    let name = |name| Cell::new(name).add_attribute(Attribute::Dim);
    table.add_rows(fields.into_iter().map(|(field, value)| [name(field), value]));
    lines(&mut table)
}

fn plain(colour: bool) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .force_no_tty();
    if colour {
        table.enforce_styling();
    }
    table
}

fn lines(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
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

/// `14.2 MiB`, for memory.
pub(super) fn binary(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// `9.4 GB`, for traffic.
pub(super) fn decimal(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `9.4 G`, for a rate whose unit stands above it.
pub(super) fn rate(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T", "P", "E"]).trim_end().to_owned()
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let (mut number, mut unit) = (number, 0);
    // What would be printed as the step itself is one of the next unit.
    while number >= step - 0.05 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let decimals = usize::from(unit > 0);
    format!("{number:.decimals$} {}", units[unit])
}

/// `1.25 %`; enough digits to tell that something is not nothing.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.01 { "< 0.01 %".to_owned() } else { format!("{percent:.2} %") }
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
    fn sizes_and_rates_have_a_unit_that_fits() {
        for (bytes, memory, traffic) in [
            (0, "0 B", "0 B"),
            (999, "999 B", "999 B"),
            (1_000, "1000 B", "1.0 kB"),
            (999_960, "976.5 KiB", "1.0 MB"),
            (14_889_779, "14.2 MiB", "14.9 MB"),
            (u64::MAX, "16.0 EiB", "18.4 EB"),
        ] {
            assert_eq!(binary(bytes), memory);
            assert_eq!(decimal(bytes), traffic);
        }
        for (number, want) in [(0.0, "0"), (12.4, "12"), (9.41e9, "9.4 G"), (0.4, "0")] {
            assert_eq!(rate(number), want);
        }
        for (share, want) in [(0.0, "0.00 %"), (0.000_04, "< 0.01 %"), (0.01, "1.00 %")] {
            assert_eq!(percent(share), want);
        }
    }

    #[test]
    fn a_property_that_is_long_goes_on_below_its_beginning() {
        let printed = fields([("a", text("b")), ("long", text("word ".repeat(30)))], false);
        assert!(printed.starts_with("a     b\nlong  word word"), "{printed}");
        assert!(printed.contains("\n      word"), "{printed}");
        assert!(printed.lines().all(|line| line.len() <= 100), "{printed}");
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
