//! Files that may change while the server runs.
//!
//! Their bytes are compared on a timer. Notifications of the file system are not used: the kubelet
//! swaps a symbolic link beside the file, and a watch on the file itself hears of that once or
//! never. What cannot be read or is refused leaves in force what was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config;
use crate::rules::RuleSet;
use crate::telemetry::Metrics;

/// Files whose bytes are taken together.
pub(super) struct Files<const N: usize> {
    pub(super) paths: [PathBuf; N],
    /// The bytes last handed over, whether or not they were taken.
    pub(super) seen: [Vec<u8>; N],
}

/// What comes of looking at the files once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing changed.
    Same,
    /// They changed and are in force.
    Taken,
    /// They changed and were refused, for this reason.
    Refused(String),
    /// They cannot be read now, for this reason.
    Unread(String),
}

impl<const N: usize> Files<N> {
    /// Reads the files for the first time.
    pub(super) async fn read(paths: [PathBuf; N]) -> Result<Self, String> {
        let seen = read(&paths).await?;
        Ok(Self { paths, seen })
    }

    /// Looks whether they changed, and hands them over if so.
    pub(super) async fn look(&mut self, take: impl FnOnce(&[Vec<u8>; N]) -> Result<(), String>) -> Look {
        let found = match read(&self.paths).await {
            Ok(found) => found,
            Err(error) => return Look::Unread(error),
        };
        if found == self.seen {
            return Look::Same;
        }
        self.seen = found;
        match take(&self.seen) {
            Ok(()) => Look::Taken,
            Err(error) => Look::Refused(error),
        }
    }
}

async fn read<const N: usize>(paths: &[PathBuf; N]) -> Result<[Vec<u8>; N], String> {
    let mut all = std::array::from_fn(|_| Vec::new());
    for (path, bytes) in paths.iter().zip(&mut all) {
        *bytes = tokio::fs::read(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    }
    Ok(all)
}

/// A configuration file, and what of it is in force.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// The bytes the rules in force were made from.
    pub in_force: Vec<u8>,
    /// How often it is compared.
    pub every: Duration,
}

/// Follows a configuration file for as long as it is awaited: what `load` makes of each new state
/// of it is sent to `rules`, and what `load` refuses leaves the last good rules in force.
pub async fn follow_config(
    file: ConfigFile,
    load: impl Fn(&[u8]) -> Result<RuleSet, String>,
    rules: watch::Sender<Arc<RuleSet>>,
    metrics: Metrics,
) {
    let path = file.path.clone();
    let mut files = Files { paths: [file.path], seen: [file.in_force] };
    let mut progress = Progress::default();
    let mut timer = interval(file.every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    metrics.config_current(true);
    loop {
        timer.tick().await;
        let mut weakened: Vec<String> = Vec::new();
        let look = files
            .look(|[bytes]| {
                let taken = load(bytes)?;
                let before = rules.borrow().clone();
                weakened = config::weakened(&taken, &before).iter().map(ToString::to_string).collect();
                rules.send_replace(Arc::new(taken));
                Ok(())
            })
            .await;
        match &look {
            Look::Taken => {
                metrics.config_reloaded(true);
                tracing::info!(path = %path.display(), "configuration reloaded");
                if !weakened.is_empty() {
                    let by = weakened.join("; ");
                    tracing::warn!(by, "the configuration lets more pass than before");
                }
            }
            Look::Refused(error) => {
                metrics.config_reloaded(false);
                tracing::error!(path = %path.display(), error, "new configuration refused, the last good one stays");
            }
            Look::Unread(error) if !progress.is_unread => {
                tracing::error!(error, "configuration cannot be read, the last good one stays");
            }
            Look::Same | Look::Unread(_) => {}
        }
        metrics.config_current(progress.after(&look));
    }
}

/// Whether what the files hold is what is in force, from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) is_unread: bool,
    is_refused: bool,
}

impl Progress {
    /// Whether it is, after one more look.
    pub(super) fn after(&mut self, look: &Look) -> bool {
        self.is_unread = matches!(look, Look::Unread(_));
        match look {
            Look::Taken => self.is_refused = false,
            Look::Refused(_) => self.is_refused = true,
            Look::Same | Look::Unread(_) => {}
        }
        !self.is_unread && !self.is_refused
    }
}
