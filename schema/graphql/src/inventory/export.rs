//! Export of files over HTTP, as a stream of pages. A page is read from Postgres only when the client has received the
//! previous page.

use chrono::Utc;
use domain::{
    Db,
    access::permission::Permission,
    inventory::{export::Export, import::ImportKind, owners::Owners},
};
use futures_util::{Stream, stream};

use crate::request::{
    answer::Answer,
    context::{Client, Services},
    error::{Error, Result},
    execution_slot::ExecutionSlots,
    permit::{Permit, failed},
};

/// Name of an export in error messages, and its permission.
pub(crate) const SUBJECT: (&str, Permission) = ("An export", Permission::AssetRead);

/// Streams an exported file, page by page: see [`Engine::export`](crate::Engine::export).
#[expect(clippy::disallowed_methods, reason = "the edge at which a request gets its time")]
pub(crate) async fn export(
    services: &Services,
    slots: &ExecutionSlots,
    kind: ImportKind,
    bearer: Option<&str>,
    client: Client,
) -> Result<impl Stream<Item = Result<Vec<u8>>> + Send + use<>, Answer> {
    let begun = async {
        let permit = services.permit(bearer, &client, SUBJECT, Utc::now()).await?;
        Pages::begin(services.db.clone(), slots.clone(), permit, kind).await
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

struct Pages {
    db: Db,
    slots: ExecutionSlots,
    permit: Permit,
    export: Export,
}

impl Pages {
    /// Begins an export, and returns it with the header and the first page. A failure before the first page is
    /// therefore still an ordinary error response.
    async fn begin(
        db: Db,
        slots: ExecutionSlots,
        permit: Permit,
        kind: ImportKind,
    ) -> Result<(Vec<u8>, Self)> {
        let slot = slots.of_execution(&permit.viewer).await?;
        let owners = Owners::of(&permit.viewer);
        let tx = db.write(permit.viewer.org, permit.origin.clone()).await?;
        let export = Export::begin(&tx, kind, owners).await?;
        tx.commit().await?;
        let mut first = export.header();
        drop(slot);
        let mut pages = Self { db, slots, permit, export };
        first.extend(pages.next().await?.unwrap_or_default());
        Ok((first, pages))
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let _slot = self.slots.of_page(&self.permit.viewer).await?;
        let tx = self.db.read(self.permit.viewer.org).await?;
        let page = self.export.page(&tx).await?;
        tx.commit().await?;
        Ok(page)
    }
}
