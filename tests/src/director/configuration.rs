//! The configuration file of a director of the lab.

use std::time::Duration;

use crate::lab::{POOL, PORT, VIP};

/// How the virtual router is configured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub priority: u8,
    pub advertisement_interval: Duration,
}

/// The VIP and the virtual service of the lab.
pub fn configuration(id: &str, settings: Settings) -> String {
    let mut text = format!(
        r#"[director]
id = "{id}"
interfaces = ["eth0"]

[[virtual-router]]
name = "web-vip"
interface = "eth0"
vrid = 51
priority = {priority}
advertisement-interval = "{interval}ms"
vips = ["{VIP}/24"]

[[virtual-service]]
name = "web"
address = "{VIP}:{PORT}"
protocol = "tcp"
forwarding = "dr"
"#,
        priority = settings.priority,
        interval = settings.advertisement_interval.as_millis(),
    );
    for address in POOL {
        text.push_str(&format!("\n[[virtual-service.real-server]]\naddress = \"{address}\"\n"));
    }
    text
}
