//! `sentryops admin verify-posture`: compares the stored posture (all verdicts and the score) of each asset with a
//! fresh evaluation.
//!
//! Each range of assets has its own transaction, so that compliance runs and changes can continue between the ranges.
//! An asset that awaits re-evaluation is not compared; run the command again later.

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

/// Maximum number of differing assets printed per organization.
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

/// Verifies the postures of the requested organizations. Returns the report and the exit code: 1 if any asset differs,
/// otherwise 3 if any asset was not compared, otherwise 0.
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
    let (mut output, mut is_equal, mut is_complete) = (String::new(), true, true);
    for organization in &organizations {
        let comparison = Comparison::of(&db, organization, arguments.repair).await?;
        is_equal &= comparison.differing == 0;
        is_complete &= comparison.waiting == 0;
        output.push_str(&comparison.render(&organization.slug, arguments.repair));
    }
    let code = match (is_equal, is_complete) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(3),
        (false, _) => ExitCode::FAILURE,
    };
    Ok((output, code))
}

/// Result of comparing the postures of one organization.
#[derive(Default)]
struct Comparison {
    assets: usize,
    waiting: usize,
    differing: usize,
    /// Report lines, one per differing asset; at most `MAX_SHOWN`.
    lines: Vec<String>,
}

impl Comparison {
    async fn of(db: &Db, organization: &Organization, repair: bool) -> Result<Self> {
        let tx = db.read(organization.id).await?;
        let ranges = AssetRange::all(&tx).await?;
        tx.commit().await?;
        let mut comparison = Self::default();
        for range in ranges {
            // A write transaction, because verification first stores built-in rules that are missing or outdated.
            let tx = db.write(organization.id, Origin::system()).await?;
            let posture::Verification { assets, waiting, mismatches } =
                posture::verify(&tx, range, crate::now()).await?;
            comparison.assets += assets;
            comparison.waiting += waiting;
            if repair {
                posture::repair(&tx, &mismatches, crate::now()).await?;
                jobs::compliance::posture::push_flip(&tx).await?;
            }
            let more = mismatches.iter().take(MAX_SHOWN.saturating_sub(comparison.lines.len()));
            let ids: Vec<_> = more.clone().map(|mismatch| mismatch.asset).collect();
            let codes = Asset::of_ids(&tx, &ids).await?;
            comparison.lines.extend(more.map(|mismatch| {
                let code = codes.iter().find(|known| known.id == mismatch.asset);
                let code =
                    code.map_or_else(|| mismatch.asset.to_string(), |known| known.code.clone());
                format!("{code}: {}", render(mismatch))
            }));
            comparison.differing += mismatches.len();
            tx.commit().await?;
        }
        Ok(comparison)
    }

    fn render(&self, slug: &str, repair: bool) -> String {
        let Self { assets, waiting, differing, lines } = self;
        let mut text = format!("{slug}: {assets} assets compared, {differing} differ");
        if repair && *differing > 0 {
            text.push_str(", and were re-evaluated");
        }
        if *waiting > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {waiting} await evaluation and were not compared");
        }
        text.push('\n');
        for line in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {line}");
        }
        if lines.len() < *differing {
            let _ = writeln!(text, "  and {} more", differing - lines.len());
        }
        text
    }
}

/// Renders a mismatch: stored codes, evaluated codes and, if these agree, the codes derived from the open findings.
fn render(mismatch: &Mismatch) -> String {
    let Mismatch { stored, expected, finding_codes, .. } = mismatch;
    let of = |posture: &Option<Posture>| match posture {
        Some(posture) => codes(&posture.codes),
        None => "nothing".to_owned(),
    };
    let (stored, expected) = (of(stored), of(expected));
    // If the codes are equal, the findings differ, or the facts, times or weights of the posture.
    let findings = if stored == expected {
        format!(", findings say {}", codes(finding_codes))
    } else {
        String::new()
    };
    format!("stored {stored}, evaluated {expected}{findings}")
}

/// Renders verdict codes, one letter per rule.
fn codes(codes: &[VerdictCode]) -> String {
    codes.iter().map(|code| char::from(code.as_byte())).collect()
}
