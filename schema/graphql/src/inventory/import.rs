//! Imports: the GraphQL type, the query, the mutations and the subscription. Files over 128 KiB are uploaded to
//! `POST /import/…` instead: see `upload`.

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
    inventory::{
        import::{
            self, EmptyCells, ImportError, ImportFormat, ImportKind, ImportOrder, Opened, Table,
            check_columns, chunker::Chunker,
        },
        owners::Owners,
    },
};
use futures_util::{Stream, future::OptionFuture, stream};
use jobs::inventory::import::{push_abandonment_check, push_first_chunk, push_sweep};

use crate::{
    access::actor::{Actor, actor},
    document::policy::{FieldPolicy, Policy::StartsJobs},
    request::{
        context::ContextExt,
        error::Result,
        node::Identified,
        page::{Connection, wants_total},
        subscription_state::SubscriptionState,
    },
};

/// Maximum size of each text in a GraphQL request, in bytes. Larger files must be uploaded.
const MAX_TEXT_BYTES: usize = 128 * 1024;

/// An import run: the import of one uploaded file, or of rows passed inline as texts, with progress and result.
pub(crate) struct ImportRun(pub(crate) import::ImportRun);

/// An import run: the import of one uploaded file, or of rows passed inline as texts, with progress and result. The
/// mutations `importAssets` and `cancelImportRun` return the import run to callers with `ASSET_IMPORT`. The query and
/// the subscription of import runs, `reason` and `errors` require `ASSET_READ`.
#[Object(directive = authenticated::apply())]
impl ImportRun {
    #[graphql(flatten)]
    async fn row(&self) -> &import::ImportRun {
        &self.0
    }

    /// The actor who submitted the import; null if this user or API key no longer exists.
    async fn started_by(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }

    /// Errors in single rows, in the order of the rows. Only the first 10,000 errors of an import are stored. Requires
    /// `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn errors(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
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

/// Texts to import, with the options of the import.
#[derive(Debug, InputObject)]
pub(crate) struct ImportAssetsInput {
    /// Format of `content` and `dependencies`.
    format: ImportFormat,
    /// Text with the assets, up to 128 KiB. Send larger files to `POST /import/assets`.
    content: String,
    /// Text with dependencies between assets, in the same format, up to 128 KiB. Imported after the assets.
    dependencies: Option<String>,
    /// True for a dry run, which counts the changes and errors but changes nothing.
    #[graphql(default_with = "Some(false)")]
    dry_run: Option<bool>,
    /// Effect of an empty cell in CSV.
    #[graphql(default_with = "EmptyCells::Keep")]
    empty_cells: EmptyCells,
    /// Idempotency key of the caller. A second request of the same caller with the same key starts no import and
    /// returns the first one; it is rejected if its parameters differ. The key is valid as long as the import run is
    /// stored: 30 days by default, see `JOB_HISTORY_DAYS`.
    idempotency_key: Option<String>,
}

/// Root fields that read imports.
#[derive(Default)]
pub(crate) struct ImportQuery;

#[Object]
impl ImportQuery {
    /// The import run with this id; null if there is none. Requires `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn import_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The import's id, beginning `imp_`.")] id: ImportRunId,
    ) -> Result<Option<ImportRun>> {
        Ok(import::ImportRun::find(&*ctx.read().await?, id).await?.map(ImportRun))
    }
}

/// Policies of the field that starts an import.
pub(crate) const POLICIES: &[FieldPolicy] =
    &[FieldPolicy { on: "Mutation", field: "importAssets", policies: &[StartsJobs] }];

/// Root fields that start and cancel imports.
#[derive(Default)]
pub(crate) struct ImportMutation;

#[Object]
impl ImportMutation {
    /// Imports assets and dependencies from texts. Each row changes the asset that it matches, or adds an asset if no
    /// asset matches. Invalid rows are listed in `errors`, and all other rows are imported. Requires `ASSET_IMPORT`;
    /// owners also require `USER_READ`.
    #[graphql(directive = requires::apply(AssetImport))]
    async fn import_assets(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Texts to import, with options.")] input: ImportAssetsInput,
    ) -> Result<ImportRun> {
        let owners = Owners::of(ctx.viewer()?);
        let parts = input.split_texts(owners).map_err(|error| error.within("input"))?;
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
                let run = import::ImportRun::mark_received(&tx, run.id, now).await?;
                push_abandonment_check(&tx, run.id, now).await?;
                push_first_chunk(&tx, &run).await?;
                run
            }
        };
        tx.commit().await?;
        Ok(ImportRun(run))
    }

    /// Cancels an import; rows that are already imported stay. If a worker is importing rows, waits until these are
    /// finished, and fails with `TIMEOUT` if that takes too long: try again then. Requires `ASSET_IMPORT`.
    #[graphql(directive = requires::apply(AssetImport))]
    async fn cancel_import_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The import's id, beginning `imp_`.")] id: ImportRunId,
    ) -> Result<ImportRun> {
        let tx: Tx = ctx.write().await?;
        let run = import::ImportRun::cancel(&tx, id, ctx.now()).await?;
        push_sweep(&tx, id).await?;
        tx.commit().await?;
        Ok(ImportRun(run))
    }
}

impl ImportAssetsInput {
    /// Splits the texts into chunks of complete rows; those of the assets come first.
    ///
    /// # Errors
    /// `Invalid` for a text that is too large or malformed, or that has invalid columns.
    fn split_texts(&self, owners: Owners) -> Result<Vec<(Table, Vec<import::Chunk>)>, DomainError> {
        let mut parts = Vec::new();
        let texts = [
            (ImportKind::Assets, "content", Some(&self.content)),
            (ImportKind::Dependencies, "dependencies", self.dependencies.as_ref()),
        ];
        for (kind, path, text) in texts {
            let Some(text) = text else { continue };
            parts.push(
                self.split_text(kind, text, owners).map_err(|error| at_argument(error, path))?,
            );
        }
        Ok(parts)
    }

    fn split_text(
        &self,
        kind: ImportKind,
        text: &str,
        owners: Owners,
    ) -> Result<(Table, Vec<import::Chunk>), DomainError> {
        if text.len() > MAX_TEXT_BYTES {
            let message = format!(
                "has {} bytes, at most {MAX_TEXT_BYTES} are allowed here: send larger files to POST /import/assets or /import/dependencies",
                text.len()
            );
            return Err(DomainError::invalid("file", message));
        }
        let mut chunker = Chunker::new(self.format);
        let mut chunks = chunker.push(text.as_bytes())?;
        chunks.extend(chunker.finish()?);
        let columns = chunker.header().map(<[String]>::to_vec).unwrap_or_default();
        if self.format == ImportFormat::Csv {
            check_columns(kind, &columns, owners)?;
        }
        Ok((Table { kind, columns, delimiter: chunker.delimiter().unwrap_or(b',') }, chunks))
    }
}

/// Changes the paths of the errors in a text to the argument that contains the text: `path`, or `path.column`.
fn at_argument(error: DomainError, path: &str) -> DomainError {
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

/// Root fields that subscribe to imports.
#[derive(Default)]
pub(crate) struct ImportSubscription;

#[Subscription]
impl ImportSubscription {
    /// The current state of an import run, then an update after each change. Completes when the import ends. Requires
    /// `ASSET_READ`.
    #[graphql(directive = requires::apply(AssetRead))]
    async fn import_run(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The import's id, beginning `imp_`.")] id: ImportRunId,
    ) -> Result<impl Stream<Item = ImportRun> + use<>> {
        let subscription = SubscriptionState::of(ctx);
        subscription.subscribe_to_hints(ctx, &[entity::ImportRun::PREFIX], Some(id.uuid()))?;
        let run = import::ImportRun::get(&*ctx.read().await?, id).await?;
        if run.state.has_ended() {
            subscription.complete();
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
