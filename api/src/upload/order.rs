//! Reads an import order (`ImportOrder`: the options of one import) from URL parameters and media type:
//! `?format=csv&dryRun=true&emptyCells=clear&idempotencyKey=…`.

use domain::{
    FieldError,
    base::nearest::nearest,
    inventory::import::{EmptyCells, ImportFormat, ImportKind, ImportOrder},
};
use graphql::{Error, ErrorCode};
use http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE};

use crate::{
    params,
    request_error::{Code, RequestError},
};

const PARAMETERS: [&str; 4] = ["format", "dryRun", "emptyCells", "idempotencyKey"];

/// Error of an upload request without a valid import order.
pub(super) enum OrderError {
    /// The query string is unreadable, or the media type is missing or unsupported.
    Rejected(RequestError),
    /// Invalid URL parameters; the error lists each invalid parameter.
    Parameters(Error),
}

impl From<RequestError> for OrderError {
    fn from(error: RequestError) -> Self {
        Self::Rejected(error)
    }
}

/// Reads the import order of an upload. The parameter `format` takes precedence over `Content-Type`.
///
/// # Errors
/// All invalid parameters; or 415 if neither parameter nor media type names a format, the body is a form, or the
/// charset is not UTF-8.
pub(super) fn read(
    kind: ImportKind,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<ImportOrder, OrderError> {
    let parameters = Parameters::read(uri.query().unwrap_or_default())?;
    let format = match (parameters.format, DeclaredType::from_headers(headers)) {
        (Some(format), DeclaredType::Format(_) | DeclaredType::Unspecified)
        | (None, DeclaredType::Format(format)) => format,
        (None, DeclaredType::Unspecified) | (_, DeclaredType::Form) => {
            return Err(unsupported_type(kind).into());
        }
        (_, DeclaredType::OtherCharset) => return Err(other_charset().into()),
    };
    Ok(ImportOrder {
        kind,
        format,
        dry_run: parameters.dry_run,
        empty_cells: parameters.empty_cells.unwrap_or(EmptyCells::Keep),
        idempotency_key: parameters.idempotency_key,
    })
}

#[derive(Debug, Default)]
struct Parameters {
    format: Option<ImportFormat>,
    dry_run: bool,
    empty_cells: Option<EmptyCells>,
    idempotency_key: Option<String>,
}

impl Parameters {
    fn read(query: &str) -> Result<Self, OrderError> {
        let mut parameters = Self::default();
        let (mut seen, mut errors) = (Vec::new(), Vec::new());
        for pair in params::pairs(query) {
            let (name, value) = pair?;
            if seen.contains(&name) {
                errors.push(FieldError::new(name, "is given twice"));
                continue;
            }
            if let Err(error) = parameters.set(&name, value()?) {
                errors.push(error);
            }
            seen.push(name);
        }
        if errors.is_empty() {
            Ok(parameters)
        } else {
            Err(OrderError::Parameters(invalid_parameters(errors)))
        }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), FieldError> {
        match name {
            "format" => {
                let formats = [("csv", ImportFormat::Csv), ("json", ImportFormat::Json)];
                self.format = Some(one_of(name, &value, formats)?);
            }
            "dryRun" => self.dry_run = one_of(name, &value, [("true", true), ("false", false)])?,
            "emptyCells" => {
                let options = [("keep", EmptyCells::Keep), ("clear", EmptyCells::Clear)];
                self.empty_cells = Some(one_of(name, &value, options)?);
            }
            "idempotencyKey" => self.idempotency_key = Some(value),
            unknown => {
                let message = format!(
                    "unknown parameter {unknown:?}: the parameters are {}",
                    PARAMETERS.join(", ")
                );
                let suggestion = nearest(unknown, PARAMETERS).map(str::to_owned);
                return Err(FieldError { suggestion, ..FieldError::new(unknown, message) });
            }
        }
        Ok(())
    }
}

fn one_of<T: Copy>(
    name: &str,
    value: &str,
    options: [(&'static str, T); 2],
) -> Result<T, FieldError> {
    let matched = options.iter().find(|(text, _)| value.eq_ignore_ascii_case(text));
    matched.map(|(_, option)| *option).ok_or_else(|| {
        let [first, second] = options.map(|(text, _)| text);
        let suggestion = nearest(value, [first, second]).map(str::to_owned);
        let message = format!("must be {first} or {second}, not {value:?}");
        FieldError { suggestion, ..FieldError::new(name, message) }
    })
}

fn invalid_parameters(fields: Vec<FieldError>) -> Error {
    let message = match fields.as_slice() {
        [error] => format!("{}: {}.", error.path, error.message),
        errors => {
            format!("The URL has {} invalid parameters: see extensions.fields.", errors.len())
        }
    };
    Error { fields, ..Error::new(ErrorCode::Validation, message) }
}

/// Meaning of the `Content-Type` header.
enum DeclaredType {
    Format(ImportFormat),
    /// `multipart/form-data`: the file is inside a form, which is not supported.
    Form,
    /// Charset other than UTF-8 or US-ASCII.
    OtherCharset,
    /// No format: the header is absent, repeated, or a tool's default such as `application/octet-stream`.
    Unspecified,
}

impl DeclaredType {
    fn from_headers(headers: &HeaderMap) -> Self {
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let (Some(value), None) = (types.next(), types.next()) else { return Self::Unspecified };
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        let charset = parts.find_map(|part| part.strip_prefix("charset="));
        let is_utf_8 = |charset: &str| matches!(charset.trim_matches('"'), "utf-8" | "us-ascii");
        match essence {
            "multipart/form-data" => Self::Form,
            _ if !charset.is_none_or(is_utf_8) => Self::OtherCharset,
            "text/csv" => Self::Format(ImportFormat::Csv),
            "application/json" | "application/x-ndjson" | "application/ndjson" => {
                Self::Format(ImportFormat::Json)
            }
            _ => Self::Unspecified,
        }
    }
}

fn unsupported_type(kind: ImportKind) -> RequestError {
    let name = match kind {
        ImportKind::Assets => "assets",
        ImportKind::Dependencies => "dependencies",
    };
    let message = format!(
        "Send the file itself as text/csv, application/json or application/x-ndjson, not in a form: curl --data-binary @{name}.csv -H 'Content-Type: text/csv' -H 'Authorization: Bearer …' …/import/{name}"
    );
    RequestError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Validation, message)
}

fn other_charset() -> RequestError {
    let message =
        "The file must be in UTF-8: save it as UTF-8, and send charset=utf-8 or no charset.";
    RequestError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Validation, message)
}
