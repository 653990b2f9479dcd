//! Over what a worker died: who is implicated, and what is written down about it.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use broth_ipc::black_box::InHand;
use tokio::time::sleep;

use super::output::LastWords;
use super::process::describe;
use super::worker::Worker;
use crate::blame::is_own_doing;
use crate::crash::{self, Dead, Report};
use crate::memory::BlackBox;
use crate::room::Room;
use crate::room::implication::Outcome;

/// How long the last words of a worker may take to arrive. Somebody whose rooms wait for another
/// worker has no time to wait for them.
const WORDS_TIME: Duration = Duration::from_millis(100);

/// What becomes of deaths.
#[derive(Clone, Debug)]
pub(crate) struct Inquest {
    /// Where reports are written.
    pub(crate) crash_dir: Option<PathBuf>,
    /// Two deaths over the same within this time are no accident.
    pub(crate) window: Duration,
}

/// A worker's death.
pub(super) struct Death {
    pub(super) status: ExitStatus,
    /// It stood still and was ended for that.
    pub(super) stood_still: bool,
    /// It stood still because somebody stopped it, or as it got no CPU.
    pub(super) was_stopped: bool,
    /// What it had in hand, or why that is not known.
    pub(super) in_hand: Result<Option<InHand>, String>,
}

/// What an inquest found.
#[derive(Debug, Default)]
pub(super) struct Finding {
    peer: Option<String>,
    consequence: Consequence,
}

/// What followed for those in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Consequence {
    #[default]
    None,
    Isolated,
    /// What it was is closed already.
    Gone,
    TransportClosed,
    PeerClosed,
    RoomClosed,
}

impl Finding {
    /// Whether what the worker died over is gone from its place.
    pub(super) fn is_settled(&self) -> bool {
        self.consequence != Consequence::None
    }

    fn consequence(&self) -> &'static str {
        match self.consequence {
            Consequence::None => "none",
            Consequence::Isolated => "room isolated",
            Consequence::Gone => "gone already",
            Consequence::TransportClosed => "transport closed",
            Consequence::PeerClosed => "peer closed",
            Consequence::RoomClosed => "room closed",
        }
    }
}

impl Death {
    pub(super) fn new(
        status: ExitStatus,
        stood_still: bool,
        was_stopped: bool,
        black_box: Option<&BlackBox>,
    ) -> Self {
        let in_hand = black_box.map_or(Ok(None), BlackBox::read);
        Self {
            status,
            stood_still,
            was_stopped,
            in_hand: in_hand.map_err(|error| error.to_string()),
        }
    }

    /// Whether what it did was the reason.
    fn is_own_doing(&self) -> bool {
        is_own_doing(self.status) || (self.stood_still && !self.was_stopped)
    }
}

impl Inquest {
    /// Implicates whoever the worker died over; `isolate` may take the room away. To be held once
    /// the worker's rooms know that it is gone.
    pub(super) fn hold(
        &self,
        death: &Death,
        worker: &Worker,
        isolate: impl FnOnce(Room),
    ) -> Finding {
        let Ok(Some(in_hand)) = &death.in_hand else {
            return Finding::default();
        };
        // The black box may say anything: whoever was not in that worker is not to blame.
        let room = in_hand.router.and_then(|id| worker.rooms.get(id));
        let room = room.filter(|room| room.worker().is(worker));
        let Some(room) = room.filter(|_| death.is_own_doing()) else {
            return Finding::default();
        };
        let reason = describe(death.status);
        let implicated = room.implicate(in_hand.transport, &reason, self.window);
        let Some(mut implication) = implicated else {
            return Finding::default();
        };
        if implication.outcome == Outcome::Isolate {
            isolate(room.clone());
            // Where there is no place for it, or no other, nobody else is to die over it.
            if worker.rooms.get(room.router_id()).is_some() {
                implication.outcome = room.close_suspect(&implication, &reason);
            }
        }
        let consequence = match implication.outcome {
            Outcome::TransportClosed => Consequence::TransportClosed,
            Outcome::PeerClosed => Consequence::PeerClosed,
            Outcome::RoomClosed => Consequence::RoomClosed,
            Outcome::Nothing => Consequence::Gone,
            Outcome::Isolate => Consequence::Isolated,
        };
        Finding {
            peer: implication.peer().map(str::to_owned),
            consequence,
        }
    }

    /// Writes a report once the worker's last words have come.
    pub(super) fn report(
        &self,
        worker: Dead,
        served: Option<Duration>,
        death: Death,
        finding: Finding,
        words: LastWords,
    ) {
        let Some(directory) = self.crash_dir.clone() else {
            return;
        };
        let at = SystemTime::now();
        tokio::spawn(async move {
            sleep(WORDS_TIME).await;
            let (lines, backtrace) = words.all();
            let report = Report {
                at,
                worker,
                status: death.status,
                stood_still: death.stood_still,
                served,
                in_hand: death.in_hand,
                consequence: finding.consequence(),
                peer: finding.peer,
                lines,
                backtrace,
            };
            let write = move || match crash::write(&directory, &report) {
                Ok(path) => tracing::info!(path = %path.display(), "crash report"),
                Err(error) => {
                    let directory = directory.display();
                    tracing::error!(%directory, %error, "no crash report");
                }
            };
            let _ = tokio::task::spawn_blocking(write).await;
        });
    }
}
