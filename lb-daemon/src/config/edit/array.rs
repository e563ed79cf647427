//! Elements of an inline array of tables.
//!
//! Between two elements stand the comma, a comment on the line of the first, comments above the
//! second, and its indentation. The first of these belongs to the element before, the rest to the
//! element after.

use toml_edit::{Array, InlineTable, RawString};

use super::{Splice, list::Entry};

/// Adds an element at the end.
pub(super) fn add(text: &str, array: &Array, entry: Entry<'_>) -> Splice {
    let mut edited = Gaps::of(text, array);
    let (head, tail) = edited.split(array.len());
    let indent = match edited.gaps.get(array.len().wrapping_sub(1)) {
        // The first element of a one-line array may stand close to its bracket.
        Some(gap) if !gap.contains('\n') && array.len() == 1 => " ".to_owned(),
        Some(gap) => gap[gap.rfind('\n').unwrap_or(0)..].to_owned(),
        None if tail.contains('\n') => "\n  ".to_owned(),
        None => String::new(),
    };
    edited.gaps[array.len()] = head + &indent;
    edited.gaps.push(tail);
    edited.elements.push(inline_table(entry).to_string());
    edited.splice(array)
}

/// Begins the array `key` in a table that has none.
pub(super) fn begin(table: &InlineTable, key: &str, entry: Entry<'_>) -> Splice {
    let list = format!("{key} = [{}]", inline_table(entry));
    let last = table.iter().filter_map(|(_, value)| value.span()).map(|span| span.end).max();
    match (last, table.span()) {
        (Some(at), _) => Splice { at: at..at, with: format!(", {list}") },
        (None, Some(span)) => Splice { at: span, with: format!("{{ {list} }}") },
        (None, None) => Splice { at: 0..0, with: String::new() },
    }
}

pub(super) fn remove(text: &str, array: &Array, index: usize) -> Splice {
    let mut edited = Gaps::of(text, array);
    let (before, _) = edited.split(index);
    let (_, after) = edited.split(index + 1);
    let last = index + 1 == array.len();
    let one_line = !edited.gaps[index + 1].contains('\n');
    edited.gaps[index] =
        if one_line && !last { edited.gaps[index].clone() } else { before + &after };
    edited.gaps.remove(index + 1);
    edited.elements.remove(index);
    edited.splice(array)
}

/// An array as its elements and what stands before each and after the last, commas left out.
struct Gaps {
    elements: Vec<String>,
    /// One more than elements.
    gaps: Vec<String>,
}

impl Gaps {
    fn of(text: &str, array: &Array) -> Self {
        let raw =
            |raw: Option<&RawString>| raw.and_then(RawString::span).map_or("", |span| &text[span]);
        let mut elements = Vec::new();
        let mut gaps = Vec::new();
        let mut gap = String::new();
        for value in array.iter() {
            gaps.push(gap + raw(value.decor().prefix()));
            gap = raw(value.decor().suffix()).to_owned();
            elements.push(value.span().map_or(String::new(), |span| text[span].to_owned()));
        }
        gaps.push(gap + raw(Some(array.trailing())));
        Self { elements, gaps }
    }

    /// The part that belongs to the element before the gap, and the rest.
    fn split(&self, gap: usize) -> (String, String) {
        let gap = &self.gaps[gap];
        let (head, tail) = gap.split_at(gap.find('\n').unwrap_or(0));
        (head.to_owned(), tail.to_owned())
    }

    /// Takes the place of `array` in its text.
    fn splice(self, array: &Array) -> Splice {
        let mut with = "[".to_owned();
        for (i, (element, gap)) in self.elements.iter().zip(&self.gaps).enumerate() {
            if i > 0 {
                with += ",";
            }
            with += gap;
            with += element;
        }
        if array.trailing_comma() && !self.elements.is_empty() {
            with += ",";
        }
        with += self.gaps.last().map_or("", String::as_str);
        with += "]";
        Splice { at: array.span().unwrap_or(0..0), with }
    }
}

fn inline_table(entry: Entry<'_>) -> InlineTable {
    entry.iter().map(|(key, value)| (*key, value.clone())).collect()
}
