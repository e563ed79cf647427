//! Faults of a configuration file, in the form that compilers give them.

use std::{
    cell::RefCell,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// Every fault found in one file, in file order; never empty.
#[derive(Debug)]
pub struct ConfigErrors {
    file: PathBuf,
    faults: Vec<Fault>,
}

/// One fault, where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// A path such as `virtual-service[0].address`; empty for the file as a whole.
    pub field: String,
    pub problem: String,
}

impl ConfigErrors {
    /// In file order; never empty.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl std::error::Error for ConfigErrors {}

/// One line a fault: `file:line:column: field: problem`.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Fault { line, column, field, problem }) in self.faults.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            let colon = if field.is_empty() { "" } else { ": " };
            write!(f, "{newline}{}:{line}:{column}: {field}{colon}{problem}", self.file.display())?;
        }
        Ok(())
    }
}

/// The faults of one text, collected while it is read and checked.
pub(super) struct Faults<'a> {
    text: &'a str,
    // Every section of the file reports here while others are open.
    found: RefCell<Vec<Fault>>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::default() }
    }

    /// `span` is in bytes of the text.
    pub(super) fn add(&self, span: Range<usize>, field: &str, problem: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.found.borrow_mut().push(Fault {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            field: field.to_owned(),
            problem: problem.into(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// The value, if no fault was found.
    pub(super) fn verdict<T>(self, file: &Path, value: Option<T>) -> Result<T, ConfigErrors> {
        let mut faults = self.found.into_inner();
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            Some(_) | None => {
                faults.sort_by_key(|fault| (fault.line, fault.column));
                Err(ConfigErrors { file: file.to_owned(), faults })
            }
        }
    }
}
