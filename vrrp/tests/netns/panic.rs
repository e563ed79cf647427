//! What is left of a director whose VRRP thread panics.

use std::{fs::File, os::unix::process::ExitStatusExt, process::Command};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};
use vrrp::Vrrp;

use crate::lan::*;

/// Runs itself: what is tested ends the process.
#[test]
fn a_panic_on_the_vrrp_thread_aborts_the_process() {
    const NETNS: &str = "VRRP_TEST_PANIC_IN_NETNS";
    if let Ok(netns) = std::env::var(NETNS) {
        setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let _ = Vrrp::start(vec![router(150)], Box::new(Panics));
        return;
    }
    let lan = Lan::new();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "panic::a_panic_on_the_vrrp_thread_aborts_the_process", "--nocapture"])
        .env(NETNS, lan.netns("a"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("an observer panics"), "{stderr}");
    assert_eq!(output.status.signal(), Some(Signal::SIGABRT as i32), "{stderr}");
}
