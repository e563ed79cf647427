//! The daemon's side of the API: the socket, the routes, and errors as JSON on every path.

use std::{
    fs, io,
    net::Ipv4Addr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{DefaultBodyLimit, FromRequest, Path as UrlPath, Request, State},
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use nix::unistd::{Group, chown};
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixListener, sync::oneshot, time};

use super::{
    Control, Explanation, NewRealServer, NewService, RealServer, RealServerChange, Refusal,
    RefusalKind, Service, ServiceDetail, Stats, Status, VirtualRouter,
};
use crate::config::edit::Edit;

/// For one request, its body included; a client waits longer than this.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a shutdown waits for requests under way.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);
const BODY_LIMIT_BYTES: usize = 64 * 1024;
const SOCKET_MODE: u32 = 0o660;
/// Its members may use the socket, where the group exists.
const SOCKET_GROUP: &str = "lbd";

/// Listens on `socket`, whose folder is made if it is missing, with mode 0660 for group `lbd`.
///
/// A socket that nobody answers on is replaced; [`io::ErrorKind::AddrInUse`] where another `lbd`
/// does. Must be called within a tokio runtime.
pub fn bind(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder)?;
    }
    remove_stale(socket)?;
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(SOCKET_MODE))?;
    if let Some(group) = Group::from_name(SOCKET_GROUP)? {
        chown(socket, None, Some(group.gid))?;
    }
    Ok(listener)
}

fn remove_stale(socket: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(socket) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Connecting to a file that is no socket is refused as well, and it must not be removed.
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is not a socket"));
    }
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another lbd answers on it")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(socket),
        Err(error) => Err(error),
    }
}

/// Answers requests until `shutdown`, then lets those under way end, and removes the socket.
pub async fn serve<C: Control>(
    listener: UnixListener,
    control: Arc<C>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let socket = listener.local_addr()?.as_pathname().map(Path::to_owned);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, routes(control)).with_graceful_shutdown(async {
        // An error is the sender dropped, which also means to stop.
        let _ = stopped.await;
    });
    let result = tokio::select! {
        result = server => result,
        // A client that keeps its connection open must not keep the daemon alive.
        () = async {
            shutdown.await;
            let _ = stop.send(());
            time::sleep(SHUTDOWN_LIMIT).await;
        } => Ok(()),
    };
    if let Some(socket) = socket {
        let _ = fs::remove_file(socket);
    }
    result
}

fn routes<C: Control>(control: Arc<C>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<C>))
        .route("/v1/services", get(services::<C>).post(add_service::<C>))
        .route("/v1/services/{name}", get(service::<C>).delete(delete_service::<C>))
        .route("/v1/services/{name}/real-servers", post(add_real_server::<C>))
        .route(
            "/v1/services/{name}/real-servers/{address}",
            patch(set_real_server::<C>).delete(delete_real_server::<C>),
        )
        .route("/v1/real-servers", get(real_servers::<C>))
        .route("/v1/virtual-routers", get(virtual_routers::<C>))
        .route("/v1/stats", get(stats::<C>))
        .route("/v1/flows/explain", get(explain::<C>))
        .route("/v1/config/reload", post(reload::<C>))
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(middleware::from_fn(answer))
        .with_state(control)
}

async fn status<C: Control>(State(control): State<Arc<C>>) -> Json<Status> {
    Json(control.status().await)
}

async fn services<C: Control>(State(control): State<Arc<C>>) -> Json<Vec<Service>> {
    Json(control.services().await)
}

async fn service<C: Control>(
    State(control): State<Arc<C>>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<ServiceDetail>, Refusal> {
    Ok(Json(control.service(&name).await?))
}

async fn real_servers<C: Control>(
    State(control): State<Arc<C>>,
    uri: Uri,
) -> Result<Json<Vec<RealServer>>, Refusal> {
    let service = service_of_query(uri.query())?;
    Ok(Json(control.real_servers(service.as_deref()).await?))
}

async fn virtual_routers<C: Control>(State(control): State<Arc<C>>) -> Json<Vec<VirtualRouter>> {
    Json(control.virtual_routers().await)
}

async fn stats<C: Control>(State(control): State<Arc<C>>) -> Json<Stats> {
    Json(control.stats().await)
}

async fn explain<C: Control>(
    State(control): State<Arc<C>>,
    uri: Uri,
) -> Result<Json<Explanation>, Refusal> {
    let query = uri.query().unwrap_or_default().parse()?;
    Ok(Json(control.explain(query).await?))
}

async fn add_service<C: Control>(
    State(control): State<Arc<C>>,
    Body(service): Body<NewService>,
) -> Result<(StatusCode, Json<Edit>), Refusal> {
    let done = edit(control, Edit::AddService(service)).await?;
    Ok((StatusCode::CREATED, done))
}

async fn delete_service<C: Control>(
    State(control): State<Arc<C>>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<Edit>, Refusal> {
    edit(control, Edit::DeleteService { name }).await
}

async fn add_real_server<C: Control>(
    State(control): State<Arc<C>>,
    UrlPath(service): UrlPath<String>,
    Body(NewRealServer { address, weight }): Body<NewRealServer>,
) -> Result<(StatusCode, Json<Edit>), Refusal> {
    let done = edit(control, Edit::AddRealServer { service, address, weight }).await?;
    Ok((StatusCode::CREATED, done))
}

async fn set_real_server<C: Control>(
    State(control): State<Arc<C>>,
    UrlPath((service, address)): UrlPath<(String, Ipv4Addr)>,
    Body(RealServerChange { weight }): Body<RealServerChange>,
) -> Result<Json<Edit>, Refusal> {
    edit(control, Edit::SetRealServer { service, address, weight }).await
}

async fn delete_real_server<C: Control>(
    State(control): State<Arc<C>>,
    UrlPath((service, address)): UrlPath<(String, Ipv4Addr)>,
) -> Result<Json<Edit>, Refusal> {
    edit(control, Edit::DeleteRealServer { service, address }).await
}

#[derive(Serialize)]
struct Reloaded {
    reloaded: bool,
}

async fn reload<C: Control>(State(control): State<Arc<C>>) -> Result<Json<Reloaded>, Refusal> {
    to_the_end(async move { control.reload().await }).await?;
    Ok(Json(Reloaded { reloaded: true }))
}

/// The answer to a change is the change, as it was understood.
async fn edit<C: Control>(control: Arc<C>, edit: Edit) -> Result<Json<Edit>, Refusal> {
    let done = edit.clone();
    to_the_end(async move { control.edit(edit).await }).await?;
    Ok(Json(done))
}

/// In a task of its own: a client that hangs up, or is late, must not stop a change half-way.
async fn to_the_end(
    change: impl Future<Output = Result<(), Refusal>> + Send + 'static,
) -> Result<(), Refusal> {
    tokio::spawn(change).await.unwrap_or_else(|_| {
        let message = "lbd stopped in the middle of the change: see its log";
        Err(Refusal::new(RefusalKind::Failed, message))
    })
}

/// A JSON body, whatever the content type says.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes =
            Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        serde_json::from_slice(&bytes).map(Body).map_err(|error| {
            Refusal::new(RefusalKind::Invalid, format!("request body: {error}")).into_response()
        })
    }
}

fn service_of_query(query: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    match query.split_once('=') {
        Some(("service", name)) if !name.contains('&') => {
            Ok(Some(percent_decode_str(name).decode_utf8_lossy().into_owned()))
        }
        Some(_) | None => Err(Refusal::new(
            RefusalKind::Invalid,
            format!("query `{query}`, expected `service=NAME` or none"),
        )),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

/// Limits the time of a request, and gives the errors of the framework the form of a [`Refusal`].
async fn answer(request: Request, next: Next) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let Ok(response) = time::timeout(REQUEST_LIMIT, next.run(request)).await else {
        let message = format!("{asked} took more than {REQUEST_LIMIT:?}; it may still be done");
        return Refusal::new(RefusalKind::Failed, message).into_response();
    };
    let status = response.status();
    let json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (kind, problem) = if status == StatusCode::NOT_FOUND {
        (RefusalKind::NotFound, "no such path".to_owned())
    } else if status == StatusCode::METHOD_NOT_ALLOWED {
        (RefusalKind::Invalid, "not a method of this path".to_owned())
    } else {
        let text = to_bytes(response.into_body(), BODY_LIMIT_BYTES).await.unwrap_or_default();
        (RefusalKind::Invalid, String::from_utf8_lossy(&text).into_owned())
    };
    (status, Json(Refusal::new(kind, format!("{asked}: {problem}")))).into_response()
}
