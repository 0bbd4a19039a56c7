//! Logs: text for a person at a terminal, one JSON object a line for a collector; always on
//! standard error, so that standard output stays a command's own.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;

/// The environment variable that sets the level, where no flag does: `debug`, or a filter such as
/// `info,portcullis::server=debug`.
pub const ENV: &str = "PORTCULLIS_LOG";

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text where standard error is a terminal, JSON where it is not.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For collectors.
    Json,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown log format `{other}`: it is one of `auto`, `text`, `json`")),
        }
    }
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is none.
    #[error("log level `{level}` is not one")]
    Level {
        /// As it was given.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logs were set up already.
    #[error("logs are set up twice in one process")]
    Twice,
}

/// Sets up logs for the process. `level` is what a flag said; without one [`ENV`] decides, and
/// without that `info`.
pub fn init(format: Format, level: Option<&str>) -> Result<(), Error> {
    let from_env = std::env::var(ENV).ok();
    let level = level.or(from_env.as_deref()).filter(|level| !level.is_empty()).unwrap_or("info");
    let is_terminal = io::stderr().is_terminal();
    let subscriber = subscriber(format, level, is_terminal, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)?;
    // A rule that panics is caught, and a collector that reads JSON would not know the default
    // hook's lines for what they are.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(panic = panic.payload_as_str(), location, "a part of portcullis failed");
    }));
    Ok(())
}

fn subscriber<W>(
    format: Format,
    level: &str,
    is_terminal: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(level).map_err(|source| Error::Level { level: level.to_owned(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let as_text = match format {
        Format::Auto => is_terminal,
        Format::Text => true,
        Format::Json => false,
    };
    Ok(if as_text {
        Box::new(lines.with_ansi(is_terminal).with_target(false).finish())
    } else {
        Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written when one review is logged.
    fn logged(format: Format, level: &str, is_terminal: bool) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, level, is_terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("review", uid = "u-1").in_scope(|| tracing::info!(rules = 2, "review denied"));
            tracing::debug!("a detail");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_terminal_gets_text_and_a_collector_json() {
        let text = logged(Format::Auto, "info", true);
        assert!(text.contains("review denied") && serde_json::from_str::<serde_json::Value>(&text).is_err(), "{text}");
        let json: serde_json::Value = serde_json::from_str(&logged(Format::Auto, "info", false)).unwrap();
        assert_eq!(json["message"], "review denied");
        assert_eq!(json["rules"], 2);
        assert_eq!(json["span"]["uid"], "u-1");
    }

    #[test]
    fn a_format_asked_for_wins_over_the_terminal() {
        assert!(logged(Format::Json, "info", true).starts_with('{'));
        let text = logged(Format::Text, "info", false);
        assert!(!text.starts_with('{') && !text.contains('\u{1b}'), "no colour codes in a file: {text:?}");
    }

    #[test]
    fn the_level_decides_what_is_written() {
        assert!(!logged(Format::Json, "info", false).contains("a detail"));
        assert!(logged(Format::Json, "debug", false).contains("a detail"));
        assert_eq!(logged(Format::Json, "off", false), "");
    }

    #[test]
    fn a_level_that_is_none_is_an_error_that_names_it() {
        let error = subscriber(Format::Json, "info,portcullis=loud", false, io::sink).err().unwrap();
        assert_eq!(error.to_string(), "log level `info,portcullis=loud` is not one");
    }
}
