//! What a user would run in place of `lbd`: rules in the kernel, or a proxy.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    interrupt::wait_for,
    lab::{Host, POOL, PORT, VIP},
    netns::Netns,
};

/// Rewrites the destination of what `rule` says.
pub(super) fn dnat(netns: &Netns, rule: &str) -> anyhow::Result<()> {
    let rules = format!(
        "add table ip bench\n\
         add chain ip bench prerouting {{ type nat hook prerouting priority dstnat; }}\n\
         add rule ip bench prerouting {rule}\n"
    );
    let mut command = Command::new("nft");
    netns.run(command.arg(rules)).map(drop)
}

pub(super) fn remove_dnat(netns: &Netns) -> anyhow::Result<()> {
    netns.run(Command::new("nft").args(["delete", "table", "ip", "bench"])).map(drop)
}

/// The rule that spreads connections to the VIP over the real servers.
pub(super) fn spread_rule() -> String {
    let map: Vec<_> =
        (0..).zip(POOL).map(|(index, server)| format!("{index} : {server}")).collect();
    format!(
        "ip daddr {VIP} tcp dport {PORT} dnat to numgen inc mod {} map {{ {} }}",
        POOL.len(),
        map.join(", ")
    )
}

/// A proxy on the director; ended when dropped.
pub(super) struct Proxy(Child);

impl Proxy {
    pub(super) fn haproxy(host: &Host, dir: &Path) -> anyhow::Result<Self> {
        let servers = lines(|server| format!("  server {server} {server}:{PORT}\n"));
        let config = format!(
            "global\n  maxconn 4000\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend vip\n  bind {VIP}:{PORT}\n  default_backend real-servers\n\
             backend real-servers\n  balance roundrobin\n{servers}"
        );
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(written(dir, "haproxy.cfg", &config)?);
        Self::start(host, "haproxy", &mut command, dir)
    }

    pub(super) fn nginx_stream(host: &Host, dir: &Path) -> anyhow::Result<Self> {
        let servers = lines(|server| format!("    server {server}:{PORT};\n"));
        let path = dir.display();
        let config = format!(
            "load_module modules/ngx_stream_module.so;\ndaemon off;\nworker_processes auto;\n\
             pid {path}/nginx.pid;\nerror_log {path}/nginx-error.log;\n\
             events {{ worker_connections 8192; }}\n\
             stream {{\n  upstream real-servers {{\n{servers}  }}\n\
             \x20 server {{ listen {VIP}:{PORT}; proxy_pass real-servers; }}\n}}\n"
        );
        let mut command = Command::new("nginx");
        // Where Debian's looks for modules.
        command.args(["-p", "/usr/share/nginx"]);
        command.arg("-e").arg(dir.join("nginx-error.log"));
        command.arg("-c").arg(written(dir, "nginx.conf", &config)?);
        Self::start(host, "nginx", &mut command, dir)
    }

    fn start(host: &Host, name: &str, command: &mut Command, dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = fs::File::create(&log).with_context(|| format!("make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut proxy = Self(host.netns.spawn(command)?);
        let listening = wait_for(&format!("{name} at {VIP}:{PORT}"), LIMIT, || {
            if let Some(status) = proxy.0.try_wait()? {
                bail!("{name} ended: {status}");
            }
            let connected = host.netns.enter(|| std::net::TcpStream::connect((VIP, PORT)))?;
            Ok(connected.map(drop).map_err(|error| error.to_string()))
        });
        listening.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

const LIMIT: Duration = Duration::from_secs(10);

/// SIGTERM, which a process with children passes on; SIGKILL to one that does not heed it.
pub(super) fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let deadline = std::time::Instant::now() + LIMIT;
    while std::time::Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn lines(line: impl Fn(Ipv4Addr) -> String) -> String {
    POOL.into_iter().map(line).collect()
}

fn written(dir: &Path, name: &str, text: &str) -> anyhow::Result<std::path::PathBuf> {
    let file = dir.join(name);
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_names_every_real_server() {
        assert_eq!(
            spread_rule(),
            "ip daddr 10.77.0.100 tcp dport 80 dnat to numgen inc mod 3 map \
             { 0 : 10.77.0.11, 1 : 10.77.0.12, 2 : 10.77.0.13 }"
        );
    }
}
