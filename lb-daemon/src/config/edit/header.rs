//! Tables under a `[[header]]`, as lines of the text.
//!
//! A comment that touches the header below it belongs to that header; else one that touches the
//! lines above it belongs to them; one between blank lines belongs to nobody and always stays.

use std::ops::Range;

use toml_edit::{ArrayOfTables, Item, Table};

use super::{EditError, Splice, list::Entry};

/// Adds a table after the last of `tables`, in its style.
pub(super) fn add(text: &str, header: &str, tables: &ArrayOfTables, entry: Entry<'_>) -> Splice {
    let Some(last) = tables.iter().last() else { return begin(text, header, None, entry) };
    let start = line_start(text, last.span().map_or(0, |span| span.start));
    let indent: String = text[start..].chars().take_while(|c| [' ', '\t'].contains(c)).collect();
    // The first table may follow something else closely, so it says nothing of the style.
    let dense = tables.len() > 1 && !blank_above(text, own_start(text, start));
    insert(text, end_of(text, last), header, entry, &indent, !dense)
}

/// Begins a list at the end of its owner, or of the file.
pub(super) fn begin(text: &str, header: &str, owner: Option<&Table>, entry: Entry<'_>) -> Splice {
    let at = owner.map_or(text.len(), |owner| end_of(text, owner));
    insert(text, at, header, entry, "", true)
}

/// Removes a table with all that is in it.
pub(super) fn remove(text: &str, table: &Table, root: &Table) -> Result<Splice, EditError> {
    let header = line_start(text, table.span().map_or(0, |span| span.start));
    let end = end_of(text, table);
    let within =
        |table: &Table| headers(table).into_iter().filter(|at| (header..end).contains(at)).count();
    if within(root) != within(table) {
        let line = text[..header].matches('\n').count() + 1;
        let problem = format!(
            "the table at line {line} is written in more than one piece: edit the file by hand, \
             then `lbctl config reload`"
        );
        return Err(EditError::Unreadable { problem });
    }
    let start = own_start(text, header);
    let at = if blank_above(text, start) {
        line_start(text, start - 1)..end
    } else if start == 0 && text[end..].lines().next().is_some_and(is_blank) {
        start..line_end(text, end)
    } else {
        start..end
    };
    Ok(Splice { at, with: String::new() })
}

/// Adds a line below the one that has `value`, indented alike.
pub(super) fn line_after(text: &str, value: Range<usize>, line: &str) -> Splice {
    let start = line_start(text, value.start);
    let indent: String = text[start..].chars().take_while(|c| [' ', '\t'].contains(c)).collect();
    let at = line_end(text, value.end);
    let newline = newline(text);
    let before = if text[..at].ends_with('\n') { "" } else { newline };
    Splice { at: at..at, with: format!("{before}{indent}{line}{newline}") }
}

fn insert(
    text: &str,
    at: usize,
    header: &str,
    entry: Entry<'_>,
    indent: &str,
    blank: bool,
) -> Splice {
    let newline = newline(text);
    let mut with = String::new();
    if at > 0 {
        if !text[..at].ends_with('\n') {
            with += newline;
        }
        // A comment must not come to touch the new header.
        if blank || at > 0 && is_comment(&text[line_start(text, at - 1)..at]) {
            with += newline;
        }
    }
    with += &format!("{indent}[[{header}]]{newline}");
    for (key, value) in entry {
        with += &format!("{indent}{key} = {value}{newline}");
    }
    Splice { at: at..at, with }
}

/// The end of a table's last line, and of the comments that belong to it.
fn end_of(text: &str, table: &Table) -> usize {
    let end = line_end(text, last_byte(table));
    let mut commented = end;
    while text[commented..].lines().next().is_some_and(is_comment) {
        commented = line_end(text, commented);
    }
    match text[commented..].lines().next() {
        Some(below) if !is_blank(below) => end,
        Some(_) | None => commented,
    }
}

/// The start of a header's line, or of the comments that belong to it.
fn own_start(text: &str, header: usize) -> usize {
    let mut start = header;
    while start > 0 {
        let above = line_start(text, start - 1);
        if !is_comment(&text[above..start]) {
            return start;
        }
        start = above;
    }
    // A comment at the top of the file speaks of the file.
    header
}

fn last_byte(table: &Table) -> usize {
    let own = table.span().map_or(0, |span| span.end);
    let inner = table.iter().map(|(_, item)| match item {
        Item::Table(table) => last_byte(table),
        Item::ArrayOfTables(tables) => tables.iter().map(last_byte).max().unwrap_or(0),
        Item::Value(value) => value.span().map_or(0, |span| span.end),
        Item::None => 0,
    });
    inner.max().unwrap_or(0).max(own)
}

/// The places of the headers of a table and of all tables in it.
fn headers(table: &Table) -> Vec<usize> {
    let own = (!table.is_dotted() && !table.is_implicit())
        .then(|| table.span().map(|span| span.start))
        .flatten();
    let inner = table.iter().flat_map(|(_, item)| match item {
        Item::Table(table) => headers(table),
        Item::ArrayOfTables(tables) => tables.iter().flat_map(headers).collect(),
        Item::Value(_) | Item::None => Vec::new(),
    });
    own.into_iter().chain(inner).collect()
}

fn blank_above(text: &str, start: usize) -> bool {
    start > 0 && is_blank(&text[line_start(text, start - 1)..start])
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// After the newline, where there is one.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
