//! A daemon without a datapath: it edits a text as the real one does its file, and says the rest.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use lb_daemon::{
    config::{
        self,
        edit::{self, Edit, EditError},
    },
    control::{
        ConfigStatus, Control, Forwards, Interface, Neighbour, RealServer, Refusal, RefusalKind,
        Service, Status, VirtualRouter, server,
    },
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot};

/// Serves on a socket of its own until it is dropped.
pub(crate) struct Fake {
    pub(crate) socket: PathBuf,
    pub(crate) control: Arc<FakeControl>,
    folder: TempDir,
    runtime: Option<Runtime>,
    shutdown: Option<oneshot::Sender<()>>,
}

pub(crate) struct FakeControl {
    text: Mutex<String>,
    pub(crate) status: Mutex<Status>,
    /// What the next reload is refused with.
    pub(crate) refuse_reload: Mutex<Option<String>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // So that another user can reach the socket, if not open it.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = folder.path().join("run/lbd.sock");
        let control = Arc::new(FakeControl {
            text: Mutex::new(TEXT.to_owned()),
            status: Mutex::new(status()),
            refuse_reload: Mutex::default(),
        });
        let runtime = Runtime::new().unwrap();
        let (shutdown, stopped) = oneshot::channel::<()>();
        let listener = {
            let _within = runtime.enter();
            server::bind(&socket).unwrap()
        };
        runtime.spawn(server::serve(listener, Arc::clone(&control), async {
            let _ = stopped.await;
        }));
        Self { socket, control, folder, runtime: Some(runtime), shutdown: Some(shutdown) }
    }

    /// A folder that goes with the fake.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn text(&self) -> String {
        self.control.text.lock().unwrap().clone()
    }

    pub(crate) fn lbctl(&self, arguments: &[&str]) -> Output {
        lbctl(&self.socket, arguments)
    }

    /// The standard output of a verb that succeeds.
    #[track_caller]
    pub(crate) fn prints(&self, arguments: &[&str]) -> String {
        let output = self.lbctl(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        assert_eq!(stderr, "", "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code and the standard error of a verb that fails and prints nothing else.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str]) -> (i32, String) {
        failure(self.lbctl(arguments))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn lbctl(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lbctl"))
        .args(arguments)
        .env("LBD_SOCKET", socket)
        .output()
        .unwrap()
}

#[track_caller]
pub(crate) fn failure(output: Output) -> (i32, String) {
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

impl Control for FakeControl {
    async fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    async fn services(&self) -> Vec<Service> {
        self.config().virtual_services.iter().map(service).collect()
    }

    async fn real_servers(&self, service: Option<&str>) -> Result<Vec<RealServer>, Refusal> {
        let services = self.config().virtual_services;
        if let Some(name) = service
            && services.iter().all(|service| service.name != name)
        {
            let known = services.into_iter().map(|service| service.name).collect();
            return Err(EditError::unknown_service(name, known).into());
        }
        let services =
            services.iter().filter(|found| service.is_none_or(|name| found.name == name));
        Ok(services.flat_map(real_servers).collect())
    }

    async fn virtual_routers(&self) -> Vec<VirtualRouter> {
        self.status.lock().unwrap().virtual_routers.clone()
    }

    async fn edit(&self, edit: Edit) -> Result<(), Refusal> {
        let mut text = self.text.lock().unwrap();
        let edited = edit::apply(&text, &edit)?;
        config::load(Path::new("lbd.toml"), &edited)?;
        *text = edited;
        Ok(())
    }

    async fn reload(&self) -> Result<(), Refusal> {
        match self.refuse_reload.lock().unwrap().take() {
            Some(why) => Err(Refusal::new(RefusalKind::Invalid, why)),
            None => Ok(()),
        }
    }
}

impl FakeControl {
    fn config(&self) -> config::Config {
        config::load(Path::new("lbd.toml"), &self.text.lock().unwrap()).unwrap()
    }
}

const TEXT: &str = r#"[director]
interfaces = ["eth0"]

[[virtual-service]]
name = "web"
address = "10.77.0.100:80"

[[virtual-service.real-server]]
address = "10.77.0.11"
weight = 1

[[virtual-service.real-server]]
address = "10.77.0.12"
weight = 3

[[virtual-service]]
name = "dns"
address = "10.77.0.100:53"
protocol = "udp"
"#;

fn service(service: &lb_daemon::service::VirtualService) -> Service {
    let number = service.real_servers.len();
    Service {
        name: service.name.clone(),
        address: service.address,
        protocol: service.protocol,
        forwarding: service.forwarding,
        forwards: if number == 0 { Forwards::NoRealServer } else { Forwards::Yes },
        table_size: service.table_size,
        table_digest: "0123456789abcdef0123456789abcdef".to_owned(),
        real_servers: number,
        real_servers_ready: number.saturating_sub(1),
    }
}

fn real_servers(service: &lb_daemon::service::VirtualService) -> Vec<RealServer> {
    let total: f64 = service.real_servers.iter().map(|real| f64::from(real.weight)).sum();
    service
        .real_servers
        .iter()
        .enumerate()
        .map(|(i, real)| RealServer {
            service: service.name.clone(),
            address: real.address,
            weight: real.weight,
            share: f64::from(real.weight) / total,
            neighbour: if i == 0 { Neighbour::Ready } else { Neighbour::Unresolved },
            mac: (i == 0).then(|| "02:00:00:00:00:0b".to_owned()),
            interface: Some("eth0".to_owned()),
        })
        .collect()
}

fn status() -> Status {
    Status {
        director: "lb1".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 4242,
        uptime_ms: 192_345,
        config: ConfigStatus { file: "/etc/lbd/lbd.toml".into(), refused: None },
        interfaces: vec![
            Interface { name: "eth0".to_owned(), xdp_mode: "native".to_owned(), reason: None },
            Interface {
                name: "eth1".to_owned(),
                xdp_mode: "generic".to_owned(),
                reason: Some("the driver has no native XDP".to_owned()),
            },
        ],
        virtual_services: config::load(Path::new("lbd.toml"), TEXT)
            .unwrap()
            .virtual_services
            .iter()
            .map(service)
            .collect(),
        virtual_routers: vec![
            router("web-vip", 51, "active", None),
            router("dns-vip", 52, "backup", Some([10, 77, 0, 2].into())),
        ],
        verdicts: BTreeMap::from([
            ("forwarded".to_owned(), 1_234_567),
            ("not-ours".to_owned(), 89),
            ("truncated".to_owned(), 0),
        ]),
        warnings: vec!["eth1 runs generic XDP, which is slow".to_owned()],
    }
}

fn router(
    name: &str,
    vrid: u8,
    state: &str,
    active_router: Option<std::net::Ipv4Addr>,
) -> VirtualRouter {
    VirtualRouter {
        name: name.to_owned(),
        interface: "eth0".to_owned(),
        vrid,
        priority: 150,
        advertisement_interval_ms: 100,
        state: state.to_owned(),
        since_ms: 61_000,
        cause: "no advertisement for 341 ms".to_owned(),
        vips: vec!["10.77.0.100/24".to_owned()],
        active_router,
        transitions: 2,
        advertisements_sent: 1_610,
        advertisements_received: 3,
        other_vips: 0,
        discarded: BTreeMap::from([("ttl".to_owned(), 7), ("checksum".to_owned(), 0)]),
    }
}
