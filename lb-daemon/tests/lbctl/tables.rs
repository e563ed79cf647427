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
SERVICE  REAL SERVER  WEIGHT   SHARE  NEIGHBOUR   MAC                INTERFACE
web      10.77.0.11        1  25.0 %  ready       02:00:00:00:00:0b  eth0
web      10.77.0.12        3  75.0 %  unresolved  -                  eth0
";
    assert_eq!(fake.prints(&["real", "list"]), reals);
    assert_eq!(fake.prints(&["real", "list", "web"]), reals);
    assert_eq!(
        fake.prints(&["real", "list", "dns"]),
        "no real servers: add one with `lbctl real add`\n"
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
