//! Imports: the view, the query, the mutations, the subscription. Files too large for a request's text come by `/import/…`.

use async_graphql::{Context, InputObject, Object, Subscription};
use domain::{
    Error as DomainError, Id, Tx,
    access::{
        directive::{authenticated, requires},
        permission::Permission::{self, AssetImport, AssetRead},
    },
    base::{
        entity::Entity,
        page::{CursorScope, PageArgs},
    },
    entity::{self, ImportRunId},
    inventory::import::{
        self, EmptyCells, ImportError, ImportFormat, ImportKind, ImportOrder, Opened, Table,
        check_columns, chunker::Chunker,
    },
};
use futures_util::{Stream, future::OptionFuture, stream};
use jobs::inventory::import::{push_first, push_look, push_sweep};

use crate::{
    access::actor::{Actor, actor},
    request::{
        context::ContextExt,
        error::Result,
        node::Identified,
        page::{Connection, wants_total},
        watch::Watch,
    },
};

/// Bytes of a file's text in a request at most; larger ones are streamed.
const TEXT_BYTES: usize = 128 * 1024;

/// One import.
pub(crate) struct ImportRun(pub(crate) import::ImportRun);

/// One import. Whoever starts one sees it in the answer; to look at it again, as at what was wrong with its rows, takes
/// `ASSET_READ`.
#[Object(directive = authenticated::apply())]
impl ImportRun {
    #[graphql(flatten)]
    async fn row(&self) -> &import::ImportRun {
        &self.0
    }

    /// On whose behalf it runs.
    async fn started_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }

    /// What was wrong with which rows, in the order of the file: the first 10,000 of a run. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn errors(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<ImportError>> {
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "importErrors", &self.0.id);
        let request = PageArgs { first, after, ..PageArgs::default() }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| ImportError::count(&tx, self.0.id)).into();
        let (page, total) = tokio::join!(ImportError::list(&tx, self.0.id, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, ImportError::position, |error| error))
    }
}

/// A file's text, and how to import it.
#[derive(Debug, InputObject)]
pub(crate) struct ImportAssetsInput {
    /// How it is written.
    format: ImportFormat,
    /// The assets: the file's text, up to 128 KiB. Larger files: `POST /import/assets`.
    content: String,
    /// Which asset needs which, imported after the assets; written in the same format.
    dependencies: Option<String>,
    /// Only say what would be done.
    #[graphql(default_with = "Some(false)")]
    dry_run: Option<bool>,
    /// What an empty cell of a CSV file says.
    #[graphql(default_with = "EmptyCells::Keep")]
    empty_cells: EmptyCells,
    /// The same key again, for as long as the run is kept (30 days, or what `JOB_HISTORY_DAYS` says), is the same import
    /// again: it starts nothing. It is refused where it was ordered otherwise.
    idempotency_key: Option<String>,
}

/// Queries on imports.
#[derive(Default)]
pub(crate) struct ImportQuery;

#[Object]
impl ImportQuery {
    /// One import, or null. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn import_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: ImportRunId,
    ) -> Result<Option<ImportRun>> {
        Ok(import::ImportRun::find(&*ctx.read().await?, id).await?.map(ImportRun))
    }
}

/// Mutations of imports.
#[derive(Default)]
pub(crate) struct ImportMutation;

#[Object]
impl ImportMutation {
    /// Imports assets from a text, and what they need: known ones are changed, others added, rows that are wrong told in
    /// `errors` while the rest is imported. Takes `ASSET_IMPORT`.
    #[graphql(directive = requires::apply(AssetImport))]
    async fn import_assets(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The text.")] input: ImportAssetsInput,
    ) -> Result<ImportRun> {
        let parts = input.cut().map_err(|error| error.within("input"))?;
        let order = ImportOrder {
            kind: ImportKind::Assets,
            format: input.format,
            dry_run: input.dry_run.unwrap_or_default(),
            empty_cells: input.empty_cells,
            idempotency_key: input.idempotency_key,
        };
        let now = ctx.now();
        let tx = ctx.write().await?;
        let run = match import::ImportRun::open(&tx, &order, now).await? {
            Opened::Existing(run) => run,
            Opened::New(run) => {
                for (table, chunks) in &parts {
                    for chunk in chunks {
                        import::ImportRun::add_chunk(&tx, run.id, table, chunk).await?;
                    }
                }
                let run = import::ImportRun::received(&tx, run.id, now).await?;
                push_look(&tx, run.id, now).await?;
                push_first(&tx, &run).await?;
                run
            }
        };
        tx.commit().await?;
        Ok(ImportRun(run))
    }

    /// Ends an import before it is done; what is imported stays. It waits for rows that are being imported just now, and
    /// answers `TIMEOUT` where they take longer: then ask again. Takes `ASSET_IMPORT`.
    #[graphql(directive = requires::apply(AssetImport))]
    async fn cancel_import_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: ImportRunId,
    ) -> Result<ImportRun> {
        let tx: Tx = ctx.write().await?;
        let run = import::ImportRun::cancel(&tx, id, ctx.now()).await?;
        push_sweep(&tx, id).await?;
        tx.commit().await?;
        Ok(ImportRun(run))
    }
}

impl ImportAssetsInput {
    /// The texts as whole rows, the assets first.
    fn cut(&self) -> Result<Vec<(Table, Vec<import::Chunk>)>, DomainError> {
        let mut parts = Vec::new();
        let texts = [
            (ImportKind::Assets, "content", Some(&self.content)),
            (ImportKind::Dependencies, "dependencies", self.dependencies.as_ref()),
        ];
        for (kind, path, text) in texts {
            let Some(text) = text else { continue };
            parts.push(self.cut_one(kind, text).map_err(|error| named(error, path))?);
        }
        Ok(parts)
    }

    fn cut_one(
        &self,
        kind: ImportKind,
        text: &str,
    ) -> Result<(Table, Vec<import::Chunk>), DomainError> {
        if text.len() > TEXT_BYTES {
            let message = format!(
                "has {} bytes, at most {TEXT_BYTES} are taken here: send larger files to POST /import/assets or /import/dependencies",
                text.len()
            );
            return Err(DomainError::invalid("file", message));
        }
        let mut chunker = Chunker::new(self.format);
        let mut chunks = chunker.push(text.as_bytes())?;
        chunks.extend(chunker.finish()?);
        let columns = chunker.header().map(<[String]>::to_vec).unwrap_or_default();
        if self.format == ImportFormat::Csv {
            check_columns(kind, &columns)?;
        }
        Ok((Table { kind, columns, delimiter: chunker.delimiter().unwrap_or(b',') }, chunks))
    }
}

/// The faults of a file, below the argument that it came in.
fn named(error: DomainError, path: &str) -> DomainError {
    match error {
        DomainError::Invalid(mut faults) => {
            for fault in &mut faults {
                fault.path = match fault.path.as_str() {
                    "file" => path.to_owned(),
                    column => format!("{path}.{column}"),
                };
            }
            DomainError::Invalid(faults)
        }
        other => other,
    }
}

/// Subscriptions to imports.
#[derive(Default)]
pub(crate) struct ImportSubscription;

#[Subscription]
impl ImportSubscription {
    /// An import: at once, then at each advance; ends with the import. Takes `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn import_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: ImportRunId,
    ) -> Result<impl Stream<Item = ImportRun> + use<>> {
        let watch = Watch::of(ctx);
        watch.listen(ctx, &[entity::ImportRun::PREFIX], Some(id.uuid()))?;
        let run = import::ImportRun::get(&*ctx.read().await?, id).await?;
        if run.state.has_ended() {
            watch.end();
        }
        Ok(stream::iter([ImportRun(run)]))
    }
}

impl Identified for ImportRun {
    type Entity = entity::ImportRun;

    const REQUIRES: Option<Permission> = Some(AssetRead);

    fn row_id(&self) -> Id<entity::ImportRun> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::ImportRun>) -> Result<Option<Self>> {
        Ok(import::ImportRun::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
