//! Reads settings one by one and collects their errors.
//!
//! A value comes from `FOO`, or from the file that `FOO_FILE` names (Docker and Kubernetes mount secrets as files). An
//! empty variable counts as absent, because Docker Compose cannot omit a variable. **No message contains any part of a
//! value**: a parser returns the expected form, never the rejected value.

use std::{
    borrow::Cow,
    fmt,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
};

use super::{Command, Environment, Setting};

/// Expected form of a value, worded to follow "expected" in a message.
pub(crate) type Expected = Cow<'static, str>;

const MAX_FILE_BYTES: u64 = 64 * 1024;

/// An invalid or missing setting. The message never contains the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettingError {
    /// Name of the variable, e.g. `LISTEN_ADDR`, or `LISTEN_ADDR_FILE` if the value came from a file.
    pub variable: String,
    /// Description of the problem, worded to follow the name of the variable.
    pub problem: Cow<'static, str>,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.problem)
    }
}

/// Error without content: the reader has recorded the error of the setting.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorRecorded;

/// Reads settings and records their errors.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    command: Command,
    environment: Environment,
    pub(super) errors: Vec<SettingError>,
}

impl<'a> Reader<'a> {
    /// Creates a reader that uses the defaults of `environment`.
    pub(super) const fn new(
        command: Command,
        environment: Environment,
        lookup: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self { lookup, command, environment, errors: Vec::new() }
    }

    /// Reads a setting that has a default.
    pub(super) fn get<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Expected>,
    ) -> Result<T, ErrorRecorded> {
        self.find(name, parse)?.ok_or_else(|| self.record_error(name, "has no default"))
    }

    /// Reads a setting that can be absent. Records an error if the command requires the setting.
    pub(super) fn find<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Expected>,
    ) -> Result<Option<T>, ErrorRecorded> {
        let setting = Setting::find(name).expect("every setting that is read is in the table");
        let (variable, value) = match self.value_of(setting)? {
            Some(found) => found,
            None => match setting.default_in(self.environment) {
                Some(default) => (name.to_owned(), default.to_owned()),
                None if setting.required.applies(self.command, self.environment) => {
                    let (commands, description) =
                        (setting.required.describe(), setting.description);
                    let why = format!("missing (required by {commands}): {description}");
                    return Err(self.record_error(name, why));
                }
                None => return Ok(None),
            },
        };
        if value
            .chars()
            .any(|character| character.is_control() || character == char::REPLACEMENT_CHARACTER)
        {
            return Err(self.record_error(variable, "expected one line of UTF-8 text"));
        }
        parse(&value)
            .map(Some)
            .map_err(|expected| self.record_error(variable, format!("expected {expected}")))
    }

    /// Records an error of `variable`.
    pub(super) fn record_error(
        &mut self,
        variable: impl Into<String>,
        problem: impl Into<Cow<'static, str>>,
    ) -> ErrorRecorded {
        self.errors.push(SettingError { variable: variable.into(), problem: problem.into() });
        ErrorRecorded
    }

    /// Returns the name of the variable that is set (`FOO` or `FOO_FILE`) and the value; `None` if neither is set.
    fn value_of(&mut self, setting: &Setting) -> Result<Option<(String, String)>, ErrorRecorded> {
        let non_empty = |variable: &str| (self.lookup)(variable).filter(|value| !value.is_empty());
        let value = non_empty(setting.name);
        let file =
            setting.file_variable().and_then(|variable| Some((non_empty(&variable)?, variable)));
        match (value, file) {
            (None, None) => Ok(None),
            (Some(value), None) => Ok(Some((setting.name.to_owned(), value))),
            (Some(_), Some((_, variable))) => Err(self.record_error(
                setting.name,
                format!("expected either this or {variable}, not both"),
            )),
            (None, Some((path, variable))) => {
                let private =
                    setting.is_secret && matches!(self.environment, Environment::Production);
                match read_line(&path, private) {
                    Ok(value) => Ok(Some((variable, value))),
                    Err(problem) => Err(self.record_error(variable, problem)),
                }
            }
        }
    }
}

/// Opens a file. A FIFO without a writer would block otherwise.
pub(super) fn open(path: &str) -> io::Result<File> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
}

/// Reads a file without its trailing newlines, up to `MAX_FILE_BYTES`.
fn read_line(path: &str, private: bool) -> Result<String, Cow<'static, str>> {
    let unreadable = |error: io::Error| {
        let why = match error.kind() {
            ErrorKind::NotFound => "no such file",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::InvalidData => "its content is not UTF-8",
            ErrorKind::IsADirectory => "it is a folder",
            _ => "reading failed",
        };
        Cow::from(format!("expected the path of a readable file: {why}"))
    };
    let file = open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(unreadable(ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err("expected the path of a readable file: it is no regular file".into());
    }
    // The file itself is checked, and not a link that leads to it: Kubernetes mounts secrets as links.
    if private && metadata.permissions().mode() & 0o066 != 0 {
        return Err(
            "expected a file that only its owner can read and write: run chmod 600 on it".into()
        );
    }
    if private && ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        return Err(
            "expected a file of root or of the user who runs SentryOps: run chown on it".into()
        );
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    let value = text.trim_end_matches(['\n', '\r']);
    if value.is_empty() {
        return Err("expected a file that is not empty".into());
    }
    Ok(value.to_owned())
}
