//! lbd refuses a configuration before it touches anything; no root, and no namespace.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path, process::Command, time::Duration};

use tests::director::{Binaries, Misconfiguration, Settings, configuration, misconfigurations};

#[test]
fn lbd_does_not_start_with_a_bad_configuration_and_says_where_the_fault_is() {
    let settings = Settings { priority: 200, advertisement_interval: Duration::from_millis(100) };
    // Should one of them pass, then not on an interface of this machine.
    let good = configuration("lb1", settings).replace("eth0", "absent0");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lbd.toml");
    for Misconfiguration { what, text, place } in misconfigurations(&good) {
        fs::write(&file, text).unwrap();
        check(dir.path(), what, place);
    }
    let vip = good.replace("vips = [\"10.77.0.100/24\"]", "vips = [\"somewhere\"]");
    fs::write(&file, vip).unwrap();
    check(dir.path(), "a VIP that is no address", ":11:9: virtual-router[0].vips");
    fs::remove_file(&file).unwrap();
    check(dir.path(), "a missing file", ": no such file");
    fs::create_dir(&file).unwrap();
    check(dir.path(), "a directory", ": is a directory");
}

/// Exit code 2, one message, and not a file more than before.
#[track_caller]
fn check(dir: &Path, what: &str, place: &str) {
    let entries = || fs::read_dir(dir).unwrap().count();
    let before = entries();
    let mut lbd = Command::new(Binaries::of_tests().unwrap().lbd);
    lbd.arg("--config").arg(dir.join("lbd.toml"));
    lbd.arg("--state-dir").arg(dir.join("state")).arg("--socket").arg(dir.join("lbd.sock"));
    let output = lbd.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{what}: {said}");
    assert!(said.contains(&format!("lbd.toml{place}")), "{what}: {said}");
    assert_eq!(said.trim().lines().count(), 1, "{what}: one message, not {said}");
    assert_eq!(entries(), before, "{what}: something was made");
}
