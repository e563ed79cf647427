//! The file as written: sections and keys with their places, not yet judged.
//!
//! Not serde, which stops at the first fault: an operator who edits by hand wants all of them.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::nearest::nearest;
use super::{fault::Faults, value};

/// One table of the file. A key that nobody asked for is a fault when the section is closed.
pub(super) struct Section<'a> {
    /// Such as `virtual-service[0].real-server[1]`; empty for the file as a whole.
    pub(super) path: String,
    pub(super) span: Range<usize>,
    pub(super) faults: &'a Faults<'a>,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn root(entries: &'a DeTable<'a>, faults: &'a Faults<'a>) -> Self {
        Self { path: String::new(), span: 0..0, faults, entries, known: Vec::new() }
    }

    /// The value of a key that must be there; `None` after a fault.
    pub(super) fn required<T>(&mut self, key: &'static str, parse: Parse<T>) -> Option<Spanned<T>> {
        if !self.contains(key) {
            self.fault(format!("`{key}` is missing"));
        }
        self.parsed(key, parse)?
    }

    /// The value of a key, or `default` without it; `None` after a fault.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: Parse<T>,
        default: T,
    ) -> Option<Spanned<T>> {
        self.parsed(key, parse).unwrap_or(Some(Spanned::new(self.span.clone(), default)))
    }

    /// The elements of an array that had no fault, each with its own path; none without the key.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: Parse<T>) -> Vec<Element<T>> {
        let Some(written) = self.get(key) else { return Vec::new() };
        let path = self.field(key);
        let DeValue::Array(array) = written.get_ref() else {
            let found = value::found(written.get_ref());
            self.faults.add(written.span(), &path, format!("expected an array, {found}"));
            return Vec::new();
        };
        let mut elements = Vec::new();
        for (i, written) in array.iter().enumerate() {
            let path = format!("{path}[{i}]");
            match parse(written.get_ref()) {
                Ok(value) => elements.push(Element { path, span: written.span(), value }),
                Err(problem) => self.faults.add(written.span(), &path, problem),
            }
        }
        elements
    }

    /// The section `[key]`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let written = self.get(key)?;
        let path = self.field(key);
        let DeValue::Table(entries) = written.get_ref() else {
            let found = value::found(written.get_ref());
            let problem = format!("expected a table, written `[{path}]`, {found}");
            self.faults.add(written.span(), &path, problem);
            return None;
        };
        Some(self.inner(path, written.span(), entries))
    }

    /// The sections `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(written) = self.get(key) else { return Vec::new() };
        let path = self.field(key);
        let DeValue::Array(array) = written.get_ref() else {
            let header = unindexed(&path);
            let found = value::found(written.get_ref());
            let problem =
                format!("expected a list of tables, each written `[[{header}]]`, {found}");
            self.faults.add(written.span(), &path, problem);
            return Vec::new();
        };
        self.tables(&path, array)
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// How many elements an array was written with, faulty ones included; else 1, or 0 without
    /// the key, so that a fault of its type is the only one.
    pub(super) fn elements(&self, key: &str) -> usize {
        let count = |written: &Spanned<DeValue<'_>>| {
            written.get_ref().as_array().map_or(1, |array| array.len())
        };
        self.entries.get(key).map_or(0, count)
    }

    /// The place of a key's value, or of the section where it has none.
    pub(super) fn place(&self, key: &str) -> Range<usize> {
        self.entries.get(key).map_or(self.span.clone(), Spanned::span)
    }

    /// The path of a key of this section.
    pub(super) fn field(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A fault of the section as a whole.
    pub(super) fn fault(&self, problem: impl Into<String>) {
        self.faults.add(self.span.clone(), &self.path, problem);
    }

    /// To be called once every key has been asked for.
    pub(super) fn close(self) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let problem = match nearest(name, self.known.iter().copied()) {
                Some(near) => format!("unknown key `{name}`, did you mean `{near}`?"),
                None => {
                    format!("unknown key `{name}`, expected one of `{}`", self.known.join("`, `"))
                }
            };
            self.faults.add(key.span(), &self.path, problem);
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries.get(key)
    }

    /// `None` without the key, `Some(None)` after a fault.
    fn parsed<T>(&mut self, key: &'static str, parse: Parse<T>) -> Option<Option<Spanned<T>>> {
        let written = self.get(key)?;
        Some(match parse(written.get_ref()) {
            Ok(value) => Some(Spanned::new(written.span(), value)),
            Err(problem) => {
                self.faults.add(written.span(), &self.field(key), problem);
                None
            }
        })
    }

    fn tables(&self, path: &str, array: &'a DeArray<'a>) -> Vec<Section<'a>> {
        let mut sections = Vec::new();
        for (i, written) in array.iter().enumerate() {
            let path = format!("{path}[{i}]");
            if let DeValue::Table(entries) = written.get_ref() {
                sections.push(self.inner(path, written.span(), entries));
            } else {
                let problem = format!("expected a table, {}", value::found(written.get_ref()));
                self.faults.add(written.span(), &path, problem);
            }
        }
        sections
    }

    fn inner(&self, path: String, span: Range<usize>, entries: &'a DeTable<'a>) -> Section<'a> {
        Section { path, span, faults: self.faults, entries, known: Vec::new() }
    }
}

/// Judges one value; the error is the problem as the operator reads it.
pub(super) type Parse<T> = fn(&DeValue<'_>) -> Result<T, String>;

/// An element of an array.
pub(super) struct Element<T> {
    pub(super) path: String,
    pub(super) span: Range<usize>,
    pub(super) value: T,
}

/// `virtual-service[0].real-server` is written `virtual-service.real-server` in a header.
fn unindexed(path: &str) -> String {
    path.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}
