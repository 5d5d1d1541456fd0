//! Logs: one line per event on standard error, in UTC, as JSON or as text.
//!
//! Standard output is reserved for the output of commands. Logs have no colours, so every control character in a line
//! came from outside. [`OneLine`] escapes all of them, including newlines and right-to-left overrides. Input from a
//! stranger can therefore neither forge a second line nor control a terminal. Choose again when operators miss the
//! colours.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Write as _,
    io::{self, Write},
    panic::{self, PanicHookInfo},
    thread,
};

use anyhow::{Context, Result};
use tracing::Subscriber;
use tracing_subscriber::{fmt, fmt::MakeWriter, layer::SubscriberExt, registry};

use crate::config::{Log, LogFormat};

/// Starts logging, including that of panics. Call it once per process.
///
/// # Errors
/// If logging was started before.
pub(crate) fn start(log: &Log) -> Result<()> {
    tracing::subscriber::set_global_default(subscriber(log, io::stderr))
        .context("logging is started already")?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn subscriber<M>(log: &Log, out: M) -> Box<dyn Subscriber + Send + Sync>
where
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // On a full disk or a closed pipe the logger must not report to standard error itself: that would panic.
    let lines = fmt::layer().with_ansi(false).log_internal_errors(false).with_writer(EachLine(out));
    let filter = log.filter.env_filter();
    match log.format {
        LogFormat::Text => Box::new(registry().with(filter).with(lines)),
        LogFormat::Json => Box::new(
            registry().with(filter).with(lines.json().flatten_event(true).with_current_span(false)),
        ),
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        panic.location = location,
        panic.thread = thread.name(),
        panic.backtrace = is_captured.then(|| tracing::field::display(backtrace)),
        "a thread panicked: {}",
        info.payload_as_str().unwrap_or("the payload is not text"),
    );
}

/// Creates a [`OneLine`] writer for each event.
struct EachLine<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for EachLine<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

/// Writer that turns each event into one line. The subscriber passes each event whole, with the newline that ends it.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = escape_misleading(text.strip_suffix('\n').unwrap_or(&text));
        self.0.write_all((line + "\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes every misleading character as JSON does (`\u001b`), so that JSON stays valid JSON.
fn escape_misleading(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        if is_misleading(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}"); // writing to a String cannot fail
            }
        } else {
            line.push(letter);
        }
    }
    line
}

/// Returns true for controls (C0, DEL, C1), other line ends, writing directions, invisible marks and tags.
fn is_misleading(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const NASTY: &str = "a\nINFO forged\r\u{1b}[2J\u{9b}31m\u{202e}gpj\u{2028}\u{e0041}\0 ü 猫 end";

    fn logged(format: LogFormat, filter: &str, act: impl FnOnce()) -> String {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let log = Log { format, filter: filter.parse().unwrap() };
        tracing::subscriber::with_default(subscriber(&log, Shared(buffer.clone())), act);
        let bytes = buffer.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Shared {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn nasty_event() {
        let span = tracing::info_span!("request", request.id = NASTY);
        let _inside = span.enter();
        tracing::info!(email = NASTY, shown = %NASTY, debugged = ?NASTY, "sign-in of {NASTY}");
    }

    #[test]
    fn a_nasty_field_makes_one_printable_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let out = logged(format, "info", nasty_event);
            let line = out.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_misleading), "{out:?}");
            assert!(line.contains("ü 猫 end"), "{out:?}");
        }
    }

    #[test]
    fn json_stays_json_and_gives_the_text_back() {
        let out = logged(LogFormat::Json, "info", nasty_event);
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(line["email"], NASTY);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["spans"][0]["request.id"], NASTY);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn the_filter_decides_by_level_and_target() {
        let act = || {
            tracing::debug!("too quiet");
            tracing::info!(target: "api", "heard");
            tracing::info!("not heard");
        };
        let out = logged(LogFormat::Text, "warn,api=info", act);
        assert_eq!(out.lines().count(), 1);
        assert!(out.contains("heard"));
    }

    #[test]
    fn a_panic_is_one_line() {
        let out = logged(LogFormat::Json, "info", || {
            let before = panic::take_hook();
            panic::set_hook(Box::new(log_panic));
            let caught = panic::catch_unwind(|| panic!("first\nsecond"));
            panic::set_hook(before);
            assert!(caught.is_err());
        });
        assert_eq!(out.lines().count(), 1, "{out}");
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(line["message"], "a thread panicked: first\nsecond");
        assert!(line["panic.location"].as_str().unwrap().contains("telemetry.rs"));
    }
}
