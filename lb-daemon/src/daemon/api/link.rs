//! The interface by which a packet that is to be explained comes in.

use std::io;

use futures_util::TryStreamExt;
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::Handle;

use super::failed;
use crate::control::{Refusal, RefusalKind};

/// An interface of the director.
pub(in crate::daemon) struct Link {
    pub(in crate::daemon) name: String,
    pub(in crate::daemon) index: u32,
    pub(in crate::daemon) mac: [u8; 6],
    pub(in crate::daemon) mtu: Option<u32>,
    /// How many others the packet could have come in by, if none was named.
    pub(in crate::daemon) others: usize,
}

/// The one that is `named`, else the first.
pub(super) async fn find(interfaces: &[String], named: Option<&str>) -> Result<Link, Refusal> {
    let name = match named {
        Some(name) => interfaces.iter().find(|interface| *interface == name).ok_or_else(|| {
            let known = interfaces.join("`, `");
            let message = format!("`{name}` is no interface of the director, expected `{known}`");
            Refusal::new(RefusalKind::NotFound, message)
        })?,
        None => interfaces.first().ok_or_else(|| {
            let message = "there is no virtual service, so no packet is looked at";
            Refusal::new(RefusalKind::NotFound, message)
        })?,
    };
    let others = if named.is_some() { 0 } else { interfaces.len() - 1 };
    let read = async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let link = read(&handle, name).await.map_err(io::Error::other);
        connection.abort();
        link
    };
    let found = read.await.map_err(|error| failed(format!("look for {name}: {error}")))?;
    let link = found.ok_or_else(|| failed(format!("{name}: no such interface")))?;
    Ok(Link { others, ..link })
}

/// Not from /sys, which shows the namespace that it was mounted in.
async fn read(handle: &Handle, name: &str) -> Result<Option<Link>, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let Some(link) = links.try_next().await? else { return Ok(None) };
    let (mut mac, mut mtu) = ([0; 6], None);
    for attribute in link.attributes {
        if let LinkAttribute::Address(bytes) = attribute {
            mac = bytes.try_into().unwrap_or_default();
        } else if let LinkAttribute::Mtu(bytes) = attribute {
            mtu = Some(bytes);
        }
    }
    Ok(Some(Link { name: name.to_owned(), index: link.header.index, mac, mtu, others: 0 }))
}
