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
        Change, Choice, ConfigStatus, Control, Counters, Exceptions, Explanation, FlowQuery,
        Forwards, Hop, Interface, Memory, Neighbour, PacketKind, PreviousOwner, RealServer,
        RealServerDetail, RealServerState, RealServerStats, Refusal, RefusalKind, Service,
        ServiceDetail, ServiceStats, Stats, Status, VirtualRouter, server,
    },
    service::{Forwarding, Hash, Protocol, VirtualService},
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
    asked_for_stats: Mutex<u64>,
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
            asked_for_stats: Mutex::default(),
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

    async fn service(&self, name: &str) -> Result<ServiceDetail, Refusal> {
        let found = self.find(name)?;
        let detail = |(i, real_server)| RealServerDetail {
            real_server,
            services: 1 + i,
            counters: counters(Protocol::Tcp, 1 + i as u64),
        };
        Ok(ServiceDetail {
            counters: counters(found.protocol, 3),
            real_servers: real_servers(&found).into_iter().enumerate().map(detail).collect(),
            service: service(&found),
        })
    }

    async fn real_servers(&self, service: Option<&str>) -> Result<Vec<RealServer>, Refusal> {
        match service {
            Some(name) => Ok(real_servers(&self.find(name)?)),
            None => Ok(self.config().virtual_services.iter().flat_map(real_servers).collect()),
        }
    }

    /// Each time it is asked, a second later and a thousand packets on.
    async fn stats(&self) -> Stats {
        let mut asked = self.asked_for_stats.lock().unwrap();
        *asked += 1;
        stats(&self.config().virtual_services, *asked)
    }

    async fn explain(&self, query: FlowQuery) -> Result<Explanation, Refusal> {
        query.check()?;
        Ok(explanation(&query))
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
    fn find(&self, name: &str) -> Result<VirtualService, Refusal> {
        let services = self.config().virtual_services;
        let known = services.iter().map(|service| service.name.clone()).collect();
        let found = services.into_iter().find(|service| service.name == name);
        found.ok_or_else(|| EditError::unknown_service(name, known).into())
    }

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

/// TCP has a change in progress and a table of others.
fn service(service: &VirtualService) -> Service {
    let number = service.real_servers.len();
    let tcp = service.protocol == Protocol::Tcp;
    Service {
        name: service.name.clone(),
        address: service.address,
        protocol: service.protocol,
        forwarding: service.forwarding,
        hash: service.hash,
        tracking: service.tracking.map(Into::into),
        forwards: if number == 0 { Forwards::NoRealServer } else { Forwards::Yes },
        table_size: service.table_size,
        table_digest: "0123456789abcdef0123456789abcdef".to_owned(),
        table_shared_with: if tcp { 2 } else { 0 },
        largest_deviation: if tcp { 0.000_021 } else { 0.0 },
        slots_moved: tcp.then_some(656),
        change: tcp.then_some(Change {
            slots: 656,
            exceptions: 12,
            since_ms: 40_000,
            ends_in_ms: 3_560_000,
        }),
        real_servers: number,
        real_servers_ready: number.saturating_sub(1),
    }
}

fn real_servers(service: &VirtualService) -> Vec<RealServer> {
    let total: f64 = service.real_servers.iter().map(|real| f64::from(real.weight)).sum();
    service
        .real_servers
        .iter()
        .enumerate()
        .map(|(i, real)| RealServer {
            service: service.name.clone(),
            address: real.address,
            weight: real.weight,
            state: RealServerState::of_weight(real.weight),
            share: f64::from(real.weight) / total,
            exact_share: f64::from(real.weight) / total,
            slots_previous: if i == 0 { 656 } else { 0 },
            exceptions: if i == 0 { 0 } else { 12 },
            neighbour: if i == 0 { Neighbour::Ready } else { Neighbour::Unresolved },
            mac: (i == 0).then(|| "02:00:00:00:00:0b".to_owned()),
            interface: Some("eth0".to_owned()),
        })
        .collect()
}

fn stats(services: &[VirtualService], asked: u64) -> Stats {
    let service = |service: &VirtualService| ServiceStats {
        name: service.name.clone(),
        address: service.address,
        protocol: service.protocol,
        counters: counters(service.protocol, asked),
    };
    let real_servers = services.iter().flat_map(|service| &service.real_servers);
    Stats {
        monotonic_ms: 5_000_000 + 1_000 * asked,
        services: services.iter().map(service).collect(),
        real_servers: real_servers
            .map(|real| RealServerStats {
                address: real.address,
                counters: counters(Protocol::Tcp, asked),
            })
            .collect(),
        verdicts: BTreeMap::from([
            ("forwarded".to_owned(), 2_000 * asked),
            ("not-ours".to_owned(), 89),
            ("truncated".to_owned(), 0),
        ]),
        exceptions: Exceptions { noted: 12, opening: 3, capacity: 65_536 },
    }
}

fn counters(protocol: Protocol, thousands: u64) -> Counters {
    Counters {
        packets: 1_000 * thousands,
        bytes: 1_250_000 * thousands,
        new_flows: (protocol == Protocol::Tcp).then_some(10 * thousands),
    }
}

/// Port 80 has a service; a SYN goes to the current owner.
fn explanation(query: &FlowQuery) -> Explanation {
    let served = query.dst.port() == 80;
    let opening = query.packet == PacketKind::Opening;
    let (current, previous) = ([10, 77, 0, 12].into(), [10, 77, 0, 11].into());
    Explanation {
        src: query.src,
        dst: query.dst,
        protocol: query.protocol,
        packet: query.packet,
        interface: query.interface.clone().unwrap_or("eth0".to_owned()),
        verdict: if served { "forwarded" } else { "not-virtual-service" }.to_owned(),
        action: if served { "transmit" } else { "pass" }.to_owned(),
        service: served.then(|| "web".to_owned()),
        active: served,
        hash: served.then_some(Hash::Flow),
        slot: served.then_some(4_711),
        current: served.then_some(current),
        previous: served.then_some(PreviousOwner { address: previous, down: false }),
        real_server: served.then_some(if opening { current } else { previous }),
        choice: served.then_some(if opening { Choice::Opening } else { Choice::Previous }),
        why: if served { "the flow is older than the change" } else { "no service has it" }
            .to_owned(),
        mode: served.then_some(Forwarding::Dr),
        neighbour: served.then(|| Hop {
            state: Neighbour::Ready,
            mac: Some("02:00:00:00:00:0b".to_owned()),
            interface: Some("eth0".to_owned()),
        }),
        mtu: served.then_some(1_500),
        warnings: if served { vec![] } else { vec!["in by eth0 or eth1".to_owned()] },
    }
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
        memory: Memory {
            tables: 1_048_576,
            services: 2_621_440,
            flows: 10_485_760,
            counters: 734_003,
            total: 14_889_779,
        },
        exceptions: Exceptions { noted: 12, opening: 0, capacity: 65_536 },
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
