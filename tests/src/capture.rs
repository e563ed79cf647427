//! Captures, and tshark's judgement of them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    interrupt::{observe, wait_for},
    netns::{Netns, run},
    report::Packets,
};

/// After this the kernel hands over a block of packets that is not full (dumpcap's own choice).
const BLOCK_TIMEOUT: Duration = Duration::from_millis(250);

const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// A running capture; ended without a result when dropped.
pub struct Capture {
    dumpcap: Child,
    stderr: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Capture {
    /// Captures whole packets into `file` (pcapng), on each `(interface, pcap filter)` of
    /// `netns`. Captures already when this returns.
    pub fn start(netns: &Netns, points: &[(&str, &str)], file: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("dumpcap");
        for (interface, filter) in points {
            command.args(["-i", interface, "-f", filter, "-B", "64", "-s", "2048"]);
        }
        // With several interfaces dumpcap has a queue of its own, by default of 1,000 packets.
        command.args(["-N", "500000", "-C", "500000000"]);
        command.args(["-q", "-w"]).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut dumpcap = netns.spawn(&mut command)?;
        let Some(stderr) = dumpcap.stderr.take() else { bail!("dumpcap without its messages") };
        let mut capture = Self { dumpcap, stderr: BufReader::new(stderr), file: file.to_owned() };
        capture.wait_started()?;
        Ok(capture)
    }

    /// dumpcap names its file when all interfaces are open.
    fn wait_started(&mut self) -> anyhow::Result<()> {
        let mut said = String::new();
        while !said.lines().any(|line| line.starts_with("File: ")) {
            let read = self.stderr.read_line(&mut said).context("read from dumpcap")?;
            ensure!(read > 0, "start the capture: dumpcap said: {}", said.trim());
        }
        Ok(())
    }

    /// Ends the capture; every packet that was seen is in the file when this returns.
    pub fn finish(mut self) -> anyhow::Result<Captured> {
        // Without this, what came last would stay in the kernel; dumpcap does not ask for it.
        observe(BLOCK_TIMEOUT * 2)?;
        terminate(&self.dumpcap);
        let status = wait_for("the end of dumpcap", FINISH_LIMIT, || {
            Ok(self.dumpcap.try_wait()?.ok_or_else(|| "it runs".to_owned()))
        })?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).context("read from dumpcap")?;
        ensure!(status.success(), "dumpcap: {status}: {}", said.trim());
        Ok(Captured { dropped: dropped(&said), file: self.file.clone() })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.dumpcap.kill();
        let _ = self.dumpcap.wait();
    }
}

/// dumpcap ends in order, and writes what it still has. Not by SIGINT: what a shell starts in the
/// background ignores that, and so would its children.
fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// Sums up `Packets received/dropped on interface 'x': 12/3 (…)`.
fn dropped(said: &str) -> u64 {
    said.lines()
        .filter_map(|line| line.strip_prefix("Packets received/dropped on interface"))
        .filter_map(|rest| rest.rsplit_once("': ")?.1.split(' ').next()?.split_once('/'))
        .filter_map(|(_, dropped)| dropped.parse::<u64>().ok())
        .sum()
}

/// A capture in a file.
pub struct Captured {
    pub file: PathBuf,
    /// Packets that came too fast to be captured.
    pub dropped: u64,
}

/// What tshark thinks of a capture.
#[derive(Debug)]
pub struct Judgement {
    pub packets: Packets,
    /// The first malformed packets, one line each.
    pub faults: Vec<String>,
}

/// What is judged; a packet of anything else counts for nothing.
const PROTOCOLS: [&str; 5] = ["vrrp", "arp", "ip", "tcp", "icmp"];

/// A packet that is not as its RFC has it: expert items of severity "error" are what tshark
/// says beside, such as a length that cannot be. A TCP checksum of 0xffff is zero in one's
/// complement (RFC 1071), and Linux writes it so, once in 65,536 packets; tshark frowns at it.
const MALFORMED: &str = "_ws.malformed || _ws.short || ip.checksum.status == 0 \
    || icmp.checksum.status == 0 || vrrp.checksum.status == 0 \
    || (!tcp.checksum.ffff && (tcp.checksum.status == 0 || _ws.expert.severity == error))";

const FAULTS_SHOWN: usize = 8;
const JUDGE_LIMIT: Duration = Duration::from_secs(60);

impl Captured {
    /// Has every packet dissected, and every checksum computed again.
    pub fn judge(&self) -> anyhow::Result<Judgement> {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args(["-n", "-Y", MALFORMED, "-T", "fields"]);
        for field in ["frame.number", "_ws.col.Protocol", "_ws.col.Info"] {
            command.args(["-e", field]);
        }
        for option in [
            "ip.check_checksum:TRUE",
            "tcp.check_checksum:TRUE",
            // Reassembly and analysis are about streams; here each packet is judged.
            "tcp.desegment_tcp_streams:FALSE",
            "tcp.analyze_sequence_numbers:FALSE",
        ] {
            command.args(["-o", option]);
        }
        command.args(["-z", "io,phs"]);
        // The payload is ours and opaque, whatever protocol its first bytes look like.
        command.args(["-d", "tcp.port==80,data"]);
        let output = self.run(&mut command)?;
        let (lines, table) = output.split_once("=====").unwrap_or((&output, ""));
        let faults: Vec<_> = lines.lines().filter(|line| !line.is_empty()).collect();
        let packets = Packets {
            judged: counts(table),
            malformed: faults.len() as u64,
            dropped: self.dropped,
        };
        let faults = faults.into_iter().take(FAULTS_SHOWN).map(|line| line.replace('\t', " "));
        Ok(Judgement { packets, faults: faults.collect() })
    }

    /// tshark takes seconds, in which an interrupt must not have to wait.
    fn run(&self, command: &mut Command) -> anyhow::Result<String> {
        use std::os::unix::process::CommandExt;
        let stdout = tempfile::tempfile().context("make a temporary file")?;
        let stderr = tempfile::tempfile().context("make a temporary file")?;
        command.process_group(0).stdin(Stdio::null());
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let mut tshark = Killed(command.spawn().context("start tshark")?);
        let status = wait_for("judge the capture", JUDGE_LIMIT, || {
            Ok(tshark.0.try_wait()?.ok_or_else(|| "tshark at work".to_owned()))
        })?;
        ensure!(status.success(), "tshark: {status}: {}", read_back(stderr)?.trim());
        read_back(stdout)
    }
}

/// A child that does not outlive the wait for it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_back(mut file: std::fs::File) -> anyhow::Result<String> {
    use std::io::Seek;
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The protocol hierarchy, a line for each protocol: `ip  frames:12 bytes:3456`.
fn counts(table: &str) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<_, _> = PROTOCOLS.iter().map(|name| ((*name).to_owned(), 0)).collect();
    for line in table.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(frames)) = (words.next(), words.next()) else { continue };
        let frames = frames.strip_prefix("frames:").and_then(|frames| frames.parse::<u64>().ok());
        if let (Some(count), Some(frames)) = (counts.get_mut(name), frames) {
            *count += frames;
        }
    }
    counts
}

/// Whether tshark and dumpcap are there, with a message that helps where not.
pub fn check_installed() -> anyhow::Result<()> {
    for tool in ["dumpcap", "tshark"] {
        run(Command::new(tool).arg("-v"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{counts, dropped};

    #[test]
    fn drops_are_summed_over_the_interfaces() {
        let said = "Packets received/dropped on interface 'rs1': 12/3 (pcap:3/dumpcap:0) (80.0%)\n\
            Packets received/dropped on interface 'rs2': 7/1 (pcap:1/dumpcap:0) (87.5%)\n";
        assert_eq!(dropped(said), 4);
    }

    #[test]
    fn packets_are_counted_by_protocol() {
        let table = "eth   frames:6 bytes:432\n  ip    frames:5 bytes:390\n    tcp   frames:3 bytes:1\n\
            \x20   vrrp  frames:2 bytes:1\n  arp   frames:1 bytes:42\n";
        let counts = counts(table);
        let of = ["ip", "tcp", "vrrp", "arp", "icmp"].map(|name| counts[name]);
        assert_eq!(of, [5, 3, 2, 1, 0]);
    }
}
