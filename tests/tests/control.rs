//! A running director under the hands of its operator: edits, reloads and files that are wrong.
//! Needs root, and the programs of this workspace: `cargo xtask test` builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, fs, process::Output};

use lb_daemon::control::{RealServer as RealServerView, Status};
use tests::{
    director::{Director, Misconfiguration, READY_LIMIT, misconfigurations},
    interrupt::wait_for,
    lab::{Lab, PORT},
    real_server::RealServer,
    traffic::{Load, LoadReport},
};

/// A virtual router on an interface that does not exist.
const MISSING: &str = "
[[virtual-router]]
name = \"nowhere\"
interface = \"eth9\"
vrid = 52
vips = [\"10.77.9.100/24\"]
";

#[test]
fn real_servers_are_added_weighted_and_deleted_while_traffic_flows() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone(&lab).unwrap();
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
    let director = Director::start_alone(&lab).unwrap();
    let load = Load::established(&lab, 50).unwrap();
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
    load.finish().unwrap().ensure_unbroken().unwrap();
}

#[test]
fn a_reload_of_a_bad_configuration_disturbs_nothing_and_says_where_the_fault_is() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone(&lab).unwrap();
    let load = Load::established(&lab, 50).unwrap();
    let file = director.config_file();
    let good = fs::read_to_string(&file).unwrap();
    let before = director.status().unwrap();

    for Misconfiguration { what, text, place } in misconfigurations(&good) {
        fs::write(&file, text).unwrap();
        check_refusal(&director, what, place);
        fs::write(&file, &good).unwrap();
        check_acceptance(&director);
    }
    fs::remove_file(&file).unwrap();
    check_refusal(&director, "a missing file", ": no such file");
    fs::create_dir(&file).unwrap();
    check_refusal(&director, "a directory", ": is a directory");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, &good).unwrap();
    check_acceptance(&director);

    let after = director.status().unwrap();
    assert_eq!(after.pid, before.pid);
    let [before, after] = [&before, &after].map(|status| {
        let router = status.virtual_routers.first().unwrap();
        let service = status.virtual_services.first().unwrap();
        (router.transitions, service.table_digest.clone())
    });
    assert_eq!(after, before);
    load.finish().unwrap().ensure_unbroken().unwrap();
}

#[test]
fn a_reload_that_the_machine_does_not_let_through_changes_nothing_on_the_way() {
    let lab = Lab::new().unwrap();
    let _servers = RealServer::start_all(&lab, PORT).unwrap();
    let director = Director::start_alone(&lab).unwrap();
    let load = Load::established(&lab, 50).unwrap();
    let file = director.config_file();
    let good = fs::read_to_string(&file).unwrap();
    let before = director.status().unwrap();

    // The service in use is gone, another one is new, and a virtual router cannot run.
    let moved = good.replace("10.77.0.100:80", "10.77.0.100:8080");
    fs::write(&file, moved.replace("name = \"web\"", "name = \"other\"") + MISSING).unwrap();
    for _ in 0..5 {
        refused(&director, &["config", "reload"], "eth9");
    }

    let after = director.status().unwrap();
    assert_eq!(after.virtual_services, before.virtual_services);
    assert_eq!(after.interfaces, before.interfaces);
    let transitions = |status: &Status| -> Vec<_> {
        let routers = status.virtual_routers.iter();
        routers.map(|router| (router.name.clone(), router.transitions)).collect()
    };
    assert_eq!(transitions(&after), transitions(&before));
    assert_eq!(after.verdicts["not-virtual-service"], before.verdicts["not-virtual-service"]);
    load.finish().unwrap().ensure_unbroken().unwrap();
}

#[test]
fn another_xdp_mode_is_refused_while_the_program_is_attached() {
    let lab = Lab::new().unwrap();
    let director = {
        let _servers = RealServer::start_all(&lab, PORT).unwrap();
        Director::start_alone(&lab).unwrap()
    };
    let file = director.config_file();
    let good = fs::read_to_string(&file).unwrap();
    let attachment = director.attachment().unwrap();
    assert_eq!(director.status().unwrap().interfaces[0].xdp_mode, "native");
    let generic = good.replace("[director]\n", "[director]\nxdp-mode = \"generic\"\n");
    fs::write(&file, generic).unwrap();
    refused(&director, &["config", "reload"], "cannot change while packets flow");
    assert_eq!(director.status().unwrap().interfaces[0].xdp_mode, "native");
    assert_eq!(director.attachment().unwrap(), attachment);
    fs::write(&file, good).unwrap();
    done(&director, &["config", "reload"]);
}

#[test]
fn an_edit_is_refused_while_the_file_has_changes_of_somebody_else() {
    let lab = Lab::new().unwrap();
    let director = {
        let _servers = RealServer::start_all(&lab, PORT).unwrap();
        Director::start_alone(&lab).unwrap()
    };
    let file = director.config_file();
    let mine = format!("{}# half done\n", fs::read_to_string(&file).unwrap());
    fs::write(&file, &mine).unwrap();
    refused(&director, &["real", "add", "web", "10.77.0.14"], "changed by hand");
    assert_eq!(fs::read_to_string(&file).unwrap(), mine);
    done(&director, &["config", "reload"]);
    done(&director, &["real", "add", "web", "10.77.0.14"]);
}

/// Refuses by signal, and says so in its status; and by `lbctl`, with exit code 2.
fn check_refusal(director: &Director<'_>, what: &str, place: &str) {
    director.reload().unwrap();
    wait_refused(director, |refused| refused.is_some_and(|refused| refused.contains(place)));

    let output = director.lbctl(&["config", "reload"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{what}: {said}");
    assert!(said.contains(&format!("lbd.toml{place}")), "{what}: {said}");
    assert_eq!(said.trim().lines().count(), 1, "{what}: one message, not {said}");
}

/// By signal.
fn check_acceptance(director: &Director<'_>) {
    director.reload().unwrap();
    wait_refused(director, |refused| refused.is_none());
}

fn wait_refused(director: &Director<'_>, wanted: impl Fn(Option<&str>) -> bool) {
    wait_for("the outcome of the reload", READY_LIMIT, || {
        let refused = director.status()?.config.refused;
        Ok(if wanted(refused.as_deref()) { Ok(()) } else { Err(format!("{refused:?}")) })
    })
    .unwrap();
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
    let load = Load::established(lab, 200).unwrap();
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
