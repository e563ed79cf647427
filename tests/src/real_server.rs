//! A real TCP server, in a thread of its own in its namespace, that checks what it receives.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread::JoinHandle,
};

use anyhow::Context;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Notify, oneshot},
    task::LocalSet,
};

use crate::{
    lab::{Host, Lab},
    payload::{Hello, MAX_BLOCK, Pace, Pattern, Trailer},
};

/// Stops when dropped; its connections end with it.
pub struct RealServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl RealServer {
    /// Listens on `port` of every address of `host` when this returns.
    pub fn start(host: &Host, port: u16) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = mpsc::channel();
        let name = host.name;
        let thread = host.netns.spawn_thread(name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = LocalSet::new();
            local.block_on(&runtime, async {
                let listener = listen(port)?;
                let _ = ready.send(());
                tokio::select! {
                    result = accept(listener, name) => result,
                    _ = stopped => Ok(()),
                }
            })
        })?;
        let server = Self { stop: Some(stop), thread: Some(thread) };
        match listening.recv() {
            Ok(()) => Ok(server),
            // The thread ended before: its own error says why.
            Err(mpsc::RecvError) => server.failure(port, name),
        }
    }

    /// One on each real server of the lab.
    pub fn start_all(lab: &Lab, port: u16) -> anyhow::Result<Vec<Self>> {
        lab.real_servers.iter().map(|host| Self::start(host, port)).collect()
    }

    fn failure(mut self, port: u16, name: &str) -> anyhow::Result<Self> {
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Err(error))) => Err(error.context(format!("listen on port {port} of {name}"))),
            Some(Ok(Ok(())) | Err(_)) | None => anyhow::bail!("the server of {name} ended"),
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4_096)?;
    TcpListener::from_std(socket.into()).context("register the listener")
}

async fn accept(listener: TcpListener, name: &'static str) -> anyhow::Result<()> {
    loop {
        let (stream, client) = listener.accept().await.context("accept")?;
        // How a connection ended is for its client to say: it knows what should have come.
        tokio::task::spawn_local(async move {
            let _ = serve(stream, client.ip(), name).await;
        });
    }
}

async fn serve(mut stream: TcpStream, client: IpAddr, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut hello = [0; Hello::LEN];
    stream.read_exact(&mut hello).await?;
    let Some(hello) = Hello::decode(hello) else { return Ok(()) };
    let (reader, mut writer) = stream.split();
    let len = u8::try_from(name.len()).map_err(io::Error::other)?;
    writer.write_all(&[&[len], name.as_bytes()].concat()).await?;
    let upload = Upload::default();
    let (fault, sent) =
        tokio::join!(upload.receive(reader, hello), download(&mut writer, hello, &upload));
    let trailer = Trailer {
        real_server: name.to_owned(),
        client: match client {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        },
        received: upload.received.get(),
        sent: sent?,
        fault: fault?,
    };
    let text = serde_json::to_vec(&trailer)?;
    let mut block = block_header(0, &upload).to_vec();
    block.extend((u32::try_from(text.len()).unwrap_or(0)).to_le_bytes());
    block.extend(text);
    writer.write_all(&block).await?;
    // The client closes first, so that it is the one to wait in TIME_WAIT.
    stream.read(&mut [0]).await.map(drop)
}

/// The state of the upload, shared with the download that confirms it.
#[derive(Default)]
struct Upload {
    received: Cell<u64>,
    ended: Cell<bool>,
    wake: Notify,
}

impl Upload {
    /// Reads to the end of the upload; returns what was wrong with it.
    async fn receive(&self, mut reader: ReadHalf<'_>, hello: Hello) -> io::Result<Option<String>> {
        let result = self.receive_blocks(&mut reader, hello).await;
        self.ended.set(true);
        self.wake.notify_one();
        result
    }

    async fn receive_blocks(
        &self,
        reader: &mut ReadHalf<'_>,
        hello: Hello,
    ) -> io::Result<Option<String>> {
        let pattern = Pattern::upload(hello.connection);
        let mut block = Vec::new();
        loop {
            let len = reader.read_u32_le().await? as usize;
            if len == 0 {
                return Ok(None);
            }
            if len > MAX_BLOCK {
                return Ok(Some(format!("a block of {len} bytes, at most {MAX_BLOCK} expected")));
            }
            block.resize(len, 0);
            reader.read_exact(&mut block).await?;
            if let Err(mismatch) = pattern.check(self.received.get(), &block) {
                return Ok(Some(mismatch.to_string()));
            }
            self.received.set(self.received.get() + len as u64);
            match hello.pace {
                Pace::Answering => self.wake.notify_one(),
                Pace::Every(_) => {}
            }
        }
    }
}

/// Sends blocks when it is asked to until the upload has ended, at least one; returns the bytes
/// sent.
async fn download(writer: &mut WriteHalf<'_>, hello: Hello, upload: &Upload) -> io::Result<u64> {
    let pattern = Pattern::download(hello.connection);
    let mut sent = 0;
    loop {
        if hello.pace == Pace::Answering {
            upload.wake.notified().await;
        }
        let mut block = block_header(hello.block, upload).to_vec();
        let header = block.len();
        block.resize(header + hello.block as usize, 0);
        pattern.fill(sent, &mut block[header..]);
        writer.write_all(&block).await?;
        sent += u64::from(hello.block);
        if upload.ended.get() {
            return Ok(sent);
        }
        if let Pace::Every(pace) = hello.pace {
            // Of no consequence which: the end of the upload only makes it earlier.
            let _ = tokio::time::timeout(pace, upload.wake.notified()).await;
        }
        if upload.ended.get() {
            return Ok(sent);
        }
    }
}

fn block_header(len: u32, upload: &Upload) -> [u8; 12] {
    let mut header = [0; 12];
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[4..].copy_from_slice(&upload.received.get().to_le_bytes());
    header
}
