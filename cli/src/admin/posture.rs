//! `sentryops admin verify-posture`: whether what is kept of assets is what a look at everything finds.
//!
//! Part by part, each in a transaction of its own, so that runs and changes go on meanwhile. What waits to be followed is not
//! held against anybody: a second look finds whether it was.

use std::{fmt::Write, process::ExitCode};

use anyhow::Result;
use clap::Args;
use domain::{
    Db, Origin,
    asset::{Asset, AssetFilter, LifecycleState},
    organization::Organization,
    posture::{self, Letter, Mismatch, Posture},
    run::AssetRange,
};

/// Assets that are told of each organization.
const SHOWN: usize = 20;
/// What a look does not judge.
const OUT_OF_SCOPE: [LifecycleState; 2] = [LifecycleState::Retired, LifecycleState::Disposed];

/// What `verify-posture` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// The slug of an organization; may be repeated. Without it: all of them.
    #[arg(long, value_name = "SLUG")]
    organization: Vec<String>,
    /// Have workers judge anew what differs.
    #[arg(long)]
    repair: bool,
}

/// What there is to say, and 1 where something differs.
pub(super) async fn verify(arguments: &Arguments, db: Db) -> Result<(String, ExitCode)> {
    // What is noted for repair is followed by a job that its transaction asks for.
    let db = jobs::scan::following(db);
    let mut organizations = Vec::new();
    for slug in &arguments.organization {
        organizations.push(super::find_organization(&db, slug).await?);
    }
    if arguments.organization.is_empty() {
        let tx = db.auth(Origin::system()).await?;
        organizations = Organization::all(&tx).await?;
        tx.commit().await?;
    }
    let (mut said, mut is_right) = (String::new(), true);
    for organization in &organizations {
        let found = Found::of(&db, organization, arguments.repair).await?;
        is_right &= found.differing == 0;
        said.push_str(&found.render(&organization.slug, arguments.repair));
    }
    Ok((said, if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

/// What a look at an organization's assets found.
struct Found {
    assets: i64,
    differing: usize,
    /// A line of some of those.
    shown: Vec<String>,
}

impl Found {
    async fn of(db: &Db, organization: &Organization, repair: bool) -> Result<Self> {
        let tx = db.read(organization.id).await?;
        let ranges = AssetRange::all(&tx).await?;
        let states = LifecycleState::ALL.iter().filter(|state| !OUT_OF_SCOPE.contains(state));
        let in_operation = AssetFilter {
            lifecycle_state: Some(states.copied().collect()),
            ..AssetFilter::default()
        };
        let assets = Asset::count(&tx, &in_operation).await?;
        tx.commit().await?;
        let mut found = Self { assets, differing: 0, shown: Vec::new() };
        for range in ranges {
            // It writes the built-in rules where nothing has been judged yet.
            let tx = db.write(organization.id, Origin::system()).await?;
            let mismatches = posture::verify(&tx, range, crate::now()).await?;
            if repair {
                posture::repair(&tx, &mismatches).await?;
            }
            let more = mismatches.iter().take(SHOWN.saturating_sub(found.shown.len()));
            let ids: Vec<_> = more.clone().map(|mismatch| mismatch.asset).collect();
            let codes = Asset::of_ids(&tx, &ids).await?;
            found.shown.extend(more.map(|mismatch| {
                let code = codes.iter().find(|known| known.id == mismatch.asset);
                let code =
                    code.map_or_else(|| mismatch.asset.to_string(), |known| known.code.clone());
                format!("{code}: {}", render(mismatch))
            }));
            found.differing += mismatches.len();
            tx.commit().await?;
        }
        Ok(found)
    }

    fn render(&self, slug: &str, repair: bool) -> String {
        let Self { assets, differing, shown } = self;
        let mut text = format!("{slug}: {assets} assets in operation, {differing} differ");
        if repair && *differing > 0 {
            text.push_str(": workers judge them anew");
        }
        text.push('\n');
        for line in shown {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {line}");
        }
        if shown.len() < *differing {
            let _ = writeln!(text, "  and {} more", differing - shown.len());
        }
        text
    }
}

/// What is kept, what was judged, and what the findings tell where that is what differs.
fn render(mismatch: &Mismatch) -> String {
    let Mismatch { kept, judged, found, .. } = mismatch;
    let of = |posture: &Option<Posture>| match posture {
        Some(posture) => letters(&posture.letters),
        None => "nothing".to_owned(),
    };
    let (kept, judged) = (of(kept), of(judged));
    // Where the letters are the same, the findings differ, or what is beside them: facts, times, weights.
    let told =
        if kept == judged { format!(", findings tell {}", letters(found)) } else { String::new() };
    format!("kept {kept}, judged {judged}{told}")
}

/// One letter a rule, as they are kept.
fn letters(letters: &[Letter]) -> String {
    letters.iter().map(|letter| char::from(letter.as_byte())).collect()
}
