//! What a comparison found out, as people's scripts read it.

use serde::Serialize;

use crate::bench::report::spread;

/// The comparison as JSON has it: fields are added, never renamed.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub kernel: String,
    pub systems: Vec<System>,
}

/// One way to bring packets to real servers. What does not apply to it is `None`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct System {
    pub name: &'static str,
    /// Nanoseconds per packet, the generator's and the links' part included.
    pub cpu_ns_per_packet: Option<Spread>,
    /// Packets that were sent and did not arrive, of all.
    pub packets_lost: Option<f64>,
    pub connections_per_second: Option<Spread>,
    /// From the client, through the director.
    pub upload_gbit_per_s: Option<Spread>,
    /// To the client; with DR, past the director.
    pub download_gbit_per_s: Option<Spread>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Rounded to `digits` after the point.
    pub(super) fn of(values: &[f64], digits: i32) -> Option<Self> {
        let scale = 10_f64.powi(digits);
        let [min, median, max] = spread(values)?.map(|value| (value * scale).round() / scale);
        Some(Self { min, median, max })
    }
}

impl System {
    /// What `other`, of the same name, knows of it.
    pub(super) fn add(&mut self, other: Self) {
        self.cpu_ns_per_packet = self.cpu_ns_per_packet.or(other.cpu_ns_per_packet);
        self.packets_lost = self.packets_lost.or(other.packets_lost);
        self.connections_per_second = self.connections_per_second.or(other.connections_per_second);
        self.upload_gbit_per_s = self.upload_gbit_per_s.or(other.upload_gbit_per_s);
        self.download_gbit_per_s = self.download_gbit_per_s.or(other.download_gbit_per_s);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_fields_that_others_read() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&example()).unwrap());
    }

    pub(in crate::bench::compare) fn example() -> Comparison {
        let of = |median| Spread::of(&[median * 0.9, median, median * 1.1], 2);
        let packets = System {
            name: "dr",
            cpu_ns_per_packet: of(300.0),
            packets_lost: Some(0.0),
            ..System::default()
        };
        let connections = System {
            name: "dr",
            connections_per_second: of(20_000.0),
            upload_gbit_per_s: of(4.0),
            download_gbit_per_s: of(5.0),
            ..System::default()
        };
        let mut both = packets;
        both.add(connections.clone());
        let proxy = System { name: "nginx-stream", ..connections };
        Comparison { kernel: "6.18".to_owned(), systems: vec![both, proxy] }
    }
}
