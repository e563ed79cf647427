//! The pair of directors, what happens to it, and what must not break with it.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use lb_daemon::control::Status;

use crate::{
    director::{Binaries, Director, Edit, PowerCut, READY_LIMIT, Settings},
    lab::{Lab, POOL, SPARE},
};

/// One thing that happens to a pair, in the order in which each leaves what the next one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// The active director loses power: its link is cut and lbd gets SIGKILL in the same instant
    ActiveDies,
    /// A director of higher priority comes back after a reboot, and preempts
    DirectorReturns,
    /// The active director is told to stop, and hands over
    ActiveResigns,
    /// The lbd of the active director is killed and started again; its datapath forwards on
    DaemonKilled,
    /// A real server is added to the pool
    RealServerAdded,
    /// A real server is drained: it keeps its connections and gets no new ones
    RealServerDrained,
}

/// What becomes of the VIP, or of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// The VIP moves from one director to the other.
    Takeover,
    /// It moves to the other, and back.
    Restart,
    /// It stays, and so do the flows, while the pool changes.
    Change(Edit),
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::ActiveDies => "active-dies",
            Self::DirectorReturns => "director-returns",
            Self::ActiveResigns => "active-resigns",
            Self::DaemonKilled => "daemon-killed",
            Self::RealServerAdded => "real-server-added",
            Self::RealServerDrained => "real-server-drained",
        }
    }

    pub fn course(self) -> Course {
        match self {
            Self::ActiveDies | Self::DirectorReturns | Self::ActiveResigns => Course::Takeover,
            Self::DaemonKilled => Course::Restart,
            Self::RealServerAdded => Course::Change(Edit::Add { real_server: SPARE, weight: 1 }),
            Self::RealServerDrained => {
                Course::Change(Edit::SetWeight { real_server: POOL[1], weight: 0 })
            }
        }
    }

    /// The outage at the client has to stay below this.
    ///
    /// A death is noticed after 3 intervals and the skew, which is below one (RFC 9568 §6.1);
    /// where intervals are so short that the scheduling of a busy machine counts, 60 ms. All else
    /// needs no outage at all: a probe or two, or one wait for the CPU.
    pub fn outage_limit(self, advertisement_interval: Duration) -> Duration {
        match self {
            Self::ActiveDies => (advertisement_interval * 4).max(Duration::from_millis(60)),
            Self::DirectorReturns
            | Self::ActiveResigns
            | Self::DaemonKilled
            | Self::RealServerAdded
            | Self::RealServerDrained => Duration::from_millis(20),
        }
    }

    /// What happens, for the timeline.
    pub fn event(self) -> &'static str {
        match self {
            Self::ActiveDies => "power lost (link cut, SIGKILL)",
            Self::DirectorReturns => "back after a reboot, lbd starts",
            Self::ActiveResigns => "told to stop (SIGTERM)",
            Self::DaemonKilled => "lbd killed (SIGKILL), its datapath stays",
            Self::RealServerAdded => "told to add rs4",
            Self::RealServerDrained => "told to drain rs2 (weight 0)",
        }
    }
}

/// The two directors; `lb1` has the higher priority.
pub struct Pair<'lab> {
    pub lb1: Director<'lab>,
    pub lb2: Director<'lab>,
}

/// What is to happen to a pair in which everything is ready for it.
pub enum Prepared {
    LosePower(PowerCut),
    Start,
    Terminate,
    Kill,
    Edit(Edit),
}

impl<'lab> Pair<'lab> {
    /// Prepared, not started.
    pub fn new(
        lab: &'lab Lab,
        binaries: &Binaries,
        advertisement_interval: Duration,
    ) -> anyhow::Result<Self> {
        let [lb1, lb2] = &lab.directors;
        let settings = |priority| Settings { priority, advertisement_interval };
        Ok(Self {
            lb1: Director::new(lab, lb1, binaries, settings(250))?,
            lb2: Director::new(lab, lb2, binaries, settings(200))?,
        })
    }

    /// Both are ready, `lb1` is active, and they choose alike when this returns.
    pub fn start(&mut self) -> anyhow::Result<[Status; 2]> {
        self.lb1.start()?;
        self.lb2.start()?;
        let first = self.lb1.wait_ready("active", READY_LIMIT)?;
        let second = self.lb2.wait_ready("backup", READY_LIMIT)?;
        self.ensure_alike()?;
        Ok([first, second])
    }

    /// Both have the same Maglev table.
    pub fn ensure_alike(&self) -> anyhow::Result<()> {
        let digests = [self.lb1.table_digest()?, self.lb2.table_digest()?];
        ensure!(digests[0] == digests[1], "the Maglev tables differ: {digests:?}");
        Ok(())
    }

    pub fn prepare(&mut self, scenario: Scenario) -> anyhow::Result<Prepared> {
        self.prepare_directors(scenario)
            .with_context(|| format!("prepare the directors for {}", scenario.name()))?;
        Ok(match scenario.course() {
            Course::Takeover if scenario == Scenario::DirectorReturns => Prepared::Start,
            Course::Takeover if scenario == Scenario::ActiveResigns => Prepared::Terminate,
            Course::Takeover => Prepared::LosePower(self.lb1.arm_power_cut()?),
            Course::Restart => Prepared::Kill,
            Course::Change(edit) => Prepared::Edit(edit),
        })
    }

    fn prepare_directors(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        for director in [&mut self.lb1, &mut self.lb2] {
            if director.restore_configuration()? {
                // Nor is the change in progress any more: a scenario is the same whatever was before.
                director.reboot()?;
            }
        }
        if !self.lb2.is_running() {
            self.lb2.reboot()?;
            self.lb2.start()?;
        }
        if scenario == Scenario::DirectorReturns {
            self.lb1.reboot()?;
            self.lb2.wait_ready("active", READY_LIMIT)?;
            return Ok(());
        }
        if !self.lb1.is_running() {
            self.lb1.reboot()?;
            self.lb1.start()?;
        }
        self.lb1.wait_ready("active", READY_LIMIT)?;
        self.lb2.wait_ready("backup", READY_LIMIT)?;
        Ok(())
    }

    /// It happens, to `lb1`; does not wait for what comes of it.
    pub fn trigger(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        match prepared {
            Prepared::LosePower(cut) => self.lb1.lose_power(cut),
            Prepared::Start => self.lb1.start(),
            Prepared::Terminate => self.lb1.terminate(),
            Prepared::Kill => self.lb1.kill(),
            Prepared::Edit(edit) => self.lb1.edit(edit),
        }
    }

    /// Who has the VIP before and after, where it moves.
    pub fn old_and_new(
        &mut self,
        scenario: Scenario,
    ) -> (&mut Director<'lab>, &mut Director<'lab>) {
        if scenario == Scenario::DirectorReturns {
            (&mut self.lb2, &mut self.lb1)
        } else {
            (&mut self.lb1, &mut self.lb2)
        }
    }
}
