//! `sentryops admin verify-posture`: whether what is kept of assets is what a look at everything finds.
//!
//! Part by part, each in a transaction of its own, so that runs and changes go on meanwhile. What waits to be followed is not
//! compared: a second look finds whether it was.

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

/// Assets that are told of each organization.
const SHOWN: usize = 20;

/// What `verify-posture` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// The slug of an organization; may be repeated. Without it: all of them.
    #[arg(long, value_name = "SLUG")]
    organization: Vec<String>,
    /// Judge anew what differs.
    #[arg(long)]
    repair: bool,
}

/// What there is to say, and 1 where something differs, or else 3 where something was not compared.
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
        let found = Found::of(&db, organization, arguments.repair).await?;
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

/// What a look at an organization's assets found.
#[derive(Default)]
struct Found {
    assets: usize,
    waiting: usize,
    differing: usize,
    /// A line of some of those.
    shown: Vec<String>,
}

impl Found {
    async fn of(db: &Db, organization: &Organization, repair: bool) -> Result<Self> {
        let tx = db.read(organization.id).await?;
        let ranges = AssetRange::all(&tx).await?;
        tx.commit().await?;
        let mut found = Self::default();
        for range in ranges {
            // It writes the built-in rules where nothing has been judged yet.
            let tx = db.write(organization.id, Origin::system()).await?;
            let posture::Verified { assets, waiting, mismatches } =
                posture::verify(&tx, range, crate::now()).await?;
            found.assets += assets;
            found.waiting += waiting;
            if repair {
                posture::repair(&tx, &mismatches, crate::now()).await?;
                jobs::compliance::posture::push_flip(&tx).await?;
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
        let Self { assets, waiting, differing, shown } = self;
        let mut text = format!("{slug}: {assets} assets compared, {differing} differ");
        if repair && *differing > 0 {
            text.push_str(", and were judged anew");
        }
        if *waiting > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {waiting} wait to be judged and were not compared");
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
        Some(posture) => codes(&posture.codes),
        None => "nothing".to_owned(),
    };
    let (kept, judged) = (of(kept), of(judged));
    // Where the codes are the same, the findings differ, or what is beside them: facts, times, weights.
    let told =
        if kept == judged { format!(", findings tell {}", codes(found)) } else { String::new() };
    format!("kept {kept}, judged {judged}{told}")
}

/// One code a rule, as they are kept.
fn codes(codes: &[VerdictCode]) -> String {
    codes.iter().map(|code| char::from(code.as_byte())).collect()
}
