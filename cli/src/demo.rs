//! The demo organization: six people of a small company, thirty assets with dependencies and check-out records
//! (custodies), and two compliance runs, of yesterday and today. Its name labels it as example data. (`demo/company`:
//! the data.)
//!
//! The audit trail names the administrator of the demo as the actor. The compliance runs execute in this process
//! instead of in workers, so that their results exist when `up` prints its greeting.

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

/// Creates the demo organization, or completes a creation that was interrupted. Returns the users that this call
/// created.
pub(crate) async fn load(db: &Db, config: &Config) -> Result<Vec<CreatedUser>> {
    let db = &jobs::compliance::posture::with_reevaluation(db.clone());
    let tx = db.auth(Origin::system()).await?;
    let organization = match Organization::find_by_slug(&tx, SLUG).await? {
        Some(organization) => organization,
        None => Organization::create(&tx, SLUG, "Demo (example data)", true, crate::now()).await?,
    };
    tx.commit().await?;
    let mut created_users = Vec::new();
    for (role, name) in PEOPLE {
        created_users.extend(create_user(db, config, &organization, role, name, role).await?);
    }
    for (short_name, name, role) in COLLEAGUES {
        // Colleagues own assets but do not sign in, so their passwords are discarded. An administrator can reset them.
        create_user(db, config, &organization, short_name, name, role).await?;
    }
    let people = find_people(db, organization.id).await?;
    // One transaction creates all assets and records, so a demo that has any asset is complete.
    let admin = Origin { actor: Actor::User(people["admin"]), ..Origin::system() };
    let tx = db.write(organization.id, admin).await?;
    if Asset::count(&tx, &AssetFilter::default()).await? == 0 {
        fill_organization(&tx, &people).await?;
    }
    tx.commit().await?;
    Ok(created_users)
}

/// Creates a user. Returns `None` if a user with the e-mail address exists.
async fn create_user(
    db: &Db,
    config: &Config,
    organization: &Organization,
    short_name: &str,
    name: &str,
    role: &str,
) -> Result<Option<CreatedUser>> {
    let email = email(short_name);
    let tx = db.auth(Origin::system()).await?;
    let existing = User::find_by_email(&tx, &email).await?;
    tx.commit().await?;
    match existing {
        Some(_) => Ok(None),
        None => {
            Ok(Some(admin::add_user(db, config, organization, &email, name, role, None).await?))
        }
    }
}

fn email(short_name: &str) -> String {
    format!("{short_name}@demo.example")
}

/// Returns the ids of all people by short name, and enables MFA for the people in `WITH_MFA`.
async fn find_people(
    db: &Db,
    organization: OrganizationId,
) -> Result<HashMap<&'static str, UserId>> {
    let tx = db.auth(Origin::system()).await?;
    let mut people = HashMap::new();
    for short_name in PEOPLE
        .iter()
        .map(|(short_name, _)| short_name)
        .chain(COLLEAGUES.iter().map(|(short_name, ..)| short_name))
    {
        let id = User::find_by_email(&tx, &email(short_name)).await?;
        let id = id.with_context(|| format!("the demo's user {short_name} no longer exists"))?;
        if WITH_MFA.contains(short_name) {
            User::set_mfa_enabled(&tx, organization, id, true).await?;
        }
        people.insert(*short_name, id);
    }
    tx.commit().await?;
    Ok(people)
}

/// Fills an organization with everything except the people: tags, assets, dependencies, custodies, facts, runs and a
/// waiver (time-limited exception). Asset histories begin before the first custody. Facts date from yesterday, the day
/// of the first run, and from today.
async fn fill_organization(tx: &Tx, people: &HashMap<&'static str, UserId>) -> Result<()> {
    let now = crate::now();
    let ago = |days| now - TimeDelta::days(days);
    let oldest = CUSTODIES.iter().map(|(.., since, _)| *since).max().unwrap_or_default();
    let history_start = ago(oldest + 1);
    let mut tags: HashMap<String, TagId> =
        Tag::list(tx).await?.into_iter().map(|tag| (tag.name, tag.id)).collect();
    for (name, color) in TAGS {
        if !tags.contains_key(name) {
            tags.insert(
                name.to_owned(),
                Tag::create(tx, name, Some(color), history_start).await?.id,
            );
        }
    }
    let mut assets = HashMap::new();
    let demo_assets = company::demo_assets(now);
    for demo_asset in &demo_assets {
        let asset = Asset::create(tx, &input(demo_asset, people, &tags), history_start).await?;
        assets.insert(demo_asset.name, asset.id);
    }
    for (source, target, kind, criticality) in DEPENDENCIES {
        let (source, target) = (assets[source], assets[target]);
        Dependency::add(tx, source, target, Some(kind), Some(criticality), history_start).await?;
    }
    for (asset, holder, notes, since, returned) in CUSTODIES {
        Custody::check_out(tx, assets[asset], people[holder], Some(notes), ago(since)).await?;
        if let Some((notes, until)) = returned {
            Custody::check_in(tx, assets[asset], Some(notes), ago(until)).await?;
        }
    }
    let yesterday = ago(1);
    for demo_asset in &demo_assets {
        record_facts(tx, assets[demo_asset.name], demo_asset.attributes.clone(), yesterday).await?;
    }
    for (name, facts) in company::yesterday() {
        record_facts(tx, assets[name], facts, yesterday).await?;
    }
    run_compliance(tx, yesterday).await?;
    let (asset, rule, reason, days) = WAIVER;
    let rule = Rule::find_by_key(tx, rule)
        .await?
        .with_context(|| format!("the rule {rule} does not exist"))?;
    let waiver = WaiverInput {
        rule: rule.id,
        asset: Some(assets[asset]),
        reason: reason.to_owned(),
        expires_at: now + TimeDelta::days(days),
    };
    Waiver::grant(tx, &waiver, yesterday + TimeDelta::hours(1)).await?;
    for demo_asset in demo_assets {
        record_facts(tx, assets[demo_asset.name], demo_asset.attributes, now).await?;
    }
    run_compliance(tx, now).await
}

/// Records facts of an asset at the time `at`. Other facts of the asset stay unchanged.
async fn record_facts(tx: &Tx, asset: AssetId, facts: Value, at: DateTime<Utc>) -> Result<()> {
    let input =
        UpdateAssetInput { attributes: Some(Some(facts)).into(), ..UpdateAssetInput::default() };
    Asset::update(tx, asset, &input, at).await?;
    Ok(())
}

/// Executes a complete compliance run of all assets.
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
    demo_asset: &DemoAsset,
    people: &HashMap<&'static str, UserId>,
    tags: &HashMap<String, TagId>,
) -> CreateAssetInput {
    CreateAssetInput {
        name: demo_asset.name.to_owned(),
        asset_type: demo_asset.asset_type,
        environment: Some(demo_asset.environment),
        lifecycle_state: Some(demo_asset.lifecycle_state),
        external_id: Some(format!("demo:{}", demo_asset.name)),
        location: Some(demo_asset.location.to_owned()),
        description: Some(demo_asset.description.to_owned()),
        owner: (!demo_asset.owner.is_empty()).then(|| people[demo_asset.owner]),
        tags: Some(demo_asset.tags.split_whitespace().map(|tag| tags[tag]).collect()),
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
            first.iter().map(|user| user.role.as_str()).collect::<Vec<_>>(),
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
