//! What the API asks of the daemon. Changes take turns, and hold up those who only look no longer
//! than the kernel takes.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex as Fact, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, watch},
    time::MissedTickBehavior,
};
use tracing::{info, warn};

use super::{
    file,
    running::{self, Running},
    view,
};
use crate::{
    config::{self, Config, edit},
    control::{
        Control, Explanation, FlowQuery, RealServer, Refusal, RefusalKind, Service, ServiceDetail,
        Stats, Status, VirtualRouter,
    },
    error_chain,
    neighbour::{Resolver, View},
};

mod link;

pub(super) use link::Link;

/// How often the flow table is gone through while a change is in progress.
const AGING: Duration = Duration::from_secs(1);

pub(super) struct Daemon {
    running: Mutex<Running>,
    resolver: Resolver,
    /// The configuration file; absolute.
    file: PathBuf,
    /// Its text, as what runs was read from it. Held by whoever changes either.
    text: Mutex<String>,
    /// Why the last reload was refused.
    refused: Fact<Option<String>>,
    started: Instant,
}

impl Daemon {
    #[expect(clippy::disallowed_methods, reason = "the uptime begins here")]
    pub(super) fn new(running: Running, file: PathBuf, text: String) -> Self {
        let resolver = running.resolver();
        let (running, text) = (Mutex::new(running), Mutex::new(text));
        Self { running, resolver, file, text, refused: Fact::default(), started: Instant::now() }
    }

    /// After a change under way, whoever else still holds the daemon.
    pub(super) async fn stop(&self) {
        self.running.lock().await.stop().await;
    }

    async fn apply(&self, config: Config) -> Result<(), Refusal> {
        running::resolve(&self.resolver, &config).await;
        let applied = self.running.lock().await.apply(config);
        applied.map_err(|error| failed(error_chain(&error)))
    }

    fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_refused(&self, refused: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }
}

/// Keeps the datapath's MAC addresses those of the kernel's neighbours.
pub(super) async fn follow_neighbours(daemon: Arc<Daemon>, mut view: watch::Receiver<View>) {
    while view.changed().await.is_ok() {
        if let Err(error) = daemon.running.lock().await.refresh_neighbours() {
            warn!(error = %error_chain(&error), "the datapath did not take a MAC address");
        }
    }
}

/// Forgets what is remembered of changes, in its time.
pub(super) async fn follow_time(daemon: Arc<Daemon>) {
    let mut ticks = tokio::time::interval(AGING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        ticks.tick().await;
        let aged = daemon.running.lock().await.age();
        let error = aged.err().map(|error| error_chain(&error));
        if let Some(error) = error.as_ref().filter(|_| error != last) {
            warn!(error, "the datapath did not forget a change");
        }
        last = error;
    }
}

impl Control for Daemon {
    async fn status(&self) -> Status {
        let running = self.running.lock().await;
        view::status(&running, &self.file, self.refused().as_deref(), self.started.elapsed())
    }

    async fn services(&self) -> Vec<Service> {
        view::services(&*self.running.lock().await)
    }

    async fn service(&self, name: &str) -> Result<ServiceDetail, Refusal> {
        view::service(&*self.running.lock().await, name)
    }

    async fn real_servers(&self, service: Option<&str>) -> Result<Vec<RealServer>, Refusal> {
        view::real_servers(&*self.running.lock().await, service)
    }

    async fn virtual_routers(&self) -> Vec<VirtualRouter> {
        view::virtual_routers(&self.running.lock().await.routers())
    }

    async fn stats(&self) -> Stats {
        view::stats(&*self.running.lock().await)
    }

    async fn explain(&self, query: FlowQuery) -> Result<Explanation, Refusal> {
        let interfaces = self.running.lock().await.config().director.interfaces.clone();
        let link = link::find(&interfaces, query.interface.as_deref()).await?;
        view::explain(&mut *self.running.lock().await, &query, &link)
    }

    async fn edit(&self, edit: edit::Edit) -> Result<(), Refusal> {
        let mut loaded = self.text.lock().await;
        let file = self.file.display();
        let found = fs::read_to_string(&self.file)
            .map_err(|error| failed(format!("read {file}: {error}")))?;
        if found != *loaded {
            let message = format!(
                "{file} was changed by hand since it was loaded; reload it first with \
                 `lbctl config reload`"
            );
            return Err(Refusal { kind: RefusalKind::Conflict, message });
        }
        let text = edit::apply(&found, &edit)?;
        let config = config::load(&self.file, &text)?;
        file::replace(&self.file, &text).map_err(|error| {
            let mounted = error.kind() == io::ErrorKind::ResourceBusy;
            let hint = if mounted { "; mount its folder instead, as edits replace it" } else { "" };
            failed(format!("write {file}: {error}{hint}"))
        })?;
        if let Err(refusal) = self.apply(config).await {
            return Err(match file::replace(&self.file, &found) {
                Ok(()) => refusal,
                Err(again) => failed(format!("{refusal}; and {file} was not put back: {again}")),
            });
        }
        *loaded = text;
        self.set_refused(None);
        info!(?edit, "edited");
        Ok(())
    }

    async fn reload(&self) -> Result<(), Refusal> {
        let mut loaded = self.text.lock().await;
        let result = match config::read(&self.file) {
            Ok((config, text)) => self.apply(config).await.map(|()| *loaded = text),
            Err(error) => Err(Refusal { kind: RefusalKind::Invalid, message: error.to_string() }),
        };
        match &result {
            Ok(()) => info!(config = %self.file.display(), "reloaded"),
            Err(refusal) => warn!("reload refused; what ran runs on:\n{refusal}"),
        }
        self.set_refused(result.as_ref().err().map(|refusal| refusal.message.clone()));
        result
    }
}

fn failed(message: String) -> Refusal {
    Refusal { kind: RefusalKind::Failed, message }
}
