//! nginx as the real servers: somebody else's TCP server, and downloads that outlive a director.
//! Needs root, nginx, and the programs of this workspace: `cargo xtask test` sees to both.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    director::{Binaries, READY_LIMIT},
    interrupt::wait_for,
    lab::{Host, Lab, PORT, TARGET},
    scenario::Pair,
};

const INTERVAL: Duration = Duration::from_millis(100);
const BYTES: usize = 3_000_000;
/// A download takes three seconds at this pace.
const BYTES_PER_SECOND: &str = "1m";
const DOWNLOADS: usize = 12;

#[test]
fn downloads_from_nginx_survive_the_loss_of_the_active_director() {
    let lab = Lab::new().unwrap();
    let file: Vec<u8> = (0..BYTES).map(|at| (at * at / 251 + at).to_le_bytes()[0]).collect();
    let _servers: Vec<_> =
        lab.real_servers.iter().map(|host| Nginx::start(&lab, host, &file)).collect();
    let mut pair = Pair::new(&lab, &Binaries::of_tests().unwrap(), INTERVAL).unwrap();
    pair.start().unwrap();

    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        let downloads: Vec<_> = (0..DOWNLOADS)
            .map(|_| scope.spawn(|| lab.client.netns.enter(|| download(&begun)).unwrap()))
            .collect();
        wait_for("the downloads to begin", READY_LIMIT, || {
            let begun = begun.load(Ordering::SeqCst);
            Ok(if begun == DOWNLOADS { Ok(()) } else { Err(format!("{begun} did")) })
        })
        .unwrap();

        let cut = pair.lb1.arm_power_cut().unwrap();
        pair.lb1.lose_power(cut).unwrap();

        for download in downloads {
            let body = download.join().unwrap();
            assert_eq!(body.len(), file.len());
            assert!(body == file, "a download came with other bytes");
        }
    });
    pair.lb2.wait_ready("active", READY_LIMIT).unwrap();
}

/// The body of the file, by HTTP/1.0, so that its end is the connection's.
fn download(begun: &AtomicUsize) -> Vec<u8> {
    let mut stream = TcpStream::connect(TARGET).unwrap();
    stream.set_read_timeout(Some(READY_LIMIT)).unwrap();
    stream.write_all(b"GET /file HTTP/1.0\r\nHost: vip\r\n\r\n").unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).unwrap();
    begun.fetch_add(1, Ordering::SeqCst);
    answer.truncate(read);
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 200 OK\r\n"),
        "{:?}",
        String::from_utf8_lossy(&answer[..head])
    );
    answer.split_off(head + 4)
}

struct Nginx(Child);

impl Nginx {
    fn start(lab: &Lab, host: &Host, file: &[u8]) -> Self {
        let dir = lab.dir().join(format!("nginx-{}", host.name));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), file).unwrap();
        let path = dir.display();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path {path}/body;\n  \
             proxy_temp_path {path}/proxy;\n  fastcgi_temp_path {path}/fastcgi;\n  \
             uwsgi_temp_path {path}/uwsgi;\n  scgi_temp_path {path}/scgi;\n  \
             limit_rate {BYTES_PER_SECOND};\n  \
             server {{ listen {PORT}; root {path}; }}\n}}\n"
        );
        let config_file = dir.join("nginx.conf");
        fs::write(&config_file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&config_file).arg("-e").arg(dir.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let nginx = Self(host.netns.spawn(&mut command).unwrap());
        wait_for(&format!("nginx on {}", host.name), READY_LIMIT, || {
            let connected = host.netns.enter(|| TcpStream::connect((host.address, PORT)))?;
            Ok(connected.map(drop).map_err(|error| error.to_string()))
        })
        .unwrap();
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}
