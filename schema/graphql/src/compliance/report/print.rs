//! Reports on their way out, which are no documents: a page to print, and all findings as a file.

use chrono::Utc;
use domain::{
    Db, Tx,
    access::permission::Permission,
    compliance::report::{Assets, FindingFile, Report},
    entity::RunId,
};
use futures_util::{Stream, stream};

use super::{
    content::Page,
    page::{self, Printed},
};
use crate::request::{
    answer::Answer,
    context::{Client, Services},
    error::{Error, ErrorCode, Result},
    permit::{Permit, failed},
};

/// Prints a report: see [`Engine::print_report`](crate::Engine::print_report).
pub(crate) async fn print_report(
    services: &Services,
    run: &str,
    bearer: Option<&str>,
    client: Client,
) -> Result<Printed, Answer> {
    let printed = async {
        let permit = may_report(services, bearer, &client).await?;
        let tx = services.db.snapshot(permit.viewer.org).await?;
        let page = Page::read(&tx, report(&tx, run).await?, told(&permit)).await?;
        tx.commit().await?;
        Ok(page::print(&page))
    };
    printed.await.map_err(|error: Error| failed(&error, &client))
}

/// Gives out a report's findings, page by page: see [`Engine::report_file`](crate::Engine::report_file).
pub(crate) async fn report_file(
    services: &Services,
    run: &str,
    bearer: Option<&str>,
    client: Client,
) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>, Answer> {
    let begun = async {
        let permit = may_report(services, bearer, &client).await?;
        Pages::begin(services.db.clone(), permit, run).await
    };
    let (first, pages) = begun.await.map_err(|error| failed(&error, &client))?;
    Ok(stream::try_unfold((Some(first), pages), async |(first, mut pages)| {
        let page = match first {
            Some(first) => Some(first),
            None => pages.next().await?,
        };
        Ok(page.map(|page| (page, (None, pages))))
    }))
}

async fn may_report(services: &Services, bearer: Option<&str>, client: &Client) -> Result<Permit> {
    services.permit(bearer, client, ("A report", Permission::ComplianceRead), now()).await
}

/// Whether the caller is told which assets a report is about.
const fn told(permit: &Permit) -> Assets {
    if permit.viewer.may(Permission::AssetRead) { Assets::Told } else { Assets::Withheld }
}

/// The report of the run that an address names.
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

/// A file of findings, page by page.
struct Pages {
    db: Db,
    permit: Permit,
    file: FindingFile,
}

impl Pages {
    /// With the header and the first page: what fails at once is answered as such.
    async fn begin(db: Db, permit: Permit, run: &str) -> Result<(Vec<u8>, Self)> {
        let tx = db.read(permit.viewer.org).await?;
        let mut file = FindingFile::begin(report(&tx, run).await?, told(&permit));
        let mut first = file.header();
        first.extend(file.page(&tx).await?.unwrap_or_default());
        tx.commit().await?;
        Ok((first, Self { db, permit, file }))
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let tx = self.db.read(self.permit.viewer.org).await?;
        let page = self.file.page(&tx).await?;
        tx.commit().await?;
        Ok(page)
    }
}
