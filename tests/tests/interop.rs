//! Beside keepalived, on one virtual router: each takes over from the other, and neither finds
//! fault with the other's advertisements. Needs root, keepalived, and the programs of this
//! workspace: `cargo xtask test` installs and builds them first.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    capture::Capture,
    director::{Binaries, Director, Settings, configuration},
    interrupt::wait_for,
    lab::{Host, Lab, VIP},
};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn keepalived_takes_over_from_lbd_and_gives_the_vip_back() {
    let lab = Lab::new().unwrap();
    let [lb1, lb2] = &lab.directors;
    let capture = capture(&lab);
    let mut lbd = lbd(&lab, lb1, 150);
    let keepalived = Keepalived::start(&lab, lb2, 100);
    lbd.start().unwrap();
    lbd.wait_state("active", LIMIT).unwrap();
    wait_vip(lb1, true);
    wait_vip(lb2, false);

    lbd.terminate().unwrap();
    wait_vip(lb2, true);
    lbd.wait_exit(LIMIT).unwrap();
    wait_vip(lb1, false);

    lbd.start().unwrap();
    lbd.wait_state("active", LIMIT).unwrap();
    wait_vip(lb1, true);
    wait_vip(lb2, false);
    keepalived.assert_content();
    judge(capture);
}

#[test]
fn lbd_takes_over_from_keepalived_and_yields_to_it_when_it_returns() {
    let lab = Lab::new().unwrap();
    let [lb1, lb2] = &lab.directors;
    let capture = capture(&lab);
    let mut lbd = lbd(&lab, lb1, 100);
    let keepalived = Keepalived::start(&lab, lb2, 150);
    wait_vip(lb2, true);
    lbd.start().unwrap();
    lbd.wait_state("backup", LIMIT).unwrap();
    wait_vip(lb1, false);

    keepalived.assert_content();
    drop(keepalived);
    lbd.wait_state("active", LIMIT).unwrap();
    wait_vip(lb1, true);

    let keepalived = Keepalived::start(&lab, lb2, 150);
    lbd.wait_state("backup", LIMIT).unwrap();
    wait_vip(lb1, false);
    wait_vip(lb2, true);
    let router = lbd.status().unwrap().virtual_routers.remove(0);
    assert_eq!(router.active_router, Some(lb2.address));
    assert_eq!(router.discarded, [].into(), "lbd finds no fault with keepalived");
    keepalived.assert_content();
    judge(capture);
}

struct Keepalived {
    process: Child,
    log: PathBuf,
}

impl Keepalived {
    fn start(lab: &Lab, host: &Host, priority: u8) -> Self {
        let dir = lab.dir().join(format!("keepalived-{priority}"));
        fs::create_dir_all(&dir).unwrap();
        let (config, log) = (dir.join("keepalived.conf"), dir.join("log"));
        let text = format!(
            "global_defs {{ vrrp_version 3 }}\n\
             vrrp_instance web {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  \
             priority {priority}\n  advert_int 0.1\n  virtual_ipaddress {{ {VIP}/24 }}\n}}\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        command.arg("--use-file").arg(&config);
        for (flag, file) in [("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
            command.arg(flag).arg(dir.join(file));
        }
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { process: host.netns.spawn(&mut command).unwrap(), log }
    }

    /// It ran, and complained of no packet.
    fn assert_content(&self) {
        let log = fs::read_to_string(&self.log).unwrap();
        assert!(log.contains("STATE"), "{log}");
        for complaint in ["bogus", "invalid", "mismatch", "checksum", "error", "dropped"] {
            let found = log.lines().find(|line| line.to_lowercase().contains(complaint));
            assert_eq!(found, None, "{log}");
        }
    }
}

impl Drop for Keepalived {
    /// By SIGTERM: it has a child to end, and an address to take away.
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}

/// A virtual router alone: no XDP program is loaded.
fn lbd<'lab>(lab: &'lab Lab, host: &'lab Host, priority: u8) -> Director<'lab> {
    let settings = Settings { priority, advertisement_interval: Duration::from_millis(100) };
    let lbd = Director::new(lab, host, &Binaries::of_tests().unwrap(), settings).unwrap();
    let text = configuration(host.name, settings);
    let (routers, _) = text.split_once("[[virtual-service]]").unwrap();
    fs::write(lbd.config_file(), routers).unwrap();
    lbd
}

fn wait_vip(host: &Host, held: bool) {
    let what = format!("{} {} the VIP", host.name, if held { "to hold" } else { "to be without" });
    wait_for(&what, LIMIT, || {
        let mut show = Command::new("ip");
        let output = host.netns.run(show.args(["-4", "-o", "addr", "show", "dev", "eth0"]))?;
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(if seen.contains(&format!("{VIP}/")) == held { Ok(()) } else { Err(seen) })
    })
    .unwrap();
}

fn capture(lab: &Lab) -> Capture {
    let file = lab.dir().join("interop.pcapng");
    Capture::start(&lab.switch, &[("client", "not tcp")], &file).unwrap()
}

fn judge(capture: Capture) {
    let judgement = capture.finish().unwrap().judge().unwrap();
    assert!(
        judgement.faults.is_empty() && judgement.packets.judged.contains_key("vrrp"),
        "{judgement:?}"
    );
}
