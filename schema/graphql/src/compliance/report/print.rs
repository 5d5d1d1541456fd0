//! Reports that are served outside GraphQL: a printable page, and all findings as a CSV file.

use chrono::Utc;
use domain::{
    Db, Tx,
    access::{audit::Entry, permission::Permission},
    compliance::{
        evidence::AssetDetails,
        report::{FindingFile, Report},
    },
    entity::RunId,
};
use futures_util::{Stream, stream};

use super::{
    content::Page,
    page::{self, PrintedReport},
};
use crate::request::{
    answer::Answer,
    context::{Client, Services},
    error::{Error, ErrorCode, Result},
    execution_slot::ExecutionSlots,
    permit::{Permit, failed},
};

/// Name of a report in error messages, and its permission.
pub(crate) const SUBJECT: (&str, Permission) = ("A report", Permission::ComplianceRead);

/// Renders a report as a page: see [`Engine::print_report`](crate::Engine::print_report).
pub(crate) async fn print_report(
    services: &Services,
    slots: &ExecutionSlots,
    run: &str,
    bearer: Option<&str>,
    client: Client,
) -> Result<PrintedReport, Answer> {
    let rendering = async {
        let permit = authorize(services, bearer, &client).await?;
        let _slot = slots.of_execution(&permit.viewer).await?;
        let tx = services.db.snapshot(permit.viewer.org).await?;
        let report = report(&tx, run).await?;
        let downloaded = report.figures.as_ref().map(|figures| figures.run);
        let page = Page::read(&tx, report, AssetDetails::of(&permit.viewer)).await?;
        tx.commit().await?;
        record(&services.db, &permit, "compliance_report.printed", downloaded).await?;
        Ok(page::render(&page))
    };
    rendering.await.map_err(|error: Error| failed(&error, &client))
}

/// Streams a report's findings as CSV, page by page: see [`Engine::report_file`](crate::Engine::report_file).
pub(crate) async fn report_file(
    services: &Services,
    slots: &ExecutionSlots,
    run: &str,
    bearer: Option<&str>,
    client: Client,
) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>, Answer> {
    let opening = async {
        let permit = authorize(services, bearer, &client).await?;
        Pages::begin(services.db.clone(), slots.clone(), permit, run).await
    };
    let (first, pages) = opening.await.map_err(|error| failed(&error, &client))?;
    Ok(stream::try_unfold((Some(first), pages), async |(first, mut pages)| {
        let page = match first {
            Some(first) => Some(first),
            None => pages.next().await?,
        };
        Ok(page.map(|page| (page, (None, pages))))
    }))
}

/// Records a download in the audit trail, before any of it is sent.
async fn record(db: &Db, permit: &Permit, action: &'static str, run: Option<RunId>) -> Result<()> {
    let tx = db.write(permit.viewer.org, permit.origin.clone()).await?;
    match run {
        Some(run) => Entry::without_values(action, run).record(&tx).await?,
        None => Entry::without_values(action, permit.viewer.org).record(&tx).await?,
    }
    tx.commit().await?;
    Ok(())
}

async fn authorize(services: &Services, bearer: Option<&str>, client: &Client) -> Result<Permit> {
    services.permit(bearer, client, SUBJECT, now()).await
}

/// Loads the report of the run in the URL: a run id, or `latest` for the newest successful run of all assets.
async fn report(tx: &Tx, run: &str) -> Result<Report> {
    let run = match run {
        "latest" => None,
        id => Some(id.parse::<RunId>().map_err(|error| {
            Error::new(ErrorCode::NotFound, format!("There is no report {id:?}: {error}."))
        })?),
    };
    Ok(Report::of(tx, run, now()).await?)
}

#[expect(clippy::disallowed_methods, reason = "the edge at which a request gets its time")]
fn now() -> chrono::DateTime<Utc> {
    Utc::now()
}

/// A CSV file of findings, written page by page.
struct Pages {
    db: Db,
    slots: ExecutionSlots,
    permit: Permit,
    file: FindingFile,
}

impl Pages {
    /// Writes the header and reads the first page before the response starts. An error so far becomes an error
    /// response.
    async fn begin(
        db: Db,
        slots: ExecutionSlots,
        permit: Permit,
        run: &str,
    ) -> Result<(Vec<u8>, Self)> {
        let slot = slots.of_execution(&permit.viewer).await?;
        let tx = db.read(permit.viewer.org).await?;
        let report = report(&tx, run).await?;
        let downloaded = report.figures.as_ref().map(|figures| figures.run);
        let mut file = FindingFile::begin(report, AssetDetails::of(&permit.viewer));
        let mut first = file.header();
        first.extend(file.page(&tx).await?.unwrap_or_default());
        tx.commit().await?;
        record(&db, &permit, "finding.exported", downloaded).await?;
        drop(slot);
        Ok((first, Self { db, slots, permit, file }))
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let _slot = self.slots.of_page(&self.permit.viewer).await?;
        let tx = self.db.read(self.permit.viewer.org).await?;
        let page = self.file.page(&tx).await?;
        tx.commit().await?;
        Ok(page)
    }
}
