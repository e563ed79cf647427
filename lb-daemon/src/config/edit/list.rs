//! A list of tables of the file, in either form that TOML has for it.

use toml_edit::{Array, ArrayOfTables, Document, Item, Table, TableLike, Value};

use super::{EditError, Splice, array, header};

#[derive(Clone, Copy)]
pub(super) enum List<'a> {
    /// `[[header]]` tables.
    Headers { header: &'static str, tables: &'a ArrayOfTables },
    /// `key = [ { … }, { … } ]`.
    Inline { array: &'a Array },
    /// Not in the file yet.
    Missing { header: &'static str },
}

/// What a list is in, which decides where and how it begins.
#[derive(Clone, Copy)]
pub(super) enum Owner<'a> {
    File,
    Header(&'a Table),
    Inline(&'a toml_edit::InlineTable),
}

pub(super) type Entry<'e> = &'e [(&'static str, Value)];

impl<'a> List<'a> {
    pub(super) fn of(item: Option<&'a Item>, header: &'static str) -> Result<Self, EditError> {
        let Some(item) = item else { return Ok(Self::Missing { header }) };
        if let Some(tables) = item.as_array_of_tables() {
            Ok(Self::Headers { header, tables })
        } else if let Some(array) = item.as_array() {
            Ok(Self::Inline { array })
        } else {
            let problem = format!("{header} is a {}, expected a list", item.type_name());
            Err(EditError::Unreadable { problem })
        }
    }

    /// With their indices; what is not a table is left out.
    pub(super) fn tables(&self) -> Vec<(usize, &'a dyn TableLike)> {
        match self {
            Self::Headers { tables, .. } => {
                tables.iter().map(|table| table as &dyn TableLike).enumerate().collect()
            }
            Self::Inline { array } => array
                .iter()
                .enumerate()
                .filter_map(|(i, value)| Some((i, value.as_inline_table()? as &dyn TableLike)))
                .collect(),
            Self::Missing { .. } => Vec::new(),
        }
    }

    /// The table at `index` as the owner of lists within it.
    pub(super) fn owner(&self, index: usize) -> Owner<'a> {
        match self {
            Self::Headers { tables, .. } => tables.get(index).map_or(Owner::File, Owner::Header),
            Self::Inline { array } => {
                array.get(index).and_then(Value::as_inline_table).map_or(Owner::File, Owner::Inline)
            }
            Self::Missing { .. } => Owner::File,
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        let tables = self.tables().into_iter();
        tables.filter_map(|(_, table)| string(table, "name").map(str::to_owned)).collect()
    }

    /// Adds a table at the end.
    pub(super) fn add(&self, text: &str, entry: Entry<'_>, owner: Owner<'_>) -> Splice {
        match (self, owner) {
            (Self::Headers { header, tables }, _) => header::add(text, header, tables, entry),
            (Self::Inline { array }, _) => array::add(text, array, entry),
            (Self::Missing { header }, Owner::File) => header::begin(text, header, None, entry),
            (Self::Missing { header }, Owner::Header(table)) => {
                header::begin(text, header, Some(table), entry)
            }
            (Self::Missing { header }, Owner::Inline(table)) => {
                // The last word of the header is the key.
                array::begin(table, header.rsplit('.').next().unwrap_or(header), entry)
            }
        }
    }

    pub(super) fn remove(
        &self,
        text: &str,
        index: usize,
        document: &Document<&str>,
    ) -> Result<Splice, EditError> {
        match self {
            Self::Headers { tables, .. } => match tables.get(index) {
                Some(table) => header::remove(text, table, document.as_table()),
                None => Ok(Splice { at: 0..0, with: String::new() }),
            },
            Self::Inline { array } => Ok(array::remove(text, array, index)),
            Self::Missing { .. } => Ok(Splice { at: 0..0, with: String::new() }),
        }
    }
}

pub(super) fn string<'t>(table: &'t dyn TableLike, key: &str) -> Option<&'t str> {
    table.get(key).and_then(Item::as_str)
}
