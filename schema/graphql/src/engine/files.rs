//! Files in and out, which are no documents: each is its noun's, reached here like everything else.

use bytes::Bytes;
use domain::inventory::import::{ImportKind, ImportOrder};
use futures_util::Stream;

use crate::{
    compliance::report::{self, Printed},
    engine::Engine,
    inventory::{
        export,
        upload::{self, BrokenOff, Received},
    },
    request::{answer::Answer, context::Client, error::Result},
};

impl Engine {
    /// Takes in a file. Nothing is asked of `pieces` before it is known that the caller may. Takes `ASSET_IMPORT`.
    ///
    /// # Errors
    /// The answer to send: the caller may not, the file is not what it should be, or it broke off.
    pub async fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        client: Client,
        pieces: impl Stream<Item = Result<Bytes, BrokenOff>> + Send,
    ) -> Result<Received, Answer> {
        upload::upload(self.services(), order, bearer, client, pieces).await
    }

    /// The organization's assets or dependencies as CSV. Takes `ASSET_READ`; owners are told to those with `USER_READ`.
    ///
    /// # Errors
    /// The answer to send. In the stream: the file is not whole and must not look so.
    pub async fn export(
        &self,
        kind: ImportKind,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>, Answer> {
        export::export(self.services(), kind, bearer, client).await
    }

    /// The report of a run, or of the `latest` of all assets, to be printed. Takes `COMPLIANCE_READ`; assets are named to those with
    /// `ASSET_READ`.
    ///
    /// # Errors
    /// The answer to send.
    pub async fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<Printed, Answer> {
        report::print_report(self.services(), run, bearer, client).await
    }

    /// What was broken when a run ended, or the `latest` did, as CSV. Takes `COMPLIANCE_READ`; assets are named to those with
    /// `ASSET_READ`.
    ///
    /// # Errors
    /// The answer to send. In the stream: the file is not whole and must not look so.
    pub async fn report_file(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>, Answer> {
        report::report_file(self.services(), run, bearer, client).await
    }
}
