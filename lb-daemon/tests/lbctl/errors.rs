//! What a verb that fails says, and its exit code.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    process::{Command, Stdio},
};

use nix::unistd::Uid;

use crate::fake::{Fake, failure, lbctl};

#[test]
fn without_a_daemon_lbctl_says_how_to_start_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("lbd.sock");
    let how = "start it with `lbd --config FILE`, or name its socket with --socket";
    let (code, message) = failure(lbctl(&socket, &["status"]));
    let none = format!("lbctl: lbd is not running (no socket at {}): {how}\n", socket.display());
    assert_eq!((code, message), (1, none));

    // Left behind by one that was killed.
    drop(UnixListener::bind(&socket).unwrap());
    let (code, message) = failure(lbctl(&socket, &["status"]));
    let stale =
        format!("lbctl: lbd is not running (nobody listens on {}): {how}\n", socket.display());
    assert_eq!((code, message), (1, stale));

    let file = folder.path().join("lbd.toml");
    fs::write(&file, "").unwrap();
    let (code, message) = failure(lbctl(&file, &["status"]));
    let want = format!("lbctl: {} is not a socket: name lbd's with --socket\n", file.display());
    assert_eq!((code, message), (1, want));
}

#[test]
fn the_option_for_the_socket_goes_before_the_environment() {
    let (code, message) = Fake::start().fails(&["status", "--socket", "/nonexistent/lbd.sock"]);
    assert_eq!(code, 1);
    assert!(message.contains("no socket at /nonexistent/lbd.sock"), "{message}");
}

#[test]
fn a_socket_that_one_may_not_open_names_the_group() {
    let fake = Fake::start();
    // Where the user nobody can execute it. Not by `fs::copy`: a child that another test forks
    // meanwhile would hold the file open for writing, and it could not be executed.
    let binary = fake.folder().join("lbctl");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_lbctl")).arg(&binary).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(&binary);
    command.args(["status"]).env("LBD_SOCKET", &fake.socket);
    if Uid::effective().is_root() {
        // No permission stops root.
        command.uid(65534).gid(65534);
    } else {
        fs::set_permissions(&fake.socket, fs::Permissions::from_mode(0o0)).unwrap();
    }
    let (code, message) = failure(command.output().unwrap());
    let want = format!(
        "lbctl: permission denied on {}: you are not in group lbd; try sudo\n",
        fake.socket.display()
    );
    assert_eq!((code, message), (1, want));
}

#[test]
fn names_that_do_not_exist_are_answered_with_those_that_do() {
    let fake = Fake::start();
    for (arguments, want) in [
        (&["real", "list", "wbe"][..], "no service `wbe`, did you mean `web`?"),
        (&["real", "list", "a b/?&"], "no service `a b/?&`, expected one of `web`, `dns`"),
        (&["service", "show", "wbe"], "no service `wbe`, did you mean `web`?"),
        (&["service", "delete", "mail"], "no service `mail`, expected one of `web`, `dns`"),
        (&["service", "delete", "../x"], "no service `../x`, expected one of `web`, `dns`"),
        (&["real", "add", "wbe", "10.77.0.14"], "no service `wbe`, did you mean `web`?"),
        (
            &["real", "delete", "web", "10.77.0.99"],
            "no real server 10.77.0.99 in web, expected one of 10.77.0.11, 10.77.0.12",
        ),
    ] {
        assert_eq!(fake.fails(arguments), (1, format!("lbctl: {want}\n")));
    }
}

#[test]
fn what_exists_or_would_be_invalid_is_refused() {
    let fake = Fake::start();
    let before = fake.text();
    for (arguments, want) in [
        (
            &["service", "add", "web", "--address", "10.77.0.1:1"][..],
            "service `web` exists already",
        ),
        (
            &["real", "add", "web", "10.77.0.11"],
            "real server 10.77.0.11 exists already in web: `lbctl real set` changes its weight",
        ),
        (
            &["service", "add", "web2", "--address", "10.77.0.100:80"],
            "lbd.toml:23:11: virtual-service[2].address: 10.77.0.100:80/tcp is already virtual-service[0]",
        ),
    ] {
        assert_eq!(fake.fails(arguments), (1, format!("lbctl: {want}\n")));
    }
    *fake.control.refuse_reload.lock().unwrap() = Some("lbd.toml:1:1: nothing to do".to_owned());
    assert_eq!(fake.fails(&["config", "reload"]), (2, "lbd.toml:1:1: nothing to do\n".to_owned()));
    assert_eq!(fake.text(), before);
}

#[test]
fn usage_errors_have_exit_code_2_and_say_what_is_expected() {
    let fake = Fake::start();
    for (arguments, part) in [
        (&["real", "add", "web", "10.77.0.14:80"][..], "expected IPv4 without a port"),
        (&["service", "add", "x", "--address", "10.77.0.1"], "expected `10.77.0.1:PORT`"),
        (&["service", "add", "x", "--address", "10.77.0.1:http"], "a range such as `5000-5999`"),
        (&["service", "add", "x", "--address", "10.77.0.1:1", "--hash", "src"], "`source`"),
        (
            &["service", "add", "x", "--address", "10.77.0.1:1", "--source-prefix", "24"],
            "--hash <HASH>",
        ),
        (
            &[
                "service",
                "add",
                "x",
                "--address",
                "10.77.0.1:1",
                "--hash",
                "flow",
                "--source-prefix",
                "24",
            ],
            "--source-prefix needs --hash source",
        ),
        (&["stats", "--watch", "0"], "a number of seconds from 0.1 to 3600"),
        (&["flow", "explain", "--src", "10.77.0.1:1"], "--dst <VIP:PORT>"),
        (
            &[
                "flow",
                "explain",
                "--src",
                "10.77.0.1:1",
                "--dst",
                "10.77.0.100:53",
                "--proto",
                "udp",
                "--opening",
            ],
            "udp has no packet that opens a flow",
        ),
        (
            &["service", "add", "x", "--address", "10.77.0.1:1", "--protocol", "sctp"],
            "`tcp` or `udp`",
        ),
        (&["real", "set", "web", "10.77.0.11"], "--weight"),
        (&["real", "set", "web", "10.77.0.11", "--weight", "65536"], "0..=65535"),
        (&["statsu"], "status"),
    ] {
        let (code, message) = fake.fails(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

#[test]
fn config_check_needs_no_daemon_and_counts_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("lbd.toml"), folder.path().join("none.sock"));
    let name = file.to_str().unwrap();
    fs::write(&file, VALID).unwrap();
    let output = lbctl(&socket, &["config", "check", name]);
    assert_eq!(output.status.code(), Some(0));
    let want = format!("{name}: ok: 1 virtual service, 3 real servers, 1 virtual router\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), want);
}

#[test]
fn config_check_reports_every_fault_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("lbd.toml"), folder.path().join("none.sock"));
    let name = file.to_str().unwrap();
    let bad = VALID.replace("vrid = 51", "vrid = 0").replace(":80\"", ":0\"");
    let faults = format!(
        "{name}:6:11: virtual-service[0].address: port 0 is not in 1..=65535\n\
         {name}:12:8: virtual-router[0].vrid: 0 is not in 1..=255\n"
    );
    for (text, want) in [
        (bad.as_str(), faults.clone()),
        (
            "",
            format!(
                "{name}:1:1: nothing to do: expected at least one virtual-service or virtual-router\n"
            ),
        ),
    ] {
        fs::write(&file, text).unwrap();
        assert_eq!(failure(lbctl(&socket, &["config", "check", name])), (2, want));
    }
    let folder_name = folder.path().to_str().unwrap();
    assert_eq!(
        failure(lbctl(&socket, &["config", "check", folder_name])),
        (2, format!("{folder_name}: is a directory, expected a file\n"))
    );
    assert_eq!(
        failure(lbctl(&socket, &["config", "check", "/nonexistent.toml"])),
        (2, "/nonexistent.toml: no such file\n".to_owned())
    );

    fs::write(&file, bad).unwrap();
    let output = lbctl(&socket, &["config", "check", name, "-o", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), faults);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["valid"], false);
    assert_eq!(json["faults"][1]["line"], 12);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let fake = Fake::start();
    for arguments in [&["status"][..], &["--help"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_lbctl"))
            .args(arguments)
            .env("LBD_SOCKET", &fake.socket)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(output.status.code(), Some(0));
    }
}

const VALID: &str = r#"[director]
interfaces = ["eth0"]

[[virtual-service]]
name = "web"
address = "10.77.0.100:80"
real-server = [{ address = "10.77.0.11" }, { address = "10.77.0.12" }, { address = "10.77.0.13" }]

[[virtual-router]]
name = "web-vip"
interface = "eth0"
vrid = 51
vips = ["10.77.0.100/24"]
"#;
