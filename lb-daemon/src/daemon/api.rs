//! What the API asks of the daemon. One lock: requests and changes take turns.

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::{file, running::Running, view};
use crate::{
    config::{self, edit},
    control::{Control, RealServer, Refusal, RefusalKind, Service, Status, VirtualRouter},
    error_chain,
    neighbour::View,
};

pub(super) struct Daemon {
    running: Mutex<Running>,
    loaded: Mutex<Loaded>,
    started: Instant,
}

/// The configuration file, as what runs was read from it.
struct Loaded {
    file: PathBuf,
    text: String,
    refused: Option<String>,
}

impl Daemon {
    #[expect(clippy::disallowed_methods, reason = "the uptime begins here")]
    pub(super) fn new(running: Mutex<Running>, file: PathBuf, text: String) -> Self {
        let loaded = Mutex::new(Loaded { file, text, refused: None });
        Self { running, loaded, started: Instant::now() }
    }

    /// After a change under way, whoever else still holds the daemon.
    pub(super) async fn stop(&self) {
        self.running.lock().await.stop().await;
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

impl Control for Daemon {
    async fn status(&self) -> Status {
        let loaded = self.loaded.lock().await;
        let running = self.running.lock().await;
        view::status(&running, &loaded.file, loaded.refused.as_deref(), self.started.elapsed())
    }

    async fn services(&self) -> Vec<Service> {
        view::services(&*self.running.lock().await)
    }

    async fn real_servers(&self, service: Option<&str>) -> Result<Vec<RealServer>, Refusal> {
        let running = self.running.lock().await;
        let known = running.config().virtual_services.iter().map(|known| known.name.clone());
        if let Some(name) = service
            && !known.clone().any(|known| known == name)
        {
            let unknown = edit::EditError::unknown_service(name, known.collect());
            return Err(unknown.into());
        }
        Ok(view::real_servers(&running, service))
    }

    async fn virtual_routers(&self) -> Vec<VirtualRouter> {
        view::virtual_routers(&self.running.lock().await.routers())
    }

    async fn edit(&self, edit: edit::Edit) -> Result<(), Refusal> {
        let mut loaded = self.loaded.lock().await;
        let file = loaded.file.clone();
        let found = fs::read_to_string(&file)
            .map_err(|error| failed(format!("read {}: {error}", file.display())))?;
        if found != loaded.text {
            let message = format!(
                "{} was changed by hand since it was loaded; reload it first with \
                 `lbctl config reload`",
                file.display()
            );
            return Err(Refusal { kind: RefusalKind::Conflict, message });
        }
        let text = edit::apply(&found, &edit)?;
        let config = config::load(&file, &text)?;
        file::replace(&file, &text)
            .map_err(|error| failed(format!("write {}: {error}", file.display())))?;
        if let Err(error) = self.running.lock().await.apply(config).await {
            let problem = error_chain(&error);
            return Err(match file::replace(&file, &found) {
                Ok(()) => failed(problem),
                Err(again) => failed(format!(
                    "{problem}; and {} could not be put back: {again}",
                    file.display()
                )),
            });
        }
        loaded.text = text;
        loaded.refused = None;
        info!(?edit, "edited");
        Ok(())
    }

    async fn reload(&self) -> Result<(), Refusal> {
        let mut loaded = self.loaded.lock().await;
        let result = match config::read(&loaded.file) {
            Ok((config, text)) => match self.running.lock().await.apply(config).await {
                Ok(()) => {
                    loaded.text = text;
                    info!(config = %loaded.file.display(), "reloaded");
                    Ok(())
                }
                Err(error) => Err(failed(error_chain(&error))),
            },
            Err(error) => Err(Refusal { kind: RefusalKind::Invalid, message: error.to_string() }),
        };
        loaded.refused = result.as_ref().err().map(|refusal| refusal.message.clone());
        result
    }
}

fn failed(message: String) -> Refusal {
    Refusal { kind: RefusalKind::Failed, message }
}
