//! Edits of the configuration text that keep its comments and order. Pure: text in, text out.
//!
//! The text is spliced rather than printed anew, so what an edit does not concern stays as it is,
//! byte for byte. Lists may be written as `[[header]]` tables or as inline arrays.

use std::{fmt, net::Ipv4Addr, ops::Range};

use serde::{Deserialize, Serialize};
use toml_edit::{Document, TableLike, Value};

use self::list::List;
use super::nearest::nearest;
use crate::service::{DEFAULT_WEIGHT, Forwarding, Hash, Protocol, ServiceAddress, WHOLE_ADDRESS};

mod array;
mod header;
mod list;

/// One change of the configuration, as `lbctl` asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    AddService(NewService),
    DeleteService { name: String },
    AddRealServer { service: String, address: Ipv4Addr, weight: u16 },
    SetRealServer { service: String, address: Ipv4Addr, weight: u16 },
    DeleteRealServer { service: String, address: Ipv4Addr },
}

/// A virtual service without real servers yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    pub name: String,
    pub address: ServiceAddress,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default)]
    pub forwarding: Forwarding,
    /// `None`: not written, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
}

/// Why a text cannot be edited as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditError {
    UnknownService {
        name: String,
        known: Vec<String>,
    },
    UnknownRealServer {
        service: String,
        address: Ipv4Addr,
        known: Vec<Ipv4Addr>,
    },
    ServiceExists {
        name: String,
    },
    RealServerExists {
        service: String,
        address: Ipv4Addr,
    },
    /// The text is not TOML, or written in a way that only a person can edit.
    Unreadable {
        problem: String,
    },
}

/// The text after `edit`; it may be invalid where `text` is, or `edit` asks for it, so that
/// [`load`](super::load) has the last word.
pub fn apply(text: &str, edit: &Edit) -> Result<String, EditError> {
    let document = Document::parse(text)
        .map_err(|error| EditError::Unreadable { problem: error.message().to_owned() })?;
    let services = List::of(document.get("virtual-service"), "virtual-service")?;
    let splice = match edit {
        Edit::AddService(service) => {
            if services.names().contains(&service.name) {
                return Err(EditError::ServiceExists { name: service.name.clone() });
            }
            services.add(text, &service.entry(), list::Owner::File)
        }
        Edit::DeleteService { name } => {
            let (index, _) = find_service(&services, name)?;
            services.remove(text, index, &document)?
        }
        Edit::AddRealServer { service, address, weight } => {
            let real_servers = RealServers::of(&services, service)?;
            real_servers.add(text, *address, *weight)?
        }
        Edit::SetRealServer { service, address, weight } => {
            let real_servers = RealServers::of(&services, service)?;
            let (_, real_server) = real_servers.find(*address)?;
            set_weight(text, real_server, *weight, &real_servers.list)?
        }
        Edit::DeleteRealServer { service, address } => {
            let real_servers = RealServers::of(&services, service)?;
            let (index, _) = real_servers.find(*address)?;
            real_servers.list.remove(text, index, &document)?
        }
    };
    Ok(splice.apply(text))
}

/// The text that takes the place of a range of bytes.
struct Splice {
    at: Range<usize>,
    with: String,
}

impl Splice {
    fn apply(self, text: &str) -> String {
        [&text[..self.at.start], &self.with, &text[self.at.end..]].concat()
    }
}

impl NewService {
    /// As it is written, key by key.
    fn entry(&self) -> Vec<(&'static str, Value)> {
        let mut entry = vec![
            ("name", Value::from(&self.name)),
            ("address", Value::from(self.address.to_string())),
            ("protocol", Value::from(self.protocol.to_string())),
            ("forwarding", Value::from(self.forwarding.to_string())),
        ];
        match self.hash {
            None => {}
            Some(Hash::Flow) => entry.push(("hash", Value::from("flow"))),
            Some(Hash::Source { prefix_len }) => {
                entry.push(("hash", Value::from("source")));
                if prefix_len != WHOLE_ADDRESS {
                    entry.push(("source-prefix", Value::from(i64::from(prefix_len))));
                }
            }
        }
        entry.extend(self.table_size.map(|size| ("table-size", Value::from(i64::from(size)))));
        entry
    }
}

fn find_service<'a>(
    services: &List<'a>,
    name: &str,
) -> Result<(usize, &'a dyn TableLike), EditError> {
    services
        .tables()
        .into_iter()
        .find(|(_, service)| list::string(*service, "name") == Some(name))
        .ok_or_else(|| EditError::unknown_service(name, services.names()))
}

struct RealServers<'a> {
    service: String,
    list: List<'a>,
    owner: list::Owner<'a>,
}

impl<'a> RealServers<'a> {
    fn of(services: &List<'a>, name: &str) -> Result<Self, EditError> {
        let (index, service) = find_service(services, name)?;
        Ok(Self {
            service: name.to_owned(),
            list: List::of(service.get("real-server"), "virtual-service.real-server")?,
            owner: services.owner(index),
        })
    }

    fn find(&self, address: Ipv4Addr) -> Result<(usize, &'a dyn TableLike), EditError> {
        self.addresses()
            .into_iter()
            .find_map(|(index, table, found)| (found == address).then_some((index, table)))
            .ok_or_else(|| EditError::UnknownRealServer {
                service: self.service.clone(),
                address,
                known: self.addresses().into_iter().map(|(_, _, address)| address).collect(),
            })
    }

    fn add(&self, text: &str, address: Ipv4Addr, weight: u16) -> Result<Splice, EditError> {
        if self.find(address).is_ok() {
            return Err(EditError::RealServerExists { service: self.service.clone(), address });
        }
        let tables = self.list.tables();
        let mut entry = vec![("address", Value::from(address.to_string()))];
        // Where no neighbour writes the default, it stays unwritten.
        if weight != DEFAULT_WEIGHT
            || tables.is_empty()
            || tables.iter().any(|(_, table)| table.contains_key("weight"))
        {
            entry.push(("weight", Value::from(i64::from(weight))));
        }
        Ok(self.list.add(text, &entry, self.owner))
    }

    fn addresses(&self) -> Vec<(usize, &'a dyn TableLike, Ipv4Addr)> {
        let address = |table| list::string(table, "address").and_then(|text| text.parse().ok());
        let tables = self.list.tables().into_iter();
        tables.filter_map(|(index, table)| Some((index, table, address(table)?))).collect()
    }
}

fn set_weight(
    text: &str,
    real_server: &dyn TableLike,
    weight: u16,
    list: &List<'_>,
) -> Result<Splice, EditError> {
    let place = |key| real_server.get(key).and_then(toml_edit::Item::span);
    if let Some(at) = place("weight") {
        return Ok(Splice { at, with: weight.to_string() });
    }
    let address = place("address")
        .ok_or_else(|| EditError::Unreadable { problem: "`address` has no place".to_owned() })?;
    Ok(match list {
        List::Headers { .. } => header::line_after(text, address, &format!("weight = {weight}")),
        List::Inline { .. } | List::Missing { .. } => {
            Splice { at: address.end..address.end, with: format!(", weight = {weight}") }
        }
    })
}

impl EditError {
    pub fn unknown_service(name: &str, known: Vec<String>) -> Self {
        Self::UnknownService { name: name.to_owned(), known }
    }
}

impl std::error::Error for EditError {}

/// Up to this many names are listed.
const SHORT_LIST: usize = 8;

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownService { name, known } => {
                write!(f, "no service `{name}`, ")?;
                match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => write!(f, "did you mean `{near}`?"),
                    None if known.is_empty() => f.write_str("there is none yet"),
                    None if known.len() <= SHORT_LIST => {
                        write!(f, "expected one of `{}`", known.join("`, `"))
                    }
                    None => write!(f, "expected one of `lbctl service list`"),
                }
            }
            Self::UnknownRealServer { service, address, known } => {
                write!(f, "no real server {address} in {service}, ")?;
                if known.is_empty() {
                    f.write_str("it has none yet")
                } else if known.len() <= SHORT_LIST {
                    let known: Vec<String> = known.iter().map(Ipv4Addr::to_string).collect();
                    write!(f, "expected one of {}", known.join(", "))
                } else {
                    write!(f, "expected one of `lbctl real list {service}`")
                }
            }
            Self::ServiceExists { name } => write!(f, "service `{name}` exists already"),
            Self::RealServerExists { service, address } => write!(
                f,
                "real server {address} exists already in {service}: \
                 `lbctl real set` changes its weight"
            ),
            Self::Unreadable { problem } => write!(f, "{problem}"),
        }
    }
}

#[cfg(test)]
mod tests;
