//! What a verb that succeeds prints, and changes.

use serde_json::{Value, json};

use crate::fake::Fake;

#[test]
fn status_reads_at_a_glance() {
    assert_eq!(
        Fake::start().prints(&["status"]),
        "\
warning: eth1 runs generic XDP, which is slow

director lb1: lbd 0.1.0, pid 4242, up 3m 12s
config /etc/lbd/lbd.toml
maps 14.2 MiB: tables 1.0 MiB, services 2.5 MiB, flow table 10.0 MiB, counters 716.8 KiB
exceptions 12 of 65,536
changes in progress web

INTERFACE  XDP      REASON
eth0       native   -
eth1       generic  the driver has no native XDP

SERVICE  ADDRESS             MODE  FORWARDS            READY  SLOTS  TABLE
web      10.77.0.100:80/tcp  dr    yes                   1/2  65537  0123456789abcdef
dns      10.77.0.100:53/udp  dr    no: no real server    0/0  65537  0123456789abcdef

VIRTUAL ROUTER  STATE     FOR  ACTIVE ROUTER  CAUSE
web-vip         active  1m 1s  this one       no advertisement for 341 ms
dns-vip         backup  1m 1s  10.77.0.2      no advertisement for 341 ms

VERDICT      PACKETS
forwarded  1,234,567
not-ours          89
"
    );
}

#[test]
fn status_puts_a_refused_reload_on_top() {
    let fake = Fake::start();
    fake.control.status.lock().unwrap().config.refused =
        Some("lbd.toml:1:1: one\nlbd.toml:2:1: two".to_owned());
    let printed = fake.prints(&["status"]);
    assert!(
        printed.starts_with(
            "\
warning: the last reload was refused, what ran before runs on:
  lbd.toml:1:1: one
  lbd.toml:2:1: two
warning: eth1"
        ),
        "{printed}"
    );
}

#[test]
fn lists_are_tables_with_numbers_to_the_right() {
    let fake = Fake::start();
    assert_eq!(
        fake.prints(&["service", "list"]),
        "\
SERVICE  ADDRESS             MODE  FORWARDS            READY  SLOTS  TABLE
web      10.77.0.100:80/tcp  dr    yes                   1/2  65537  0123456789abcdef
dns      10.77.0.100:53/udp  dr    no: no real server    0/0  65537  0123456789abcdef
"
    );
    let reals = "\
SERVICE  REAL SERVER  WEIGHT  STATE    SHARE  NEIGHBOUR   MAC                INTERFACE
web      10.77.0.11        1  active  25.0 %  ready       02:00:00:00:00:0b  eth0
web      10.77.0.12        3  active  75.0 %  unresolved  -                  eth0
";
    assert_eq!(fake.prints(&["real", "list"]), reals);
    assert_eq!(fake.prints(&["real", "list", "web"]), reals);
    assert_eq!(
        fake.prints(&["real", "list", "dns"]),
        "no real servers: add one with `lbctl real add`\n"
    );
}

#[test]
fn a_director_without_a_datapath_has_no_lines_about_one() {
    let fake = Fake::start();
    {
        let mut status = fake.control.status.lock().unwrap();
        (status.memory, status.exceptions) = Default::default();
        status.virtual_services.clear();
        status.interfaces.clear();
    }
    let printed = fake.prints(&["status"]);
    assert!(printed.contains("config /etc/lbd/lbd.toml\n\nVIRTUAL ROUTER"), "{printed}");
}

#[test]
fn service_show_is_one_screen() {
    let fake = Fake::start();
    fake.prints(&["real", "add", "web", "10.77.0.13", "--weight", "0"]);
    assert_eq!(
        fake.prints(&["service", "show", "web"]),
        "\
service    web, 10.77.0.100:80/tcp, dr
forwards   yes
hash       flow: addresses, ports and protocol
tracking   on-down rehash, drain-timeout 1h, idle-timeout 15m
table      65,537 slots, digest 0123456789abcdef, shared with 2 other services
deviation  < 0.01 % (the largest of a share from the exact one)
moved      656 slots (1.00 %) by the last change
change     656 slots had another owner, 12 newer flows noted; since 40s, for 59m 20s at most
traffic    3,000 packets, 3.8 MB, 30 new flows

REAL SERVER  WEIGHT  STATE       SHARE    EXACT  KEPT  NOTED  NEIGHBOUR   PACKETS
10.77.0.11        1  active    25.00 %  25.00 %   656      0  ready         1,000
10.77.0.12        3  active    75.00 %  75.00 %     0     12  unresolved    2,000
10.77.0.13        0  draining   0.00 %   0.00 %     0     12  unresolved    3,000
PACKETS of a real server are those of all its services.
"
    );
    assert_eq!(
        fake.prints(&["service", "show", "dns"]),
        "\
service    dns, 10.77.0.100:53/udp, dr
forwards   no: no real server
hash       flow: addresses, ports and protocol
tracking   off: when real servers change, flows follow the table at once
table      65,537 slots, digest 0123456789abcdef
deviation  0.00 % (the largest of a share from the exact one)
change     none in progress
traffic    3,000 packets, 3.8 MB
"
    );
}

#[test]
fn service_show_of_the_largest_numbers_fits_the_screen() {
    let fake = Fake::start();
    let name = "a-name.of.sixty-three.characters.which-is-the-longest-there-can-be1";
    let name = &name[..63];
    let address = "203.113.255.100:60000-65535";
    fake.prints(&[
        "service",
        "add",
        name,
        "--address",
        address,
        "--hash",
        "source",
        "--source-prefix",
        "24",
    ]);
    fake.prints(&["real", "add", name, "203.113.255.101", "--weight", "65535"]);
    for arguments in [
        &["service", "show", name][..],
        &["stats"],
        &["real", "list"],
        &["flow", "explain", "--src", "203.113.255.101:65535", "--dst", "203.113.255.100:80"],
    ] {
        let printed = fake.prints(arguments);
        let widest = printed.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{printed}");
    }
}

#[test]
fn flow_explain_reads_from_top_to_bottom() {
    let fake = Fake::start();
    let explain = |more: &[&str]| {
        let arguments = ["flow", "explain", "--src", "10.77.0.1:40000", "--dst"];
        fake.prints(&[&arguments, more].concat())
    };
    assert_eq!(
        explain(&["10.77.0.100:80", "--proto", "tcp"]),
        "\
flow         10.77.0.1:40000 to 10.77.0.100:80/tcp, no SYN, in by eth0
service      web, active on this director, hash flow
slot         4,711
current      10.77.0.12
previous     10.77.0.11
real server  10.77.0.11
why          the flow is older than the change
mode         dr, MTU 1500
neighbour    02:00:00:00:00:0b on eth0, ready
verdict      forwarded: transmitted
"
    );
    let opening = explain(&["10.77.0.100:80", "--opening"]);
    assert!(opening.contains("real server  10.77.0.12\n"), "{opening}");
    assert_eq!(
        explain(&["10.77.0.100:53", "--proto", "udp", "--interface", "eth1"]),
        "\
warning: in by eth0 or eth1
flow     10.77.0.1:40000 to 10.77.0.100:53/udp, a packet, in by eth1
service  none
why      no service has it
verdict  not-virtual-service: passed to the kernel
"
    );
}

#[test]
fn vrrp_show_has_state_settings_and_counters() {
    assert_eq!(
        Fake::start().prints(&["vrrp", "show"]),
        "\
VIRTUAL ROUTER  STATE     FOR  ACTIVE ROUTER  CAUSE
web-vip         active  1m 1s  this one       no advertisement for 341 ms
dns-vip         backup  1m 1s  10.77.0.2      no advertisement for 341 ms

VIRTUAL ROUTER  INTERFACE  VRID  PRIORITY  INTERVAL  VIPS
web-vip         eth0         51       150    100 ms  10.77.0.100/24
dns-vip         eth0         52       150    100 ms  10.77.0.100/24

VIRTUAL ROUTER  TRANSITIONS   SENT  RECEIVED  DISCARDED
web-vip                   2  1,610         3  7 ttl
dns-vip                   2  1,610         3  7 ttl
"
    );
}

#[test]
fn every_list_is_json_when_asked() {
    let fake = Fake::start();
    let status = json(&fake, &["status", "-o", "json"]);
    assert_eq!(status["virtual_services"][1]["forwards"], "no-real-server");
    assert_eq!(status["verdicts"]["truncated"], 0);
    let services = json(&fake, &["-o", "json", "service", "list"]);
    assert_eq!(services[0]["address"], "10.77.0.100:80");
    let reals = json(&fake, &["real", "list", "-o", "json", "web"]);
    assert_eq!(reals[1]["neighbour"], "unresolved");
    assert_eq!(reals[1]["mac"], Value::Null);
    let detail = json(&fake, &["service", "show", "web", "-o", "json"]);
    assert_eq!(detail["service"]["hash"], "flow");
    assert_eq!(detail["service"]["change"]["ends_in_ms"], 3_560_000);
    assert_eq!(detail["service"]["tracking"]["on_down"], "rehash");
    assert_eq!(detail["real_servers"][1]["address"], "10.77.0.12");
    assert_eq!(detail["real_servers"][1]["counters"]["packets"], 2_000);
    let explained = json(
        &fake,
        &["flow", "explain", "--src", "10.0.0.1:1", "--dst", "10.77.0.100:80", "-o", "json"],
    );
    assert_eq!(explained["choice"], "previous");
    assert_eq!(explained["packet"], "other");
    assert_eq!(explained["previous"], json!({"address": "10.77.0.11", "down": false}));
    let routers = json(&fake, &["vrrp", "show", "-o", "json"]);
    assert_eq!(routers[1]["active_router"], "10.77.0.2");
}

#[test]
fn changes_print_one_line_and_are_made() {
    let fake = Fake::start();
    for (arguments, printed, before, after) in [
        (
            &["real", "add", "web", "10.77.0.14", "--weight", "2"][..],
            "added 10.77.0.14 (weight 2) to web\n",
            0,
            "address = \"10.77.0.14\"\nweight = 2\n",
        ),
        (
            &["real", "set", "web", "10.77.0.14", "--weight", "0"],
            "set 10.77.0.14 of web to weight 0\n",
            0,
            "address = \"10.77.0.14\"\nweight = 0\n",
        ),
        (
            &["service", "add", "ssh", "--address", "10.77.0.100:22"],
            "added ssh (10.77.0.100:22/tcp, dr)\n",
            0,
            "name = \"ssh\"\naddress = \"10.77.0.100:22\"\nprotocol = \"tcp\"\nforwarding = \"dr\"\n",
        ),
        (
            &[
                "service",
                "add",
                "ftp",
                "--address",
                "10.77.0.100:5000-5999",
                "--hash",
                "source",
                "--source-prefix",
                "24",
                "--table-size",
                "1021",
            ],
            "added ftp (10.77.0.100:5000-5999/tcp, dr)\n",
            0,
            "forwarding = \"dr\"\nhash = \"source\"\nsource-prefix = 24\ntable-size = 1021\n",
        ),
        (
            &["service", "add", "all", "--address", "10.77.0.100:any", "--hash", "source"],
            "added all (10.77.0.100:any/tcp, dr)\n",
            0,
            "address = \"10.77.0.100:any\"\nprotocol = \"tcp\"\nforwarding = \"dr\"\nhash = \"source\"\n",
        ),
    ] {
        assert_eq!(fake.text().matches(after).count(), before);
        assert_eq!(fake.prints(arguments), printed);
        assert_eq!(fake.text().matches(after).count(), 1, "{}", fake.text());
    }
    assert_eq!(
        fake.prints(&["real", "delete", "web", "10.77.0.14"]),
        "deleted 10.77.0.14 from web\n"
    );
    assert!(!fake.text().contains("10.77.0.14"));
    assert_eq!(fake.prints(&["service", "delete", "ssh"]), "deleted ssh and its real servers\n");
    assert!(!fake.text().contains("ssh"));
    assert_eq!(
        fake.prints(&["config", "reload"]),
        "reloaded: what the configuration file says now runs\n"
    );
}

#[test]
fn changes_are_json_when_asked() {
    let fake = Fake::start();
    assert_eq!(
        json(&fake, &["real", "add", "web", "10.77.0.14", "-o", "json"]),
        json!({"edit": "add-real-server", "service": "web", "address": "10.77.0.14", "weight": 1})
    );
    assert_eq!(
        json(&fake, &["service", "delete", "dns", "-o", "json"]),
        json!({"edit": "delete-service", "name": "dns"})
    );
    assert_eq!(json(&fake, &["config", "reload", "-o", "json"]), json!({"reloaded": true}));
}

fn json(fake: &Fake, arguments: &[&str]) -> Value {
    serde_json::from_str(&fake.prints(arguments)).unwrap()
}
