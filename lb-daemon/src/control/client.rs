//! `lbctl`'s side of the API.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time};

use super::{
    Explanation, FlowQuery, NewRealServer, RealServer, RealServerChange, Refusal, Service,
    ServiceDetail, Stats, Status, VirtualRouter,
};
use crate::config::edit::Edit;

/// Longer than the daemon gives itself for a request.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Makes one connection a request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "lbd is not running (no socket at {}): start it with `lbd --config FILE`, or name its \
         socket with --socket",
        socket.display()
    )]
    NoSocket { socket: PathBuf },
    #[error(
        "lbd is not running (nobody listens on {}): start it with `lbd --config FILE`, or name \
         its socket with --socket",
        socket.display()
    )]
    NobodyListens { socket: PathBuf },
    #[error("{} is not a socket: name lbd's with --socket", socket.display())]
    NotASocket { socket: PathBuf },
    #[error(
        "permission denied on {}: you are not in group lbd; try sudo",
        socket.display()
    )]
    Denied { socket: PathBuf },
    #[error("connect to {}: {source}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error(
        "lbd has not answered on {} for {} s: see its log",
        socket.display(),
        ANSWER_LIMIT.as_secs()
    )]
    TimedOut { socket: PathBuf },
    #[error("lbd closed {} before its answer was complete ({source}): see its log", socket.display())]
    Closed { socket: PathBuf, source: hyper::Error },
    #[error(
        "lbd's answer is not understood ({problem}): this is lbctl {}, compare `lbd --version`",
        env!("CARGO_PKG_VERSION")
    )]
    NotUnderstood { problem: String },
    #[error(transparent)]
    Refused(Refusal),
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    pub async fn services(&self) -> Result<Vec<Service>, ClientError> {
        self.get("/v1/services").await
    }

    pub async fn service(&self, name: &str) -> Result<ServiceDetail, ClientError> {
        self.get(&format!("/v1/services/{}", encoded(name))).await
    }

    /// Of one service, or of all.
    pub async fn real_servers(
        &self,
        service: Option<&str>,
    ) -> Result<Vec<RealServer>, ClientError> {
        match service {
            Some(name) => self.get(&format!("/v1/real-servers?service={}", encoded(name))).await,
            None => self.get("/v1/real-servers").await,
        }
    }

    pub async fn virtual_routers(&self) -> Result<Vec<VirtualRouter>, ClientError> {
        self.get("/v1/virtual-routers").await
    }

    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get("/v1/stats").await
    }

    pub async fn explain(&self, query: &FlowQuery) -> Result<Explanation, ClientError> {
        let FlowQuery { src, dst, protocol, packet, interface } = query;
        let mut path =
            format!("/v1/flows/explain?src={src}&dst={dst}&protocol={protocol}&packet={packet}");
        if let Some(interface) = interface {
            path += &format!("&interface={}", encoded(interface));
        }
        self.get(&path).await
    }

    /// Returns once the change is in the file and runs.
    pub async fn edit(&self, edit: &Edit) -> Result<(), ClientError> {
        match edit {
            Edit::AddService(service) => {
                self.change(Method::POST, "/v1/services", json(service)?).await
            }
            Edit::DeleteService { name } => {
                let path = format!("/v1/services/{}", encoded(name));
                self.change(Method::DELETE, &path, Bytes::new()).await
            }
            Edit::AddRealServer { service, address, weight } => {
                let path = format!("/v1/services/{}/real-servers", encoded(service));
                let body = NewRealServer { address: *address, weight: *weight };
                self.change(Method::POST, &path, json(&body)?).await
            }
            Edit::SetRealServer { service, address, weight } => {
                let path = format!("/v1/services/{}/real-servers/{address}", encoded(service));
                let body = RealServerChange { weight: *weight };
                self.change(Method::PATCH, &path, json(&body)?).await
            }
            Edit::DeleteRealServer { service, address } => {
                let path = format!("/v1/services/{}/real-servers/{address}", encoded(service));
                self.change(Method::DELETE, &path, Bytes::new()).await
            }
        }
    }

    pub async fn reload(&self) -> Result<(), ClientError> {
        self.change(Method::POST, "/v1/config/reload", Bytes::new()).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.answer(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|error| not_understood(&error))
    }

    async fn change(&self, method: Method, path: &str, body: Bytes) -> Result<(), ClientError> {
        // Whatever a later version tells about the change: it has been made.
        self.answer(method, path, body).await.map(|_| ())
    }

    /// The body of a successful answer.
    async fn answer(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "lbd")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| not_understood(&error))?;
        let (status, body) = time::timeout(ANSWER_LIMIT, self.exchange(request))
            .await
            .map_err(|_| ClientError::TimedOut { socket: self.socket.clone() })??;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice(&body) {
            Ok(refusal) => Err(ClientError::Refused(refusal)),
            Err(error) => Err(ClientError::NotUnderstood { problem: format!("{status}, {error}") }),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| connect_error(&self.socket, error))?;
        let closed = |source| ClientError::Closed { socket: self.socket.clone(), source };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(closed)?;
        // Its errors also reach the request.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(closed)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(closed)?;
        Ok((status, body.to_bytes()))
    }
}

fn connect_error(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_owned();
    let kind = source.kind();
    if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&kind) {
        ClientError::NoSocket { socket }
    } else if kind == io::ErrorKind::ConnectionRefused && !is_socket(&socket) {
        ClientError::NotASocket { socket }
    } else if kind == io::ErrorKind::ConnectionRefused {
        ClientError::NobodyListens { socket }
    } else if kind == io::ErrorKind::PermissionDenied {
        ClientError::Denied { socket }
    } else {
        ClientError::Connect { socket, source }
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// A name with characters that mean something in a path is unknown to the daemon, not a fault.
fn encoded(name: &str) -> impl std::fmt::Display {
    utf8_percent_encode(name, NON_ALPHANUMERIC)
}

fn json(body: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| not_understood(&error))
}

fn not_understood(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::NotUnderstood { problem: error.to_string() }
}
