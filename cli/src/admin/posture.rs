//! `sentryops admin verify-posture`: compares stored postures with a fresh evaluation of all assets.
//!
//! Works range by range, each in its own transaction, so that runs and changes continue meanwhile. An asset that awaits
//! re-evaluation is not compared: run the command again to compare it.

use std::{fmt::Write, process::ExitCode};

use anyhow::Result;
use clap::Args;
use domain::{
    Db, Origin,
    access::organization::Organization,
    compliance::{
        posture::{self, Mismatch, Posture, VerdictCode},
        range::AssetRange,
    },
    inventory::asset::Asset,
};

/// Maximum differing assets printed per organization.
const MAX_SHOWN: usize = 20;

/// Arguments of `verify-posture`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Slug of an organization; may be repeated. Default: all organizations.
    #[arg(long, value_name = "SLUG")]
    organization: Vec<String>,
    /// Re-evaluate the assets that differ.
    #[arg(long)]
    repair: bool,
}

/// Verifies the chosen organizations. Returns the report and the exit code: 1 if any asset differs, otherwise 3 if any
/// was not compared, otherwise 0.
pub(super) async fn verify(arguments: &Arguments, db: Db) -> Result<(String, ExitCode)> {
    let mut organizations = Vec::new();
    for slug in &arguments.organization {
        organizations.push(super::find_organization(&db, slug).await?);
    }
    if arguments.organization.is_empty() {
        let tx = db.auth(Origin::system()).await?;
        organizations = Organization::all(&tx).await?;
        tx.commit().await?;
    }
    let (mut said, mut is_right, mut is_whole) = (String::new(), true, true);
    for organization in &organizations {
        let found = Comparison::of(&db, organization, arguments.repair).await?;
        is_right &= found.differing == 0;
        is_whole &= found.waiting == 0;
        said.push_str(&found.render(&organization.slug, arguments.repair));
    }
    let code = match (is_right, is_whole) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(3),
        (false, _) => ExitCode::FAILURE,
    };
    Ok((said, code))
}

/// Result of the comparison for one organization.
#[derive(Default)]
struct Comparison {
    assets: usize,
    waiting: usize,
    differing: usize,
    /// Lines on the first differing assets, at most `MAX_SHOWN`.
    shown: Vec<String>,
}

impl Comparison {
    async fn of(db: &Db, organization: &Organization, repair: bool) -> Result<Self> {
        let tx = db.read(organization.id).await?;
        let ranges = AssetRange::all(&tx).await?;
        tx.commit().await?;
        let mut found = Self::default();
        for range in ranges {
            // A write transaction: verification stores the built-in rules of an organization without evaluations.
            let tx = db.write(organization.id, Origin::system()).await?;
            let posture::Verified { assets, waiting, mismatches } =
                posture::verify(&tx, range, crate::now()).await?;
            found.assets += assets;
            found.waiting += waiting;
            if repair {
                posture::repair(&tx, &mismatches, crate::now()).await?;
                jobs::compliance::posture::push_flip(&tx).await?;
            }
            let more = mismatches.iter().take(MAX_SHOWN.saturating_sub(found.shown.len()));
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
        let Self { assets, waiting, differing, shown } = self;
        let mut text = format!("{slug}: {assets} assets compared, {differing} differ");
        if repair && *differing > 0 {
            text.push_str(", and were re-evaluated");
        }
        if *waiting > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {waiting} await evaluation and were not compared");
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

/// Renders a mismatch: stored codes, evaluated codes, and the codes by the findings where the first two agree.
fn render(mismatch: &Mismatch) -> String {
    let Mismatch { kept, judged, found, .. } = mismatch;
    let of = |posture: &Option<Posture>| match posture {
        Some(posture) => codes(&posture.codes),
        None => "nothing".to_owned(),
    };
    let (kept, judged) = (of(kept), of(judged));
    // With equal codes, the difference lies in the findings, or in the facts, times or weights beside the codes.
    let told =
        if kept == judged { format!(", findings say {}", codes(found)) } else { String::new() };
    format!("stored {kept}, evaluated {judged}{told}")
}

/// Renders the stored codes, one letter per rule.
fn codes(codes: &[VerdictCode]) -> String {
    codes.iter().map(|code| char::from(code.as_byte())).collect()
}
