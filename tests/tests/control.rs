//! A running director under the hands of its operator: edits, reloads and files that are wrong.
//! Needs root, and the programs of this workspace: `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, fs, net::SocketAddrV4, process::Output, time::Duration};

use lb_daemon::control::RealServer as RealServerView;
use tests::{
    director::{Binaries, Director, Settings},
    interrupt::wait_for,
    lab::{Lab, PORT, VIP},
    real_server::RealServer,
    traffic::{Load, LoadReport},
};

const TARGET: SocketAddrV4 = SocketAddrV4::new(VIP, PORT);
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn real_servers_are_added_weighted_and_deleted_while_traffic_flows() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = active_director(&lab);
    let text = fs::read_to_string(director.config_file()).unwrap();
    fs::write(director.config_file(), format!("# kept by the night shift\n{text}")).unwrap();
    done(&director, &["config", "reload"]);

    done(&director, &["real", "delete", "web", "10.77.0.13"]);
    let flows = flows(&lab);
    assert_eq!(flows.keys().map(String::as_str).collect::<Vec<_>>(), ["rs1", "rs2"]);

    done(&director, &["real", "add", "web", "10.77.0.13", "--weight", "2"]);
    let shares = shares(&director);
    assert_eq!(shares, [("10.77.0.11", 25), ("10.77.0.12", 25), ("10.77.0.13", 50)].map(named));
    let flows = self::flows(&lab);
    assert!(flows["rs3"] > flows["rs1"] && flows["rs3"] > flows["rs2"], "{flows:?}");

    done(&director, &["real", "set", "web", "10.77.0.13", "--weight", "0"]);
    let flows = self::flows(&lab);
    assert_eq!(flows.keys().map(String::as_str).collect::<Vec<_>>(), ["rs1", "rs2"]);

    let text = fs::read_to_string(director.config_file()).unwrap();
    assert!(text.starts_with("# kept by the night shift\n"), "{text}");
    assert!(text.contains("address = \"10.77.0.13\"\nweight = 0\n"), "{text}");
}

#[test]
fn a_service_is_added_and_deleted_without_touching_the_other() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = active_director(&lab);
    let load = Load::start(&lab.client, TARGET, 50).unwrap();
    load.wait_established(LIMIT).unwrap();
    let digest = |director: &Director<'_>| {
        director.status().unwrap().virtual_services.first().unwrap().table_digest.clone()
    };
    let before = digest(&director);

    done(&director, &["service", "add", "api", "--address", "10.77.0.100:8080"]);
    done(&director, &["real", "add", "api", "10.77.0.11"]);
    assert_eq!(director.status().unwrap().virtual_services.len(), 2);
    refused(&director, &["service", "add", "api", "--address", "10.77.0.100:8081"], "api");
    refused(&director, &["service", "add", "other", "--address", "10.77.0.100:8080"], "already");
    refused(&director, &["real", "add", "apo", "10.77.0.12"], "`api`");
    refused(&director, &["real", "delete", "api", "10.77.0.12"], "10.77.0.12");
    done(&director, &["service", "delete", "api"]);

    assert_eq!(director.status().unwrap().virtual_services.len(), 1);
    assert_eq!(digest(&director), before);
    let report = load.finish().unwrap();
    assert_eq!(report.connections.survived, report.connections.opened, "{report:?}");
    assert_eq!(report.new_connections.succeeded, report.new_connections.attempted, "{report:?}");
}

#[test]
fn a_reload_of_a_bad_configuration_disturbs_nothing_and_says_where_the_fault_is() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = active_director(&lab);
    let load = Load::start(&lab.client, TARGET, 50).unwrap();
    load.wait_established(LIMIT).unwrap();
    let file = director.config_file();
    let good = fs::read_to_string(&file).unwrap();
    let before = director.status().unwrap();

    let service = "[[virtual-service]]\nname = \"other\"\n";
    let bad = [
        ("a wrong key", good.replace("priority", "priorty"), ":9:1: virtual-router[0]"),
        ("an unknown mode", good.replace("\"dr\"", "\"teleport\""), ":17:14: virtual-service[0]"),
        (
            "a duplicate service",
            format!("{good}\n{service}address = \"10.77.0.100:80\"\n"),
            ":30:11: virtual-service[1].address",
        ),
        ("a port of 0", good.replace("100:80", "100:0"), ":15:11: virtual-service[0].address"),
        ("no address", good.replace("10.77.0.100:80", "ten:80"), ":15:11: virtual-service[0]"),
        ("an empty file", String::new(), ":1:1: "),
    ];
    for (what, text, place) in &bad {
        fs::write(&file, text).unwrap();
        check_refusal(&director, what, place);
    }
    fs::remove_file(&file).unwrap();
    check_refusal(&director, "a missing file", ": no such file");
    fs::create_dir(&file).unwrap();
    check_refusal(&director, "a directory", ": is a directory");
    fs::remove_dir(&file).unwrap();

    fs::write(&file, &good).unwrap();
    director.reload().unwrap();
    let after = wait_for("the refusal to be gone", LIMIT, || {
        let status = director.status()?;
        Ok(if status.config.refused.is_none() { Ok(status) } else { Err("refused".to_owned()) })
    })
    .unwrap();
    assert_eq!(after.pid, before.pid);
    let [before, after] = [&before, &after].map(|status| {
        let router = status.virtual_routers.first().unwrap();
        let service = status.virtual_services.first().unwrap();
        (router.transitions, service.table_digest.clone())
    });
    assert_eq!(after, before);
    let report = load.finish().unwrap();
    assert_eq!(report.connections.survived, report.connections.opened, "{report:?}");
    assert_eq!(report.new_connections.succeeded, report.new_connections.attempted, "{report:?}");
}

#[test]
fn an_edit_is_refused_while_the_file_has_changes_of_somebody_else() {
    let lab = Lab::new().unwrap();
    let director = {
        let _servers = RealServer::start_all(&lab, PORT).unwrap();
        active_director(&lab)
    };
    let file = director.config_file();
    let mine = format!("{}# half done\n", fs::read_to_string(&file).unwrap());
    fs::write(&file, &mine).unwrap();
    refused(&director, &["real", "add", "web", "10.77.0.14"], "changed by hand");
    assert_eq!(fs::read_to_string(&file).unwrap(), mine);
    done(&director, &["config", "reload"]);
    done(&director, &["real", "add", "web", "10.77.0.14"]);
}

/// Refuses by signal and by `lbctl`, with exit code 2, and says so in its status.
fn check_refusal(director: &Director<'_>, what: &str, place: &str) {
    director.reload().unwrap();
    let output = director.lbctl(&["config", "reload"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{what}: {said}");
    assert!(said.contains(&format!("lbd.toml{place}")), "{what}: {said}");
    assert_eq!(said.trim().lines().count(), 1, "{what}: one message, not {said}");
    let refused = director.status().unwrap().config.refused;
    assert!(refused.is_some_and(|refused| refused.contains(place)), "{what}");
}

#[track_caller]
fn done(director: &Director<'_>, args: &[&str]) {
    let output = director.lbctl(args).unwrap();
    assert!(output.status.success(), "lbctl {args:?}: {output:?}");
}

#[track_caller]
fn refused(director: &Director<'_>, args: &[&str], because: &str) {
    let Output { status, stderr, .. } = director.lbctl(args).unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert!(!status.success(), "lbctl {args:?}");
    assert!(said.contains(because), "lbctl {args:?}: {said}");
}

/// New flows by real server.
fn flows(lab: &Lab) -> BTreeMap<String, u64> {
    let load = Load::start(&lab.client, TARGET, 200).unwrap();
    load.wait_established(LIMIT).unwrap();
    let LoadReport { by_real_server, .. } = load.finish().unwrap();
    by_real_server.into_iter().collect()
}

/// Each real server's share of the slots, in per cent.
fn shares(director: &Director<'_>) -> Vec<(String, u32)> {
    let output = director.lbctl(&["-o", "json", "real", "list", "web"]).unwrap();
    let list: Vec<RealServerView> = serde_json::from_slice(&output.stdout).unwrap();
    let percent = |share: f64| (0..=100).find(|&p| f64::from(p) >= share * 100.0 - 0.5).unwrap();
    list.iter().map(|server| (server.address.to_string(), percent(server.share))).collect()
}

fn named((address, percent): (&str, u32)) -> (String, u32) {
    (address.to_owned(), percent)
}

fn active_director(lab: &Lab) -> Director<'_> {
    let settings = Settings { priority: 200, advertisement_interval: Duration::from_millis(100) };
    let binaries = Binaries::of_tests().unwrap();
    let mut director = Director::new(lab, &lab.directors[0], &binaries, settings).unwrap();
    director.start().unwrap();
    director.wait_ready("active", LIMIT).unwrap();
    director
}
