//! Single values of the file: each is judged by itself, whatever stands around it.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    num::NonZeroU8,
    ops::RangeInclusive,
    time::Duration,
};

use toml::de::DeValue;

use super::{Vip, XdpMode};
use crate::service::{
    AddressError, Forwarding, OnDown, Protocol, ServiceAddress, TABLE_SIZES, Unsupported,
};

/// RFC 9568 §5.2.7: a 12-bit field of centiseconds, of which 0 is not an interval.
const ADVERTISEMENT_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_millis(40_950);
/// As keepalived has it.
const PREEMPT_DELAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1000);

/// Of flows: shorter ones would end flows that are alive, longer ones keep what nobody misses.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
/// Flows that the datapath can note; each costs some tens of bytes.
const FLOW_TABLE_SIZES: RangeInclusive<u32> = 1_024..=4_194_304;

/// `found a string`, `found an integer`.
pub(super) fn found(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("found {article} {kind}")
}

/// The name of a director, service or router.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, String> {
    let name = string(value)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !(1..=63).contains(&name.len())
        || !name.chars().all(allowed)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(format!(
            "`{name}` is not a name, expected 1 to 63 of letters, digits, `.`, `_` and `-`, a \
             letter or digit first"
        ));
    }
    Ok(name.to_owned())
}

pub(super) fn interface(value: &DeValue<'_>) -> Result<String, String> {
    let name = string(value)?;
    // What the kernel accepts (dev_valid_name).
    let refused = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
    if !(1..=15).contains(&name.len()) || [".", ".."].contains(&name) || name.contains(refused) {
        return Err(format!(
            "`{name}` is not an interface name, expected 1 to 15 characters such as `eth0`"
        ));
    }
    Ok(name.to_owned())
}

pub(super) fn xdp_mode(value: &DeValue<'_>) -> Result<XdpMode, String> {
    match string(value)? {
        "auto" => Ok(XdpMode::Auto),
        "native" => Ok(XdpMode::Native),
        "generic" => Ok(XdpMode::Generic),
        other => {
            Err(format!("`{other}` is not an XDP mode, expected `auto`, `native` or `generic`"))
        }
    }
}

/// The VIP and ports of a virtual service.
pub(super) fn service_address(value: &DeValue<'_>) -> Result<ServiceAddress, String> {
    let address: ServiceAddress =
        string(value)?.parse().map_err(|error: AddressError| error.to_string())?;
    unicast(address.vip, "VIP")?;
    Ok(address)
}

pub(super) fn protocol(value: &DeValue<'_>) -> Result<Protocol, String> {
    string(value)?.parse().map_err(|error: Unsupported| error.to_string())
}

pub(super) fn forwarding(value: &DeValue<'_>) -> Result<Forwarding, String> {
    string(value)?.parse().map_err(|error: Unsupported| error.to_string())
}

/// Whether a service hashes by source; the length of the prefix is a key of its own.
pub(super) fn hash_by_source(value: &DeValue<'_>) -> Result<bool, String> {
    match string(value)? {
        "flow" => Ok(false),
        "source" => Ok(true),
        other => Err(format!("`{other}` is not supported, expected `flow` or `source`")),
    }
}

pub(super) fn source_prefix(value: &DeValue<'_>) -> Result<u8, String> {
    integer(value, 1..=32)
}

pub(super) fn on_down(value: &DeValue<'_>) -> Result<OnDown, String> {
    string(value)?.parse().map_err(|error: Unsupported| error.to_string())
}

/// How long flows are kept, or may send nothing.
pub(super) fn flow_timeout(value: &DeValue<'_>) -> Result<Duration, String> {
    duration(value, TIMEOUTS)
}

pub(super) fn flow_table_size(value: &DeValue<'_>) -> Result<u32, String> {
    integer(value, FLOW_TABLE_SIZES)
}

pub(super) fn table_size(value: &DeValue<'_>) -> Result<u32, String> {
    let size: u32 = integer(value, TABLE_SIZES)?;
    if is_prime(size) {
        return Ok(size);
    }
    let nearest = (1..).find_map(|away| {
        [size - away, size + away]
            .into_iter()
            .find(|near| TABLE_SIZES.contains(near) && is_prime(*near))
    });
    Err(match nearest {
        Some(near) => format!("{size} is not a prime, the nearest is {near}"),
        None => format!("{size} is not a prime"),
    })
}

pub(super) fn real_server_address(value: &DeValue<'_>) -> Result<Ipv4Addr, String> {
    let text = string(value)?;
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        return Err(match text.parse::<SocketAddrV4>() {
            Ok(with_port) => format!(
                "`{text}` has a port, expected `{}`: `dr` does not change the port of a packet",
                with_port.ip()
            ),
            Err(_) if text.parse::<Ipv6Addr>().is_ok() || text.parse::<SocketAddrV6>().is_ok() => {
                format!("`{text}` is IPv6, which is not supported, expected IPv4")
            }
            Err(_) => format!("`{text}` is not an address, expected IPv4 such as `192.0.2.11`"),
        });
    };
    unicast(address, "real server")?;
    Ok(address)
}

pub(super) fn weight(value: &DeValue<'_>) -> Result<u16, String> {
    integer(value, 0..=u16::MAX)
}

/// Only to be judged: there is one version that we speak.
pub(super) fn vrrp_version(value: &DeValue<'_>) -> Result<(), String> {
    match integer(value, 2..=3u8)? {
        2 => Err("VRRP version 2 is not supported, expected 3".to_owned()),
        _ => Ok(()),
    }
}

/// 1 to 255: a VRID, or the priority of a virtual router.
pub(super) fn one_to_255(value: &DeValue<'_>) -> Result<NonZeroU8, String> {
    let number = integer(value, 1..=u8::MAX)?;
    NonZeroU8::new(number).ok_or_else(|| "0 is not in 1..=255".to_owned())
}

pub(super) fn advertisement_interval(value: &DeValue<'_>) -> Result<Duration, String> {
    let interval = duration(value, ADVERTISEMENT_INTERVALS)?;
    if !interval.as_nanos().is_multiple_of(10_000_000) {
        return Err(format!(
            "{} is not a whole number of centiseconds, expected a multiple of 10ms",
            humantime::format_duration(interval)
        ));
    }
    Ok(interval)
}

pub(super) fn preempt_delay(value: &DeValue<'_>) -> Result<Duration, String> {
    duration(value, PREEMPT_DELAYS)
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("expected true or false, {}", found(value)))
}

/// `ADDRESS/LENGTH`; a bare address is a /32, as in keepalived.
pub(super) fn vip(value: &DeValue<'_>) -> Result<Vip, String> {
    let text = string(value)?;
    let (address, prefix_len) = text.split_once('/').unwrap_or((text, "32"));
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return Err(if address.parse::<Ipv6Addr>().is_ok() {
            format!("`{text}` is IPv6, which is not supported, expected IPv4")
        } else {
            format!("`{text}` is not an address, expected IPv4/LENGTH such as `192.0.2.80/24`")
        });
    };
    let Some(prefix_len) = prefix_len.parse::<u8>().ok().filter(|len| (1..=32).contains(len))
    else {
        return Err(format!("prefix length `{prefix_len}` is not in 1..=32"));
    };
    unicast(address, "VIP")?;
    let host = address.to_bits() & u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
    // RFC 3021: a /31 has neither a network nor a broadcast address.
    if prefix_len < 31 && host == 0 {
        return Err(format!("`{text}` is the address of its network, expected one of a host"));
    }
    if prefix_len < 31 && host == u32::MAX >> prefix_len {
        return Err(format!(
            "`{text}` is the broadcast address of its network, expected one of a host"
        ));
    }
    Ok(Vip { address, prefix_len })
}

fn unicast(address: Ipv4Addr, role: &str) -> Result<(), String> {
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address.is_broadcast() {
        "the broadcast address"
    } else {
        return Ok(());
    };
    Err(format!("{address} is {kind} and cannot be a {role}"))
}

fn string<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("expected a string, {}", found(value)))
}

fn integer<T>(value: &DeValue<'_>, range: RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + std::fmt::Display,
{
    let written =
        value.as_integer().ok_or_else(|| format!("expected an integer, {}", found(value)))?;
    i128::from_str_radix(written.as_str(), written.radix())
        .ok()
        .and_then(|number| T::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("{written} is not in {}..={}", range.start(), range.end()))
}

fn duration(value: &DeValue<'_>, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let DeValue::String(text) = value else {
        return Err(format!("expected a string such as \"100ms\" or \"1s\", {}", found(value)));
    };
    let duration = humantime::parse_duration(text).map_err(|_| {
        format!("`{text}` is not a duration, expected one such as \"100ms\" or \"1s\"")
    })?;
    if !range.contains(&duration) {
        return Err(format!(
            "{text} is not in {}..={}",
            limit(*range.start()),
            limit(*range.end())
        ));
    }
    Ok(duration)
}

/// `40.95s`, `7days`.
fn limit(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        humantime::format_duration(duration).to_string()
    } else {
        format!("{duration:?}")
    }
}

fn is_prime(number: u32) -> bool {
    number > 1 && (2..).take_while(|n| n * n <= number).all(|n| !number.is_multiple_of(n))
}
