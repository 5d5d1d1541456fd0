//! The demo organization: six people of a small company, thirty assets with dependencies and custodies, and two
//! compliance runs, of yesterday and today. Its name labels it as example data. (`demo/company`: the data.)
//!
//! Actions of the demo's administrator are recorded in the administrator's name. The compliance runs execute here and
//! not in workers, so that they are complete when the greeting is printed.

use std::collections::HashMap;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Actor, Db, Origin, Tx,
    access::{organization::Organization, user::User},
    compliance::{
        rule::Rule,
        run::{Run, RunTrigger, Started},
        waiver::{Waiver, WaiverInput},
    },
    entity::{AssetId, OrganizationId, TagId, UserId},
    inventory::{
        asset::{Asset, AssetFilter, CreateAssetInput, UpdateAssetInput},
        custody::Custody,
        dependency::Dependency,
        tag::Tag,
    },
};
use serde_json::Value;

use crate::{
    admin::{self, CreatedUser},
    config::Config,
};

mod company;

use company::{COLLEAGUES, CUSTODIES, DEPENDENCIES, DemoAsset, PEOPLE, TAGS, WAIVER, WITH_MFA};

const SLUG: &str = "demo";

/// Creates the demo the first time, or completes one whose creation was interrupted. Returns the users whose passwords
/// are new.
pub(crate) async fn load(db: &Db, config: &Config) -> Result<Vec<CreatedUser>> {
    let db = &jobs::compliance::posture::reevaluating(db.clone());
    let tx = db.auth(Origin::system()).await?;
    let organization = match Organization::find_by_slug(&tx, SLUG).await? {
        Some(organization) => organization,
        None => Organization::create(&tx, SLUG, "Demo (example data)", true, crate::now()).await?,
    };
    tx.commit().await?;
    let mut created_users = Vec::new();
    for (role, name) in PEOPLE {
        created_users.extend(join(db, config, &organization, role, name, role).await?);
    }
    for (who, name, role) in COLLEAGUES {
        // Colleagues own assets and do not sign in. Their passwords are discarded; an administrator can set new ones.
        join(db, config, &organization, who, name, role).await?;
    }
    let people = people(db, organization.id).await?;
    // One transaction: a demo that has any assets is complete, unless a user changed it.
    let admin = Origin { actor: Actor::User(people["admin"]), ..Origin::system() };
    let tx = db.write(organization.id, admin).await?;
    if Asset::count(&tx, &AssetFilter::default()).await? == 0 {
        fill(&tx, &people).await?;
    }
    tx.commit().await?;
    Ok(created_users)
}

/// Creates the user unless one with this e-mail exists, in which case it returns `None`.
async fn join(
    db: &Db,
    config: &Config,
    organization: &Organization,
    who: &str,
    name: &str,
    role: &str,
) -> Result<Option<CreatedUser>> {
    let email = email(who);
    let tx = db.auth(Origin::system()).await?;
    let known = User::find_by_email(&tx, &email).await?;
    tx.commit().await?;
    match known {
        Some(_) => Ok(None),
        None => Ok(Some(admin::add(db, config, organization, &email, name, role, None).await?)),
    }
}

fn email(who: &str) -> String {
    format!("{who}@demo.example")
}

/// Returns the id of each person by short name, and records the second factor of some.
async fn people(db: &Db, organization: OrganizationId) -> Result<HashMap<&'static str, UserId>> {
    let tx = db.auth(Origin::system()).await?;
    let mut people = HashMap::new();
    for who in PEOPLE.iter().map(|(who, _)| who).chain(COLLEAGUES.iter().map(|(who, ..)| who)) {
        let id = User::find_by_email(&tx, &email(who)).await?;
        let id = id.with_context(|| format!("the demo's user {who} no longer exists"))?;
        if WITH_MFA.contains(who) {
            User::note_mfa(&tx, organization, id, true, crate::now()).await?;
        }
        people.insert(*who, id);
    }
    tx.commit().await?;
    Ok(people)
}

/// Fills an organization without assets: everything except the people. Asset histories begin before the first custody.
/// Facts date from yesterday, the day of the first run, and some from today.
async fn fill(tx: &Tx, people: &HashMap<&'static str, UserId>) -> Result<()> {
    let now = crate::now();
    let ago = |days| now - TimeDelta::days(days);
    let oldest = CUSTODIES.iter().map(|(.., since, _)| *since).max().unwrap_or_default();
    let begun = ago(oldest + 1);
    let mut tags: HashMap<String, TagId> =
        Tag::list(tx).await?.into_iter().map(|tag| (tag.name, tag.id)).collect();
    for (name, color) in TAGS {
        if !tags.contains_key(name) {
            tags.insert(name.to_owned(), Tag::create(tx, name, Some(color), begun).await?.id);
        }
    }
    let mut assets = HashMap::new();
    let things = company::things(now);
    for thing in &things {
        let asset = Asset::create(tx, &input(thing, people, &tags), begun).await?;
        assets.insert(thing.name, asset.id);
    }
    for (source, target, kind, criticality) in DEPENDENCIES {
        let (source, target) = (assets[source], assets[target]);
        Dependency::add(tx, source, target, Some(kind), Some(criticality), begun).await?;
    }
    for (asset, holder, notes, since, returned) in CUSTODIES {
        Custody::check_out(tx, assets[asset], people[holder], Some(notes), ago(since)).await?;
        if let Some((notes, until)) = returned {
            Custody::check_in(tx, assets[asset], Some(notes), ago(until)).await?;
        }
    }
    let yesterday = ago(1);
    for thing in &things {
        record_facts(tx, assets[thing.name], thing.attributes.clone(), yesterday).await?;
    }
    for (name, known) in company::yesterday() {
        record_facts(tx, assets[name], known, yesterday).await?;
    }
    run_compliance(tx, yesterday).await?;
    let (asset, rule, reason, days) = WAIVER;
    let rule = Rule::find_by_key(tx, rule)
        .await?
        .with_context(|| format!("the rule {rule} does not exist"))?;
    let waived = WaiverInput {
        rule: rule.id,
        asset: Some(assets[asset]),
        reason: reason.to_owned(),
        expires_at: now + TimeDelta::days(days),
    };
    Waiver::grant(tx, &waived, yesterday + TimeDelta::hours(1)).await?;
    for thing in things {
        record_facts(tx, assets[thing.name], thing.attributes, now).await?;
    }
    run_compliance(tx, now).await
}

/// Records facts of an asset at a time, in addition to those already known.
async fn record_facts(tx: &Tx, asset: AssetId, known: Value, at: DateTime<Utc>) -> Result<()> {
    let known =
        UpdateAssetInput { attributes: Some(Some(known)).into(), ..UpdateAssetInput::default() };
    Asset::update(tx, asset, &known, at).await?;
    Ok(())
}

/// Executes a compliance run of all assets, from start to end.
async fn run_compliance(tx: &Tx, at: DateTime<Utc>) -> Result<()> {
    let started = Run::start(tx, RunTrigger::Manual, None, None, at).await?;
    if let Started::New(run, ranges) = started {
        for range in ranges {
            Run::evaluate_shard(tx, run.id, run.round, range, at).await?;
        }
    }
    // Workers push the same jobs after a run.
    jobs::compliance::posture::push_flip(tx).await?;
    jobs::compliance::posture::push_verify(tx, at).await?;
    Ok(())
}

fn input(
    thing: &DemoAsset,
    people: &HashMap<&'static str, UserId>,
    tags: &HashMap<String, TagId>,
) -> CreateAssetInput {
    CreateAssetInput {
        name: thing.name.to_owned(),
        asset_type: thing.asset_type,
        environment: Some(thing.environment),
        lifecycle_state: Some(thing.lifecycle_state),
        external_id: Some(format!("demo:{}", thing.name)),
        location: Some(thing.location.to_owned()),
        description: Some(thing.description.to_owned()),
        owner: (!thing.owner.is_empty()).then(|| people[thing.owner]),
        tags: Some(thing.tags.split_whitespace().map(|tag| tags[tag]).collect()),
        attributes: None,
        custom_fields: None,
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        access::audit::{AuditEntry, AuditQuery},
        base::page::PageRequest,
        inventory::asset::AssetOrder,
        testing::TestDb,
    };

    use super::*;
    use crate::config::Command;

    #[tokio::test]
    async fn the_demo_is_loaded_once_and_whole() {
        let db = TestDb::new().await;
        let config = Config::read(Command::Up, |_| None).unwrap();
        let first: Vec<_> = load(&db, &config).await.unwrap();
        assert_eq!(
            first.iter().map(|one| one.role.as_str()).collect::<Vec<_>>(),
            ["admin", "operator", "viewer"]
        );
        assert!(load(&db, &config).await.unwrap().is_empty());
        let tx = db.auth(Origin::system()).await.unwrap();
        let organization = Organization::find_by_slug(&tx, SLUG).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        let tx = db.read(organization.id).await.unwrap();
        let all = PageRequest { size: 100, backward: false, after: None, before: None };
        let filter = AssetFilter::default();
        let assets = Asset::list(&tx, &filter, AssetOrder::default(), &all).await.unwrap().rows;
        let assets: Vec<_> = assets.iter().map(|asset| asset.id).collect();
        assert_eq!(assets.len(), 30);
        assert_eq!(Tag::list(&tx).await.unwrap().len(), 7);
        assert_eq!(Dependency::list(&tx, &all).await.unwrap().rows.len(), 22);
        assert_eq!(Custody::open_of(&tx, &assets).await.unwrap().len(), 2);
        let trail = AuditEntry::list(&tx, &AuditQuery::default(), &all).await.unwrap().rows;
        for asset in assets {
            // The trail lists the newest entry first.
            let times: Vec<_> = trail
                .iter()
                .filter(|entry| entry.entity_id == asset.uuid())
                .map(|entry| entry.at)
                .collect();
            assert!(times.is_sorted_by(|newer, older| newer >= older), "{asset}: {times:?}");
        }
    }
}
