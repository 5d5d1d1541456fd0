//! Logs: one line per event on standard error, in UTC, as JSON or as text.
//!
//! Standard output is reserved for the output of commands. The logger writes no ANSI escape sequences, so every control
//! character in a line is part of a logged value. [`EscapingWriter`] escapes all unsafe characters, including newlines
//! and right-to-left overrides. Untrusted input can therefore neither forge a log line nor control a terminal.
//! Trade-off: logs are never coloured. Revisit when operators need colours.

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

use crate::config::{LogConfig, LogFormat};

/// Initialises logging, and installs the panic hook that logs panics. Call this function once per process.
///
/// # Errors
/// If logging has already been initialised.
pub(crate) fn init(log: &LogConfig) -> Result<()> {
    tracing::subscriber::set_global_default(subscriber(log, io::stderr))
        .context("logging has already been initialised")?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn subscriber<M>(log: &LogConfig, out: M) -> Box<dyn Subscriber + Send + Sync>
where
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A write fails if the disk is full or the pipe is closed. With `log_internal_errors`, the layer would report the
    // failure with `eprintln!`, which panics if standard error cannot be written to.
    let layer = fmt::layer()
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(EscapingMakeWriter(out));
    let filter = log.filter.env_filter();
    match log.format {
        LogFormat::Text => Box::new(registry().with(filter).with(layer)),
        LogFormat::Json => Box::new(
            registry().with(filter).with(layer.json().flatten_event(true).with_current_span(false)),
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
        info.payload_as_str().unwrap_or("(no message: the panic payload is not text)"),
    );
}

/// Creates an [`EscapingWriter`] for each event.
struct EscapingMakeWriter<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for EscapingMakeWriter<M> {
    type Writer = EscapingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

/// Writer that escapes the text of an event, so that the event is exactly one line. Requires that each call of `write`
/// passes a whole event with its final newline, as the subscriber does.
struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = escape_unsafe(text.strip_suffix('\n').unwrap_or(&text));
        self.0.write_all((line + "\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes every unsafe character as in JSON (`\u001b`), so that a JSON line stays valid JSON.
fn escape_unsafe(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        if is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}"); // writing to a String cannot fail
            }
        } else {
            line.push(character);
        }
    }
    line
}

/// Returns true for control characters (C0, DEL, C1), line and paragraph separators, bidirectional controls, the byte
/// order mark and Unicode tag characters.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const UNSAFE_TEXT: &str =
        "a\nINFO forged\r\u{1b}[2J\u{9b}31m\u{202e}gpj\u{2028}\u{e0041}\0 ü 猫 end";

    fn logged(format: LogFormat, filter: &str, act: impl FnOnce()) -> String {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let log = LogConfig { format, filter: filter.parse().unwrap() };
        tracing::subscriber::with_default(subscriber(&log, SharedBuffer(buffer.clone())), act);
        let bytes = buffer.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for SharedBuffer {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn log_unsafe_event() {
        let span = tracing::info_span!("request", request.id = UNSAFE_TEXT);
        let _inside = span.enter();
        tracing::info!(email = UNSAFE_TEXT, shown = %UNSAFE_TEXT, debugged = ?UNSAFE_TEXT, "sign-in of {UNSAFE_TEXT}");
    }

    #[test]
    fn a_nasty_field_makes_one_printable_line() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let out = logged(format, "info", log_unsafe_event);
            let line = out.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_unsafe), "{out:?}");
            assert!(line.contains("ü 猫 end"), "{out:?}");
        }
    }

    #[test]
    fn json_stays_json_and_gives_the_text_back() {
        let out = logged(LogFormat::Json, "info", log_unsafe_event);
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(line["email"], UNSAFE_TEXT);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["spans"][0]["request.id"], UNSAFE_TEXT);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn the_filter_decides_by_level_and_target() {
        let act = || {
            tracing::debug!("below the level");
            tracing::info!(target: "api", "is logged");
            tracing::info!("wrong target");
        };
        let out = logged(LogFormat::Text, "warn,api=info", act);
        assert_eq!(out.lines().count(), 1);
        assert!(out.contains("is logged"));
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
