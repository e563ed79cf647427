//! What the operator sees: whole texts against exact faults.

use super::*;
use crate::service::{Forwarding, Hash, OnDown, Ports, Protocol, Tracking};

#[test]
fn a_file_with_only_what_is_needed_gets_the_defaults() {
    let config = load_valid(
        r#"
[director]
interfaces = ["eth0"]

[[virtual-service]]
name = "web"
address = "10.77.0.100:80"

[[virtual-service.real-server]]
address = "10.77.0.11"

[[virtual-router]]
name = "web-vip"
interface = "eth0"
vrid = 51
vips = ["10.77.0.100"]
"#,
    );
    assert_eq!(config.director.id, None);
    assert_eq!(config.director.xdp_mode, XdpMode::Auto);
    let service = &config.virtual_services[0];
    assert_eq!(service.protocol, Protocol::Tcp);
    assert_eq!(service.forwarding, Forwarding::Dr);
    assert_eq!(service.table_size, 65_537);
    assert_eq!(service.hash, Hash::Flow);
    let tracking = Tracking {
        on_down: OnDown::Rehash,
        drain_timeout: Duration::from_secs(3_600),
        idle_timeout: Duration::from_secs(900),
    };
    assert_eq!(service.tracking, Some(tracking));
    assert_eq!(config.director.flow_table_size, 65_536);
    assert_eq!(service.real_servers[0].weight, 1);
    let router = &config.virtual_routers[0];
    assert_eq!(router.priority.get(), 100);
    assert_eq!(router.advertisement_interval, Duration::from_secs(1));
    assert!(router.preempt);
    assert_eq!(router.preempt_delay, Duration::ZERO);
    assert_eq!(router.vips[0].to_string(), "10.77.0.100/32");
}

#[test]
fn every_value_reaches_the_configuration() {
    let config = load_valid(FULL);
    assert_eq!(config.director.id.as_deref(), Some("lb1"));
    assert_eq!(config.director.interfaces, ["eth0", "eth1"]);
    assert_eq!(config.director.xdp_mode, XdpMode::Generic);
    let [web, dns] = &config.virtual_services[..] else { panic!("two services") };
    assert_eq!((web.name.as_str(), web.table_size), ("web", 1_021));
    assert_eq!(web.real_servers.iter().map(|real| real.weight).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(web.hash, Hash::Source { prefix_len: 24 });
    let tracking = Tracking {
        on_down: OnDown::Reset,
        drain_timeout: Duration::from_secs(600),
        idle_timeout: Duration::from_secs(7 * 86_400),
    };
    assert_eq!(web.tracking, Some(tracking));
    assert_eq!(config.director.flow_table_size, 1_024);
    assert_eq!((dns.name.as_str(), dns.protocol), ("dns", Protocol::Udp));
    assert_eq!((dns.address.ports, dns.hash, dns.tracking), (Ports::Any, Hash::Flow, None));
    assert_eq!(dns.real_servers, []);
    let router = &config.virtual_routers[0];
    assert_eq!((router.vrid.get(), router.priority.get()), (51, 150));
    assert_eq!(router.advertisement_interval, Duration::from_millis(100));
    assert_eq!(router.preempt_delay, Duration::from_secs(2));
    assert_eq!(router.more_vips[0].to_string(), "10.78.0.1/32");
}

#[test]
fn services_alone_and_routers_alone_are_valid() {
    load_valid(
        "[director]\ninterfaces = [\"eth0\"]\n[[virtual-service]]\nname = \"web\"\naddress = \"192.0.2.80:80\"\n",
    );
    load_valid(
        "[[virtual-router]]\nname = \"vip\"\ninterface = \"eth0\"\nvrid = 1\nvips = [\"192.0.2.80/24\"]\n",
    );
}

#[test]
fn a_file_with_nothing_to_do_is_refused() {
    let want =
        "lb.toml:1:1: nothing to do: expected at least one virtual-service or virtual-router";
    check("", want);
    check("# nothing\n[director]\nid = \"lb1\"\n", want);
}

#[test]
fn a_syntax_error_is_one_fault_at_its_place() {
    check(
        "[[virtual-service]]\nname = web\n",
        "lb.toml:2:8: string values must be quoted, expected literal string",
    );
    check("[director]\nid = \"a\"\nid = \"b\"\n", "lb.toml:3:1: duplicate key");
}

#[test]
fn columns_count_characters() {
    check(
        "virtual-router = [{ name = \"äöü\", interface = \"eth0\", vrid = 0, vips = [\"192.0.2.1\"] }]\n",
        "lb.toml:1:28: virtual-router[0].name: `äöü` is not a name, expected 1 to 63 of letters, digits, `.`, `_` and `-`, a letter or digit first
lb.toml:1:62: virtual-router[0].vrid: 0 is not in 1..=255",
    );
}

#[test]
fn unknown_keys_are_faults_at_every_level_and_the_nearest_key_is_named() {
    check(
        r#"
verbose = true
[directr]
[[virtual-servce]]
[[virtual-router]]
name = "vip"
interface = "eth0"
vrid = 1
prio = 10
vips = ["192.0.2.1/24"]
"#,
        "lb.toml:2:1: unknown key `verbose`, expected one of `director`, `virtual-service`, `virtual-router`
lb.toml:3:2: unknown key `directr`, did you mean `director`?
lb.toml:4:3: unknown key `virtual-servce`, did you mean `virtual-service`?
lb.toml:9:1: virtual-router[0]: unknown key `prio`, expected one of `name`, `interface`, `version`, `vrid`, `priority`, `advertisement-interval`, `preempt`, `preempt-delay`, `vips`, `more-vips`",
    );
}

#[test]
fn values_of_a_wrong_type_do_not_hide_other_faults() {
    check(
        r#"
[director]
id = 1
interfaces = "eth0"
xdp-mode = "fast"

[[virtual-service]]
name = true
address = 80
protocol = "sctp"
forwarding = "ipip"
table-size = 65536
real-server = ["10.0.0.1", { address = "10.0.0.2:80", weight = 70000 }]

[[virtual-router]]
version = 2
vrid = 256
priority = 0
advertisement-interval = 1
preempt = "no"
preempt-delay = "soon"
vips = [1, "10.0.0.1/33", "10.0.0.0/24", "10.0.0.255/24", "localhost", "::1"]
"#,
        "lb.toml:3:6: director.id: expected a string, found an integer
lb.toml:4:14: director.interfaces: expected an array, found a string
lb.toml:5:12: director.xdp-mode: `fast` is not an XDP mode, expected `auto`, `native` or `generic`
lb.toml:8:8: virtual-service[0].name: expected a string, found a boolean
lb.toml:9:11: virtual-service[0].address: expected a string, found an integer
lb.toml:10:12: virtual-service[0].protocol: `sctp` is not supported, expected `tcp` or `udp`
lb.toml:11:14: virtual-service[0].forwarding: `ipip` is not supported, expected `dr`
lb.toml:12:14: virtual-service[0].table-size: 65536 is not a prime, the nearest is 65537
lb.toml:13:16: virtual-service[0].real-server[0]: expected a table, found a string
lb.toml:13:40: virtual-service[0].real-server[1].address: `10.0.0.2:80` has a port, expected `10.0.0.2`: `dr` does not change the port of a packet
lb.toml:13:64: virtual-service[0].real-server[1].weight: 70000 is not in 0..=65535
lb.toml:15:1: virtual-router[0]: `name` is missing
lb.toml:15:1: virtual-router[0]: `interface` is missing
lb.toml:16:11: virtual-router[0].version: VRRP version 2 is not supported, expected 3
lb.toml:17:8: virtual-router[0].vrid: 256 is not in 1..=255
lb.toml:18:12: virtual-router[0].priority: 0 is not in 1..=255
lb.toml:19:26: virtual-router[0].advertisement-interval: expected a string such as \"100ms\" or \"1s\", found an integer
lb.toml:20:11: virtual-router[0].preempt: expected true or false, found a string
lb.toml:21:17: virtual-router[0].preempt-delay: `soon` is not a duration, expected one such as \"100ms\" or \"1s\"
lb.toml:22:9: virtual-router[0].vips[0]: expected a string, found an integer
lb.toml:22:12: virtual-router[0].vips[1]: prefix length `33` is not in 1..=32
lb.toml:22:27: virtual-router[0].vips[2]: `10.0.0.0/24` is the address of its network, expected one of a host
lb.toml:22:42: virtual-router[0].vips[3]: `10.0.0.255/24` is the broadcast address of its network, expected one of a host
lb.toml:22:59: virtual-router[0].vips[4]: `localhost` is not an address, expected IPv4/LENGTH such as `192.0.2.80/24`
lb.toml:22:72: virtual-router[0].vips[5]: `::1` is IPv6, which is not supported, expected IPv4",
    );
}

#[test]
fn a_service_address_must_be_one_that_can_be_served() {
    for (address, problem) in [
        ("10.0.0.1:0", "port 0 is not in 1..=65535"),
        ("10.0.0.1", "`10.0.0.1` has no port, expected `10.0.0.1:PORT`"),
        ("[::1]:80", "`[::1]:80` is IPv6, which is not supported, expected IPv4"),
        ("web:80", "`web:80` is not an address, expected IPv4:PORT such as `192.0.2.80:80`"),
        ("10.0.0.1:65536", "port 65536 is not in 1..=65535"),
        (
            "10.0.0.1:http",
            "`http` is not a port, expected one such as `80`, a range such as `5000-5999`, or `any`",
        ),
        ("10.0.0.1:81-80", "`81-80` is not a range of ports, expected the first below the last"),
        ("0.0.0.0:any", "0.0.0.0 is the unspecified address and cannot be a VIP"),
        ("0.0.0.0:80", "0.0.0.0 is the unspecified address and cannot be a VIP"),
        ("127.0.0.1:80", "127.0.0.1 is a loopback address and cannot be a VIP"),
        ("224.0.0.18:80", "224.0.0.18 is a multicast address and cannot be a VIP"),
        ("255.255.255.255:80", "255.255.255.255 is the broadcast address and cannot be a VIP"),
    ] {
        check(
            &format!("{DIRECTOR}[[virtual-service]]\nname = \"web\"\naddress = \"{address}\"\n"),
            &format!("lb.toml:5:11: virtual-service[0].address: {problem}"),
        );
    }
}

#[test]
fn of_services_with_the_same_port_the_narrowest_takes_it_and_equal_widths_are_faults() {
    let services = |addresses: &[&str]| {
        let service = |(i, address): (usize, &&str)| {
            let (address, protocol) = address.split_once('/').unwrap_or((address, "tcp"));
            format!(
                "[[virtual-service]]\nname = \"s{i}\"\naddress = \"{address}\"\nprotocol = \"{protocol}\"\n"
            )
        };
        DIRECTOR.to_owned() + &addresses.iter().enumerate().map(service).collect::<String>()
    };
    load_valid(&services(&[
        "10.0.0.100:80",
        "10.0.0.100:1-65535",
        "10.0.0.100:any",
        "10.0.0.100:any/udp",
        "10.0.0.100:50-99/udp",
        "10.0.0.100:100-149/udp",
        "10.0.0.100:1-49/udp",
        "10.0.0.101:any",
    ]));
    check(
        &services(&[
            "10.0.0.100:5000-5999",
            "10.0.0.100:5999-6000",
            "10.0.0.100:4000-5000",
            "10.0.0.100:5100-5200",
            "10.0.0.100:1-65535",
            "10.0.0.100:5000-5999",
            "10.0.0.100:any",
            "10.0.0.100:any",
            "10.0.0.100:6000-6001",
        ]),
        "lb.toml:9:11: virtual-service[1].address: 10.0.0.100:5999-6000/tcp overlaps 10.0.0.100:5000-5999, virtual-service[0]
lb.toml:13:11: virtual-service[2].address: 10.0.0.100:4000-5000/tcp overlaps 10.0.0.100:5000-5999, virtual-service[0]
lb.toml:17:11: virtual-service[3].address: 10.0.0.100:5100-5200/tcp overlaps 10.0.0.100:5000-5999, virtual-service[0]
lb.toml:21:11: virtual-service[4].address: 10.0.0.100:1-65535/tcp overlaps 10.0.0.100:5000-5999, virtual-service[0]
lb.toml:25:11: virtual-service[5].address: 10.0.0.100:5000-5999/tcp is already virtual-service[0]
lb.toml:33:11: virtual-service[7].address: 10.0.0.100:any/tcp is already virtual-service[6]",
    );
}

#[test]
fn what_has_no_effect_is_a_fault() {
    let service = |address: &str, options: &str| {
        format!("{DIRECTOR}[[virtual-service]]\nname = \"web\"\naddress = \"{address}\"\n{options}")
    };
    check(
        &service(
            "10.0.0.100:80",
            "source-prefix = 24\ntracking = false\non-down = \"rehash\"\ndrain-timeout = \"1h\"\nidle-timeout = \"1m\"\n",
        ),
        "lb.toml:6:17: virtual-service[0].source-prefix: has no effect without `hash = \"source\"`
lb.toml:8:11: virtual-service[0].on-down: has no effect with `tracking = false`
lb.toml:9:17: virtual-service[0].drain-timeout: has no effect with `tracking = false`
lb.toml:10:16: virtual-service[0].idle-timeout: has no effect with `tracking = false`",
    );
    check(
        &service("10.0.0.100:53", "protocol = \"udp\"\nidle-timeout = \"1m\"\n"),
        "lb.toml:7:16: virtual-service[0].idle-timeout: has no effect without `tracking = true`, which a udp service needs",
    );
    check(
        &service("10.0.0.100:53", "protocol = \"udp\"\ntracking = true\non-down = \"reset\"\n"),
        "lb.toml:8:11: virtual-service[0].on-down: udp has no reset, expected `rehash`",
    );
    let udp = service("10.0.0.100:53", "protocol = \"udp\"\ntracking = true\n");
    let tracking = load_valid(&udp).virtual_services[0].tracking;
    assert_eq!(tracking.map(|it| it.idle_timeout), Some(Duration::from_secs(300)));
}

#[test]
fn options_of_flows_have_their_ranges() {
    check(
        r#"[director]
interfaces = ["eth0"]
flow-table-size = 1000
[[virtual-service]]
name = "web"
address = "10.0.0.100:80"
hash = "client"
source-prefix = 33
tracking = 1
on-down = "drop"
drain-timeout = "8d"
idle-timeout = "500ms"
"#,
        "lb.toml:3:19: director.flow-table-size: 1000 is not in 1024..=4194304
lb.toml:7:8: virtual-service[0].hash: `client` is not supported, expected `flow` or `source`
lb.toml:8:17: virtual-service[0].source-prefix: 33 is not in 1..=32
lb.toml:9:12: virtual-service[0].tracking: expected true or false, found an integer
lb.toml:10:11: virtual-service[0].on-down: `drop` is not supported, expected `rehash` or `reset`
lb.toml:11:17: virtual-service[0].drain-timeout: 8d is not in 1s..=7days
lb.toml:12:16: virtual-service[0].idle-timeout: 500ms is not in 1s..=7days",
    );
}

#[test]
fn an_advertisement_interval_is_in_centiseconds_that_fit_the_packet() {
    for (interval, problem) in [
        ("9ms", "9ms is not in 10ms..=40.95s"),
        ("41s", "41s is not in 10ms..=40.95s"),
        ("0s", "0s is not in 10ms..=40.95s"),
        ("15ms", "15ms is not a whole number of centiseconds, expected a multiple of 10ms"),
        ("1", "`1` is not a duration, expected one such as \"100ms\" or \"1s\""),
    ] {
        check(
            &format!("{ROUTER}advertisement-interval = \"{interval}\"\n"),
            &format!("lb.toml:6:26: virtual-router[0].advertisement-interval: {problem}"),
        );
    }
    for (interval, millis) in [("10ms", 10), ("40950ms", 40_950), ("1s 500ms", 1_500)] {
        let config = load_valid(&format!("{ROUTER}advertisement-interval = \"{interval}\"\n"));
        let want = Duration::from_millis(millis);
        assert_eq!(config.virtual_routers[0].advertisement_interval, want);
    }
}

#[test]
fn what_must_be_unique_names_the_first_that_has_it() {
    check(
        r#"
[director]
interfaces = ["eth0", "eth0"]
[[virtual-service]]
name = "web"
address = "10.0.0.100:80"
[[virtual-service.real-server]]
address = "10.0.0.1"
[[virtual-service.real-server]]
address = "10.0.0.1"
[[virtual-service]]
name = "web"
address = "10.0.0.100:80"
[[virtual-service]]
name = "udp"
address = "10.0.0.100:80"
protocol = "udp"
[[virtual-router]]
name = "vip"
interface = "eth0"
vrid = 51
vips = ["10.0.0.100/24"]
[[virtual-router]]
name = "vip"
interface = "eth0"
vrid = 51
vips = ["10.0.0.101/24", "10.0.0.100/24"]
more-vips = ["10.0.0.101/24"]
[[virtual-router]]
name = "other"
interface = "eth1"
vrid = 51
vips = ["10.0.1.1/24"]
"#,
        "lb.toml:3:23: director.interfaces[1]: `eth0` is already director.interfaces[0]
lb.toml:10:11: virtual-service[0].real-server[1].address: 10.0.0.1 is already virtual-service[0].real-server[0]
lb.toml:12:8: virtual-service[1].name: `web` is already virtual-service[0]
lb.toml:13:11: virtual-service[1].address: 10.0.0.100:80/tcp is already virtual-service[0]
lb.toml:24:8: virtual-router[1].name: `vip` is already virtual-router[0]
lb.toml:26:8: virtual-router[1].vrid: VRID 51 on eth0 is already virtual-router[0]
lb.toml:27:26: virtual-router[1].vips[1]: 10.0.0.100 is already virtual-router[0].vips[0]
lb.toml:28:14: virtual-router[1].more-vips[0]: 10.0.0.101 is already virtual-router[1].vips[0]",
    );
}

#[test]
fn a_real_server_is_no_vip_and_can_be_sent_to() {
    check(
        r#"
[director]
interfaces = ["eth0"]
[[virtual-service]]
name = "web"
address = "10.0.0.100:80"
real-server = [
  { address = "10.0.0.100" },
  { address = "10.0.0.101" },
  { address = "10.0.0.102" },
  { address = "0.0.0.0" },
  { address = "10.0.0.1", weight = -1 },
]
[[virtual-service]]
name = "dns"
address = "10.0.0.101:53"
[[virtual-router]]
name = "vip"
interface = "eth0"
vrid = 51
vips = ["10.0.0.102/24"]
"#,
        "lb.toml:8:15: virtual-service[0].real-server[0].address: 10.0.0.100 is the VIP of this service, expected another address
lb.toml:9:15: virtual-service[0].real-server[1].address: 10.0.0.101 is the VIP of virtual-service[1], expected another address
lb.toml:10:15: virtual-service[0].real-server[2].address: 10.0.0.102 is the VIP of virtual-router[0].vips[0], expected another address
lb.toml:11:15: virtual-service[0].real-server[3].address: 0.0.0.0 is the unspecified address and cannot be a real server
lb.toml:12:36: virtual-service[0].real-server[4].weight: -1 is not in 0..=65535",
    );
}

#[test]
fn a_service_needs_interfaces() {
    let service = "[[virtual-service]]\nname = \"web\"\naddress = \"192.0.2.80:80\"\n";
    check(service, "lb.toml:1:1: virtual-service[0]: needs `interfaces` in [director]");
    check(
        &format!("[director]\nid = \"lb1\"\n{service}"),
        "lb.toml:1:1: director.interfaces: expected at least one interface, as there is virtual-service[0]",
    );
    check(
        &format!("[director]\ninterfaces = []\n{service}"),
        "lb.toml:2:14: director.interfaces: expected at least one interface, as there is virtual-service[0]",
    );
}

#[test]
fn a_table_with_the_wrong_number_of_brackets_is_explained() {
    check(
        "[[director]]\n[virtual-router]\nname = \"vip\"\n",
        "lb.toml:1:1: director: expected a table, written `[director]`, found an array
lb.toml:2:1: virtual-router: expected a list of tables, each written `[[virtual-router]]`, found a table",
    );
}

#[test]
fn a_router_needs_vips_and_a_preempt_delay_needs_preempt() {
    let router = "[[virtual-router]]\nname = \"vip\"\ninterface = \"eth0\"\nvrid = 1\n";
    check(router, "lb.toml:1:1: virtual-router[0]: `vips` is missing");
    check(
        &format!("{router}vips = []\n"),
        "lb.toml:5:8: virtual-router[0].vips: expected at least one VIP",
    );
    check(
        &format!("{ROUTER}preempt = false\npreempt-delay = \"2s\"\n"),
        "lb.toml:7:17: virtual-router[0].preempt-delay: has no effect with `preempt = false`, expected one of the two",
    );
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_load_panic(text in "\\PC{0,200}") {
            let _ = load(Path::new("lb.toml"), &text);
        }

        #[test]
        fn no_mutation_of_a_valid_file_makes_load_panic(
            at in 0..FULL.len(), remove in 0usize..40, insert in "[\\x00-\\x7fäß\u{feff}]{0,12}",
        ) {
            let end = (at + remove).min(FULL.len());
            let text = [&FULL[..at], &insert, &FULL[end..]].concat();
            if let Err(errors) = load(Path::new("lb.toml"), &text) {
                prop_assert!(!errors.faults().is_empty());
                for fault in errors.faults() {
                    prop_assert!(fault.line <= text.matches('\n').count() + 1, "{fault:?}");
                    prop_assert!(!fault.problem.is_empty());
                }
            }
        }

        /// Values of every type, at every key, in and out of range.
        #[test]
        fn no_value_makes_load_panic(line in 0usize..60, value in VALUES) {
            let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
            let line = line % lines.len();
            if let Some((key, _)) = lines[line].split_once('=') {
                lines[line] = format!("{key}= {value}");
            }
            let _ = load(Path::new("lb.toml"), &lines.join("\n"));
        }
    }

    const VALUES: &str = "-?[0-9]{1,30}|0x[0-9a-f]{1,20}|\"[0-9.:/]{0,20}\"|\"[0-9]{1,25}(ms|s|h)\"\
        |true|inf|[0-9]\\.[0-9]|1979-05-27|\\[\\]|\\{\\}|\\[\"[0-9./]{0,16}\", 1\\]";
}

const DIRECTOR: &str = "[director]\ninterfaces = [\"eth0\"]\n";
const ROUTER: &str = "[[virtual-router]]\nname = \"vip\"\ninterface = \"eth0\"\nvrid = 1\nvips = [\"192.0.2.1/24\"]\n";

/// ASCII, so that a mutation may cut it anywhere.
const FULL: &str = r#"# One of two directors.
[director]
id = "lb1"
interfaces = ["eth0", "eth1"]
xdp-mode = "generic"
flow-table-size = 1024

[[virtual-service]]
name = "web"
address = "10.77.0.100:80"
protocol = "tcp"
forwarding = "dr"
hash = "source"
source-prefix = 24
table-size = 1021
tracking = true
on-down = "reset"
drain-timeout = "10m"
idle-timeout = "7d"

[[virtual-service.real-server]]
address = "10.77.0.11"
weight = 2

[[virtual-service.real-server]]
address = "10.77.0.12"
weight = 0

[[virtual-service]]
name = "dns"
address = "10.77.0.100:any"
protocol = "udp"
real-server = []

[[virtual-router]]
name = "web-vip"
interface = "eth0"
version = 3
vrid = 51
priority = 150
advertisement-interval = "100ms"
preempt = true
preempt-delay = "2s"
vips = ["10.77.0.100/24"]
more-vips = ["10.78.0.1"]
"#;

#[track_caller]
fn load_valid(text: &str) -> Config {
    load(Path::new("lb.toml"), text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(load(Path::new("lb.toml"), text).unwrap_err().to_string(), want);
}
