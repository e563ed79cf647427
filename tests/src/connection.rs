//! One connection of the client that checks every byte, in both directions, and knows how far
//! the real server has confirmed its upload.

use std::{
    cell::Cell,
    fmt, io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Mutex,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use crate::payload::{Hello, MAX_BLOCK, Pace, Pattern, Trailer};

mod silence;

use silence::Pauses;
pub use silence::Silence;

/// What a connection carries until it is told to finish.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Unique in a run: determines the content.
    pub connection: u64,
    /// Bytes at a time, every `pace`.
    pub upload_block: usize,
    pub download_block: u32,
    pub pace: Duration,
    pub silence: Option<Silence>,
}

/// Bytes of upload, for others to watch; of all connections that have had this place.
#[derive(Debug, Default)]
pub struct Progress {
    pub sent: AtomicU64,
    /// By the real server, in its download: these bytes went all the way and back.
    pub confirmed: AtomicU64,
    /// Who has the connection, once that is known.
    real_server: Mutex<Option<String>>,
}

impl Progress {
    pub fn real_server(&self) -> Option<String> {
        self.real_server.lock().expect("no holder panics").clone()
    }

    pub(crate) fn forget_real_server(&self) {
        *self.real_server.lock().expect("no holder panics") = None;
    }
}

/// How a connection that worked ended.
#[derive(Debug)]
pub struct Finished {
    pub trailer: Trailer,
    pub longest_stall: Duration,
}

/// How a connection broke; the text is for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The other side, or somebody in between, ended it.
    Reset(String),
    TimedOut(String),
    Corrupted(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(why) => write!(f, "reset: {why}"),
            Self::TimedOut(why) => write!(f, "timed out: {why}"),
            Self::Corrupted(why) => write!(f, "corrupted: {why}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            Self::TimedOut(error.to_string())
        } else {
            Self::Reset(error.to_string())
        }
    }
}

/// Opens a connection; the kernel repeats the SYN for as long as the caller waits.
///
/// From a port that none had before, as far as there are any: a real server that is gone may have
/// the other half of a broken one yet, and would not take a new one for it.
pub async fn open(target: SocketAddrV4) -> Result<TcpStream, Failure> {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed).max(FIRST_PORT);
        let socket = TcpSocket::new_v4()?;
        match socket.bind((Ipv4Addr::UNSPECIFIED, port).into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(error.into()),
        }
        let stream = socket.connect(target.into()).await?;
        stream.set_nodelay(true)?;
        return Ok(stream);
    }
}

/// Below are the ports of services.
const FIRST_PORT: u16 = 1_024;

/// Sends and receives until `finish` turns true, then ends the upload and compares what both
/// sides counted.
pub async fn carry(
    mut stream: TcpStream,
    plan: Plan,
    progress: &Progress,
    finish: watch::Receiver<bool>,
) -> Result<Finished, Failure> {
    let stall = Stall::new(plan.pace);
    let before = progress.sent.load(Ordering::Relaxed);
    let (mut reader, mut writer) = stream.split();
    let (sent, (received, trailer)) = tokio::try_join!(
        upload(&mut writer, plan, progress, before, &stall, finish),
        download(&mut reader, plan, progress, before, &stall)
    )?;
    if let Some(fault) = trailer.fault {
        return Err(Failure::Corrupted(format!("upload to {}: {fault}", trailer.real_server)));
    }
    if (trailer.received, trailer.sent) != (sent, received) {
        return Err(Failure::Corrupted(format!(
            "{}: {} of {sent} bytes uploaded, {received} of {} bytes downloaded",
            trailer.real_server, trailer.received, trailer.sent
        )));
    }
    Ok(Finished { trailer, longest_stall: stall.longest.get() })
}

async fn upload(
    writer: &mut WriteHalf<'_>,
    plan: Plan,
    progress: &Progress,
    before: u64,
    stall: &Stall,
    mut finish: watch::Receiver<bool>,
) -> Result<u64, Failure> {
    let Plan { connection, download_block: block, silence, .. } = plan;
    let pace = silence.map_or(Pace::Every(plan.pace), |_| Pace::Answering);
    writer.write_all(&Hello { connection, pace, block }.encode()).await?;
    let mut pauses = Pauses::new(plan);
    let pattern = Pattern::upload(connection);
    let len = u32::try_from(plan.upload_block).unwrap_or(u32::MAX).to_le_bytes();
    let mut sent = 0;
    loop {
        let mut bytes = len.to_vec();
        bytes.resize(len.len() + plan.upload_block, 0);
        pattern.fill(sent, &mut bytes[len.len()..]);
        writer.write_all(&bytes).await?;
        sent += plan.upload_block as u64;
        progress.sent.store(before + sent, Ordering::Relaxed);
        let pause = pauses.next();
        // A sender that is gone wants no more, too.
        if tokio::time::timeout(pause, finish.wait_for(|finish| *finish)).await.is_ok() {
            writer.write_all(&0_u32.to_le_bytes()).await?;
            return Ok(sent);
        }
        if pause > plan.pace {
            stall.nothing_was_due();
        }
    }
}

async fn download(
    reader: &mut ReadHalf<'_>,
    plan: Plan,
    progress: &Progress,
    before: u64,
    stall: &Stall,
) -> Result<(u64, Trailer), Failure> {
    let real_server = name(reader).await?;
    *progress.real_server.lock().expect("no holder panics") = Some(real_server.clone());
    let pattern = Pattern::download(plan.connection);
    let mut received = 0;
    let mut confirmed_before = 0;
    loop {
        let len = reader.read_u32_le().await? as usize;
        let confirmed = reader.read_u64_le().await?;
        if confirmed > confirmed_before {
            confirmed_before = confirmed;
            stall.confirmed();
            progress.confirmed.store(before + confirmed, Ordering::Relaxed);
        }
        if len == 0 {
            let len = reader.read_u32_le().await? as usize;
            let text = block(reader, len).await?;
            let trailer: Trailer = serde_json::from_slice(&text)
                .map_err(|error| Failure::Corrupted(format!("trailer: {error}")))?;
            if trailer.real_server != real_server {
                let why = format!("{real_server} began and {} ended", trailer.real_server);
                return Err(Failure::Corrupted(why));
            }
            return Ok((received, trailer));
        }
        let bytes = block(reader, len).await?;
        pattern
            .check(received, &bytes)
            .map_err(|mismatch| Failure::Corrupted(format!("download: {mismatch}")))?;
        received += len as u64;
    }
}

async fn name(reader: &mut ReadHalf<'_>) -> Result<String, Failure> {
    let len = reader.read_u8().await?;
    let mut name = vec![0; len.into()];
    reader.read_exact(&mut name).await?;
    String::from_utf8(name).map_err(|error| Failure::Corrupted(format!("name: {error}")))
}

async fn block(reader: &mut ReadHalf<'_>, len: usize) -> Result<Vec<u8>, Failure> {
    if len > MAX_BLOCK {
        let why = format!("download: a block of {len} bytes, at most {MAX_BLOCK} expected");
        return Err(Failure::Corrupted(why));
    }
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// How long the connection stood still: from the moment when the next confirmation was due
/// (a pace after the last, or after a silence) to when it came.
struct Stall {
    pace: Duration,
    last: Cell<Option<Instant>>,
    longest: Cell<Duration>,
}

impl Stall {
    fn new(pace: Duration) -> Self {
        Self { pace, last: Cell::new(None), longest: Cell::new(Duration::ZERO) }
    }

    fn nothing_was_due(&self) {
        self.last.set(Some(Instant::now()));
    }

    fn confirmed(&self) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(Some(now)) {
            let late = now.duration_since(last).saturating_sub(self.pace);
            self.longest.set(self.longest.get().max(late));
        }
    }
}
