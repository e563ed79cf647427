//! TCP connections that are opened, used once and closed, and connections that are filled.
//!
//! The first byte of a connection says what it is for.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    interrupt,
    lab::{Host, PORT},
};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// One byte each way, and the end.
    Once,
    Upload,
    Download,
}

impl Use {
    const fn byte(self) -> u8 {
        match self {
            Self::Once => b'o',
            Self::Upload => b'u',
            Self::Download => b'd',
        }
    }

    /// How many clients do it at once.
    const fn clients(self) -> usize {
        match self {
            Self::Once => 16,
            Self::Upload | Self::Download => 4,
        }
    }
}

const CHUNK: usize = 128 * 1024;
/// For whatever one end waits for from the other.
const TIMEOUT: Duration = Duration::from_secs(5);
const WINDOWS: usize = 3;
const WINDOW: Duration = Duration::from_millis(800);
/// Threads that accept, on each real server.
const ACCEPTORS: usize = 2;
/// How soon an idle one notices that it is to end.
const IDLE_MS: u8 = 50;

/// A server on each host; ended when dropped.
pub(super) struct Servers {
    stop: Arc<AtomicBool>,
    acceptors: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Servers {
    pub(super) fn start(hosts: &[Host]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut servers = Self { stop: Arc::clone(&stop), acceptors: Vec::new() };
        for host in hosts {
            let listener = host.netns.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
            let listener = listener.with_context(|| format!("listen on {}", host.name))?;
            for _ in 0..ACCEPTORS {
                let (listener, stop) = (listener.try_clone()?, Arc::clone(&stop));
                servers.acceptors.push(thread::spawn(move || accept(&listener, &stop)));
            }
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool) -> anyhow::Result<()> {
    // Two threads may hear of the same connection.
    listener.set_nonblocking(true)?;
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(IDLE_MS))?;
        // Whatever becomes of one connection, the client notices.
        if let Ok((stream, _)) = listener.accept() {
            let _ = serve(stream);
        }
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    if first == [Use::Upload.byte()] {
        thread::spawn(move || pump(|chunk| stream.read(chunk), |_| {}));
    } else if first == [Use::Download.byte()] {
        thread::spawn(move || pump(|chunk| stream.write(chunk), |_| {}));
    } else {
        stream.write_all(&first)?;
    }
    Ok(())
}

/// Moves bytes until the other end is gone.
fn pump(mut transfer: impl FnMut(&mut [u8]) -> io::Result<usize>, mut count: impl FnMut(usize)) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(bytes @ 1..) = transfer(&mut chunk) {
        count(bytes);
    }
}

/// What the clients counted in each window, per second: connections, or bytes.
pub(super) fn measure(client: &Host, target: SocketAddrV4, what: Use) -> anyhow::Result<Vec<f64>> {
    let shared = Shared::default();
    client
        .netns
        .enter(|| {
            thread::scope(|scope| {
                for _ in 0..what.clients() {
                    scope.spawn(|| shared.count_failure(work(target.into(), what, &shared)));
                }
                let rates = windows(&shared);
                shared.stop.store(true, Ordering::Relaxed);
                rates
            })
        })?
        .with_context(|| format!("{what:?} to {target}"))
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Shared {
    fn count_failure(&self, result: io::Result<()>) {
        if result.is_err() && !self.stop.load(Ordering::Relaxed) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn windows(shared: &Shared) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::new();
    // The first one is for connections to open and windows to grow.
    for window in 0..=WINDOWS {
        let (before, started) = (shared.done.load(Ordering::Relaxed), Instant::now());
        interrupt::observe(WINDOW)?;
        let done = shared.done.load(Ordering::Relaxed) - before;
        let failed = shared.failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} clients could not go on");
        ensure!(done > 0, "nothing arrived in {WINDOW:?}");
        if window > 0 {
            #[expect(clippy::cast_precision_loss, reason = "gigabytes")]
            rates.push(done as f64 / started.elapsed().as_secs_f64());
        }
    }
    Ok(rates)
}

fn work(target: SocketAddr, what: Use, shared: &Shared) -> io::Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(&[what.byte()])?;
        match what {
            Use::Once => {
                stream.read_exact(&mut [0])?;
                shared.done.fetch_add(1, Ordering::Relaxed);
            }
            Use::Upload => fill(shared, |chunk| stream.write(chunk))?,
            Use::Download => fill(shared, |chunk| stream.read(chunk))?,
        }
    }
    Ok(())
}

fn fill(
    shared: &Shared,
    mut transfer: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while !shared.stop.load(Ordering::Relaxed) {
        match transfer(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => shared.done.fetch_add(bytes as u64, Ordering::Relaxed),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_answers_once_takes_and_gives() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| accept(&listener, &stop).unwrap());
            for what in [Use::Once, Use::Upload, Use::Download] {
                let shared = Shared::default();
                thread::scope(|clients| {
                    let client = clients.spawn(|| work(target, what, &shared));
                    while shared.done.load(Ordering::Relaxed) < 3 && !client.is_finished() {
                        thread::yield_now();
                    }
                    shared.stop.store(true, Ordering::Relaxed);
                    client.join().unwrap().unwrap();
                });
                assert!(shared.done.load(Ordering::Relaxed) >= 3, "{what:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
