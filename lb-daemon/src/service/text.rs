//! How the words of a service are written and read: in the configuration, in the API's JSON and
//! on the command line alike.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV6},
    num::NonZeroU16,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Hash, OnDown, Ports, ServiceAddress, Unsupported, WHOLE_ADDRESS};

/// Why a text is not a [`ServiceAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("`{0}` has no port, expected `{0}:PORT`")]
    NoPort(Ipv4Addr),
    #[error("`{0}` is IPv6, which is not supported, expected IPv4")]
    Ipv6(String),
    #[error("`{0}` is not an address, expected IPv4:PORT such as `192.0.2.80:80`")]
    NotAnAddress(String),
    #[error("port {0} is not in 1..=65535")]
    OutOfRange(String),
    #[error(
        "`{0}` is not a port, expected one such as `80`, a range such as `5000-5999`, or `any`"
    )]
    NotAPort(String),
    #[error("`{0}-{1}` is not a range of ports, expected the first below the last")]
    NotARange(NonZeroU16, NonZeroU16),
}

impl FromStr for ServiceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse() {
            return Err(AddressError::NoPort(address));
        }
        if text.starts_with('[')
            || text.parse::<Ipv6Addr>().is_ok()
            || text.parse::<SocketAddrV6>().is_ok()
        {
            return Err(AddressError::Ipv6(text.to_owned()));
        }
        let not_an_address = || AddressError::NotAnAddress(text.to_owned());
        let (vip, ports) = text.rsplit_once(':').ok_or_else(not_an_address)?;
        let vip = vip.parse().map_err(|_| not_an_address())?;
        Ok(Self { vip, ports: ports.parse()? })
    }
}

impl FromStr for Ports {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let Some((first, last)) = text.split_once('-') else {
            return Ok(Self::One(port(text, text)?));
        };
        let (first, last) = (port(first, text)?, port(last, text)?);
        if first >= last {
            return Err(AddressError::NotARange(first, last));
        }
        Ok(Self::Range(first, last))
    }
}

/// One number of `ports`. Not by `FromStr` alone, which takes `+80`.
fn port(number: &str, ports: &str) -> Result<NonZeroU16, AddressError> {
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError::NotAPort(ports.to_owned()));
    }
    number.parse().map_err(|_| AddressError::OutOfRange(number.to_owned()))
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow => f.write_str("flow"),
            Self::Source { prefix_len } => write!(f, "source/{prefix_len}"),
        }
    }
}

/// `flow`, `source` or `source/LENGTH`.
impl FromStr for Hash {
    type Err = Unsupported;

    fn from_str(text: &str) -> Result<Self, Unsupported> {
        let prefix_len = match text {
            "flow" => return Ok(Self::Flow),
            "source" => Some(WHOLE_ADDRESS),
            other => other.strip_prefix("source/").and_then(|length| length.parse().ok()),
        };
        match prefix_len {
            Some(prefix_len @ 1..=WHOLE_ADDRESS) => Ok(Self::Source { prefix_len }),
            Some(_) | None => {
                Err(Unsupported { found: text.to_owned(), expected: "`flow` or `source`" })
            }
        }
    }
}

impl fmt::Display for OnDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rehash => "rehash",
            Self::Reset => "reset",
        })
    }
}

impl FromStr for OnDown {
    type Err = Unsupported;

    fn from_str(text: &str) -> Result<Self, Unsupported> {
        match text {
            "rehash" => Ok(Self::Rehash),
            "reset" => Ok(Self::Reset),
            other => Err(Unsupported { found: other.to_owned(), expected: "`rehash` or `reset`" }),
        }
    }
}

impl Serialize for ServiceAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_names_a_port_a_range_or_any() {
        for text in
            ["10.77.0.100:80", "10.77.0.100:any", "10.77.0.100:5000-5999", "10.0.0.1:1-65535"]
        {
            let address: ServiceAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(serde_json::to_value(address).unwrap(), text);
            assert_eq!(serde_json::from_value::<ServiceAddress>(text.into()).unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_says_what_was_found_and_what_was_expected() {
        let a_port = "expected one such as `80`, a range such as `5000-5999`, or `any`";
        for (text, want) in [
            ("10.0.0.1", "`10.0.0.1` has no port, expected `10.0.0.1:PORT`".to_owned()),
            ("10.0.0.1:0", "port 0 is not in 1..=65535".to_owned()),
            ("10.0.0.1:5000-65536", "port 65536 is not in 1..=65535".to_owned()),
            (
                "10.0.0.1:80-80",
                "`80-80` is not a range of ports, expected the first below the last".to_owned(),
            ),
            ("10.0.0.1:", format!("`` is not a port, {a_port}")),
            ("10.0.0.1:+80", format!("`+80` is not a port, {a_port}")),
            ("10.0.0.1:80-", format!("`80-` is not a port, {a_port}")),
            ("10.0.0.1:1-2-3", format!("`1-2-3` is not a port, {a_port}")),
            ("10.0.0.1:http", format!("`http` is not a port, {a_port}")),
            ("[::1]:any", "`[::1]:any` is IPv6, which is not supported, expected IPv4".to_owned()),
            ("::1", "`::1` is IPv6, which is not supported, expected IPv4".to_owned()),
            (
                "web:80",
                "`web:80` is not an address, expected IPv4:PORT such as `192.0.2.80:80`".to_owned(),
            ),
        ] {
            assert_eq!(text.parse::<ServiceAddress>().unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn a_hash_by_source_has_a_length_of_1_to_32() {
        for (text, want) in [
            ("flow", Some("flow")),
            ("source", Some("source/32")),
            ("source/24", Some("source/24")),
            ("source/0", None),
            ("source/33", None),
            ("source/", None),
            ("client", None),
        ] {
            let hash = text.parse::<Hash>().ok().map(|hash| hash.to_string());
            assert_eq!(hash.as_deref(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_an_address_panic(text in "[0-9.:any\\[\\]+-]{0,30}") {
            if let Ok(address) = text.parse::<ServiceAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
