//! Uploads and downloads of files, which do not use GraphQL documents. The implementations are in `inventory` and
//! `compliance`; transports call them through [`Engine`].

use bytes::Bytes;
use domain::inventory::import::{ImportKind, ImportOrder};
use futures_util::Stream;

use crate::{
    compliance::report::{self, PrintedReport},
    engine::Engine,
    inventory::{
        export,
        upload::{self, Received, UploadAbort},
    },
    request::{answer::Answer, context::Client, error::Result, permit::failed},
};

/// A kind of file that callers can download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Download {
    /// Assets or dependencies as CSV.
    Export,
    /// Report of a compliance run, or its findings.
    Report,
}

impl Engine {
    /// Stores an uploaded file for import. Checks the caller's permission before the first poll of `pieces`. Requires
    /// `ASSET_IMPORT`.
    ///
    /// # Errors
    /// Returns the answer to send if the caller lacks the permission, the file is invalid or the upload is incomplete.
    pub async fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        client: Client,
        pieces: impl Stream<Item = Result<Bytes, UploadAbort>> + Send,
    ) -> Result<Received, Answer> {
        upload::upload(self.services(), order, bearer, client, pieces).await
    }

    /// Checks that the caller may download a file, without reading or recording anything: for `HEAD`.
    ///
    /// # Errors
    /// Returns the answer to send if the caller lacks the permission.
    #[expect(clippy::disallowed_methods, reason = "the edge at which a request gets its time")]
    pub async fn check_download(
        &self,
        download: Download,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<(), Answer> {
        let subject = match download {
            Download::Export => export::SUBJECT,
            Download::Report => report::SUBJECT,
        };
        let permit = self.services().permit(bearer, &client, subject, chrono::Utc::now()).await;
        permit.map(drop).map_err(|error| failed(&error, &client))
    }

    /// Exports the organization's assets or dependencies as CSV. Requires `ASSET_READ`; owners are included only for
    /// callers with `USER_READ`.
    ///
    /// # Errors
    /// Returns the answer to send. An error within the stream means that the file is incomplete; the transport must not
    /// end the download as if it were complete.
    pub async fn export(
        &self,
        kind: ImportKind,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>, Answer> {
        export::export(self.services(), &self.0.slots, kind, bearer, client).await
    }

    /// Returns the printable report of a compliance run. `run` is the run's id, or `latest` for the latest run over all
    /// assets. Requires `COMPLIANCE_READ`; the names of assets are included only for callers with `ASSET_READ`.
    ///
    /// # Errors
    /// Returns the answer to send.
    pub async fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<PrintedReport, Answer> {
        report::print_report(self.services(), &self.0.slots, run, bearer, client).await
    }

    /// Exports the findings that were open at the end of a compliance run, as CSV. `run` is the run's id, or `latest`.
    /// Requires `COMPLIANCE_READ`; the names of assets are included only for callers with `ASSET_READ`.
    ///
    /// # Errors
    /// Returns the answer to send. An error within the stream means that the file is incomplete; the transport must not
    /// end the download as if it were complete.
    pub async fn report_file(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>, Answer> {
        report::report_file(self.services(), &self.0.slots, run, bearer, client).await
    }
}
