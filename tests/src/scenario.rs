//! The pair of directors, what is broken, and what must not break with it.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use lb_daemon::control::Status;

use crate::{
    director::{Binaries, Director, PowerCut, READY_LIMIT, Settings},
    lab::Lab,
};

/// One way in which the VIP moves, in the order in which each leaves what the next one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// The active director loses power: its link is cut and lbd gets SIGKILL in the same instant
    ActiveDies,
    /// A director of higher priority comes back after a reboot, and preempts
    DirectorReturns,
    /// The active director is told to stop, and hands over
    ActiveResigns,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::ActiveDies => "active-dies",
            Self::DirectorReturns => "director-returns",
            Self::ActiveResigns => "active-resigns",
        }
    }

    /// The outage at the client has to stay below this.
    ///
    /// A death is noticed after 3 intervals and the skew, which is below one (RFC 9568 §6.1);
    /// where intervals are so short that the scheduling of a busy machine counts, 60 ms. A planned
    /// move needs no outage at all: a probe or two, or one wait for the CPU.
    pub fn outage_limit(self, advertisement_interval: Duration) -> Duration {
        match self {
            Self::ActiveDies => (advertisement_interval * 4).max(Duration::from_millis(60)),
            Self::DirectorReturns | Self::ActiveResigns => Duration::from_millis(20),
        }
    }

    /// What happens, for the timeline.
    pub fn event(self) -> &'static str {
        match self {
            Self::ActiveDies => "power lost (link cut, SIGKILL)",
            Self::DirectorReturns => "back after a reboot, lbd starts",
            Self::ActiveResigns => "told to stop (SIGTERM)",
        }
    }
}

/// The two directors; `lb1` has the higher priority.
pub struct Pair<'lab> {
    pub lb1: Director<'lab>,
    pub lb2: Director<'lab>,
}

/// A scenario in which everything is ready for its event.
pub struct Prepared {
    scenario: Scenario,
    power_cut: Option<PowerCut>,
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
        let digests = [&first, &second].map(|status| {
            status.virtual_services.first().map(|service| service.table_digest.as_str())
        });
        ensure!(digests[0] == digests[1], "the Maglev tables differ: {digests:?}");
        Ok([first, second])
    }

    pub fn prepare(&mut self, scenario: Scenario) -> anyhow::Result<Prepared> {
        self.prepare_directors(scenario)
            .with_context(|| format!("prepare the directors for {}", scenario.name()))?;
        let power_cut = match scenario {
            Scenario::ActiveDies => Some(self.lb1.arm_power_cut()?),
            Scenario::DirectorReturns | Scenario::ActiveResigns => None,
        };
        Ok(Prepared { scenario, power_cut })
    }

    fn prepare_directors(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        if !self.lb2.is_running() {
            self.lb2.reboot()?;
            self.lb2.start()?;
        }
        match scenario {
            Scenario::ActiveDies | Scenario::ActiveResigns => {
                if !self.lb1.is_running() {
                    self.lb1.reboot()?;
                    self.lb1.start()?;
                }
                self.lb1.wait_ready("active", READY_LIMIT)?;
                self.lb2.wait_ready("backup", READY_LIMIT)?;
            }
            Scenario::DirectorReturns => {
                self.lb1.reboot()?;
                self.lb2.wait_ready("active", READY_LIMIT)?;
            }
        }
        Ok(())
    }

    pub fn trigger(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        match prepared.power_cut {
            Some(cut) => self.lb1.lose_power(cut),
            None => match prepared.scenario {
                Scenario::ActiveDies => self.lb1.kill(),
                Scenario::DirectorReturns => self.lb1.start(),
                Scenario::ActiveResigns => self.lb1.terminate(),
            },
        }
    }

    /// Who has the VIP before and after.
    pub fn old_and_new(
        &mut self,
        scenario: Scenario,
    ) -> (&mut Director<'lab>, &mut Director<'lab>) {
        match scenario {
            Scenario::ActiveDies | Scenario::ActiveResigns => (&mut self.lb1, &mut self.lb2),
            Scenario::DirectorReturns => (&mut self.lb2, &mut self.lb1),
        }
    }
}
