//! `lbctl stats`, once and again and again.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use nix::{
    pty::{OpenptyResult, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::fake::Fake;

#[test]
fn stats_has_totals_and_rates_over_a_second() {
    assert_eq!(
        Fake::start().prints(&["stats"]),
        "\
rates over 1s
exceptions 12 of 65,536, 3 opening

SERVICE  ADDRESS             PACKETS  PER S   BYTES   BIT/S  NEW FLOWS  PER S
web      10.77.0.100:80/tcp    2,000  1.0 k  2.5 MB  10.0 M         20     10
dns      10.77.0.100:53/udp    2,000  1.0 k  2.5 MB  10.0 M          -      -

REAL SERVER  PACKETS  PER S   BYTES   BIT/S  NEW FLOWS  PER S
10.77.0.11     2,000  1.0 k  2.5 MB  10.0 M         20     10
10.77.0.12     2,000  1.0 k  2.5 MB  10.0 M         20     10

VERDICT    PACKETS  PER S
forwarded    4,000  2.0 k
not-ours        89      0
"
    );
}

#[test]
fn stats_are_one_object_of_json() {
    let printed = Fake::start().prints(&["stats", "-o", "json"]);
    let json: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["interval_ms"], 1_000);
    assert_eq!(json["services"][0]["address"], "10.77.0.100:80");
    assert_eq!(json["services"][0]["counters"]["packets"], 2_000);
    assert_eq!(json["services"][0]["per_second"]["packets"], 1_000.0);
    assert_eq!(json["services"][1]["counters"]["new_flows"], Value::Null);
    assert_eq!(json["real_servers"][1]["per_second"]["new_flows"], 10.0);
    assert_eq!(json["verdicts_per_second"]["not-ours"], 0.0);
    assert_eq!(json["exceptions"]["capacity"], 65_536);
}

#[test]
fn watch_prints_a_line_of_json_a_sample_until_ctrl_c() {
    let fake = Fake::start();
    let (child, mut lines) = watch(&fake, &["-o", "json"]);
    let mut sample = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(sample()["services"][0]["per_second"], Value::Null);
    let second = sample();
    assert_eq!(second["interval_ms"], 1_000);
    assert_eq!(second["services"][0]["per_second"]["packets"], 1_000.0);
    assert_eq!(ends_by_ctrl_c(child), (Some(0), String::new()));
}

#[test]
fn watch_appends_tables_where_there_is_no_terminal() {
    let fake = Fake::start();
    let (child, lines) = watch(&fake, &[]);
    let printed: Vec<_> = lines
        .map(Result::unwrap)
        .scan(0, |samples, line| {
            *samples += usize::from(line.starts_with("rates "));
            (*samples < 3).then_some(line)
        })
        .collect();
    assert_eq!(printed[0], "rates follow with the next sample");
    assert!(printed.contains(&"rates over 1s".to_owned()), "{printed:?}");
    assert!(printed.iter().all(|line| !line.contains('\x1b')), "{printed:?}");
    assert_eq!(ends_by_ctrl_c(child), (Some(0), String::new()));
}

#[test]
fn watch_goes_on_when_the_daemon_is_away_for_a_while() {
    let fake = Fake::start();
    let (mut child, mut lines) = watch(&fake, &["-o", "json"]);
    lines.next().unwrap().unwrap();
    let (socket, away) = (&fake.socket, fake.socket.with_extension("away"));
    std::fs::rename(socket, &away).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let message = stderr.next().unwrap().unwrap();
    assert!(message.starts_with("lbctl: lbd is not running"), "{message}");
    std::fs::rename(&away, socket).unwrap();
    // Those of before may still be in the pipe; each sample is a second on for the fake.
    let returned = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let sample = returned.take(20).last().unwrap();
    assert_eq!(sample["services"][0]["per_second"]["packets"], 1_000.0);
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_redraws_on_a_terminal() {
    let fake = Fake::start();
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let child = command(&fake, &[]).stdout(slave).stderr(Stdio::piped()).spawn().unwrap();
    let mut terminal = BufReader::new(File::from(master));
    let mut screens = Vec::new();
    while screens.len() < 2 {
        let mut screen = Vec::new();
        terminal.read_until(b'J', &mut screen).unwrap();
        let screen = String::from_utf8(screen).unwrap();
        // Cleared as a whole once, then to the end of each screen.
        if screen.ends_with("\x1b[J") {
            screens.push(screen);
        }
    }
    assert!(screens[0].contains("rates follow with the next sample\x1b[K"), "{screens:?}");
    assert!(screens[1].starts_with("\x1b[Hrates over 1s\x1b[K"), "{screens:?}");
    interrupt(&child);
    // Read on, or its last screen might not fit.
    let mut rest = Vec::new();
    let _ = terminal.read_to_end(&mut rest);
    assert_eq!(ended(child), (Some(0), String::new()));
}

#[test]
fn watch_ends_when_nobody_reads_on() {
    let fake = Fake::start();
    let (child, lines) = watch(&fake, &[]);
    drop(lines);
    assert_eq!(ended(child), (Some(0), String::new()));
}

#[test]
fn watch_fails_if_there_is_no_daemon_to_begin_with() {
    let arguments = ["stats", "--watch", "--socket", "/nonexistent/lbd.sock"];
    let (code, message) = Fake::start().fails(&arguments);
    assert_eq!(code, 1);
    assert!(message.contains("lbd is not running"), "{message}");
}

fn watch(fake: &Fake, more: &[&str]) -> (Child, impl Iterator<Item = io::Result<String>>) {
    let mut child =
        command(fake, more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    (child, BufReader::new(stdout).lines())
}

fn command(fake: &Fake, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command.args(["stats", "--watch", "0.1"]).args(more).env("LBD_SOCKET", &fake.socket);
    command
}

/// The exit code and the standard error.
fn ends_by_ctrl_c(child: Child) -> (Option<i32>, String) {
    interrupt(&child);
    ended(child)
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), stderr)
}
