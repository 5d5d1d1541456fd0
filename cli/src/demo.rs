//! The demo organization: three people and thirty assets of a small company, labelled as a demonstration.

use anyhow::Result;
use domain::{
    Db, Origin,
    asset::{Asset, AssetType, CreateAssetInput, Environment, LifecycleState},
    organization::Organization,
    user::User,
};
use serde_json::{Value, json};

use crate::{
    admin::{self, Newcomer},
    config::Config,
};

const SLUG: &str = "demo";

/// Makes it the first time, and says whose passwords are new. A first time that was cut short is made whole.
pub(crate) async fn load(db: &Db, config: &Config) -> Result<Vec<Newcomer>> {
    let tx = db.auth(Origin::system()).await?;
    let organization = match Organization::find_by_slug(&tx, SLUG).await? {
        Some(organization) => organization,
        None => Organization::create(&tx, SLUG, "Demo (example data)", true, crate::now()).await?,
    };
    tx.commit().await?;
    let mut newcomers = Vec::new();
    for (role, name) in
        [("admin", "Ada Admin"), ("operator", "Otto Operator"), ("viewer", "Vera Viewer")]
    {
        let email = format!("{role}@demo.example");
        let tx = db.auth(Origin::system()).await?;
        let known = User::find_by_email(&tx, &email).await?;
        tx.commit().await?;
        if known.is_none() {
            newcomers.push(admin::add(db, config, &organization, &email, name, role, None).await?);
        }
    }
    // All or none: one transaction, so a demo with some assets is one that somebody changed.
    let tx = db.write(organization.id, Origin::system()).await?;
    if Asset::count(&tx, &domain::asset::AssetFilter::default()).await? == 0 {
        for asset in assets() {
            Asset::create(&tx, &asset, crate::now()).await?;
        }
    }
    tx.commit().await?;
    Ok(newcomers)
}

/// Name, type, environment, lifecycle, location, description, attributes.
type Row =
    (&'static str, AssetType, Environment, LifecycleState, &'static str, &'static str, Value);

fn assets() -> Vec<CreateAssetInput> {
    rows()
        .into_iter()
        .map(
            |(
                name,
                asset_type,
                environment,
                lifecycle_state,
                location,
                description,
                attributes,
            )| CreateAssetInput {
                name: name.to_owned(),
                asset_type,
                environment: Some(environment),
                lifecycle_state: Some(lifecycle_state),
                external_id: Some(format!("demo:{name}")),
                location: Some(location.to_owned()),
                description: Some(description.to_owned()),
                owner: None,
                tags: None,
                attributes: Some(attributes),
                custom_fields: None,
            },
        )
        .collect()
}

#[rustfmt::skip] // One line an asset reads as the table that it is.
fn rows() -> Vec<Row> {
    use AssetType::{CloudResource, Host, NetworkDevice, Service, SoftwareLicense};
    use Environment::{Dev, Prod, Staging};
    use LifecycleState::{Active, Maintenance, Provisioning, Retired};
    let linux = |os: &str, encrypted: bool, open_ports: &[u16]| json!({
        "os_name": os, "disk_encrypted": encrypted, "firewall_enabled": true, "open_ports": open_ports,
    });
    vec![
        ("shop-web-1", Host, Prod, Active, "fra1-r03", "Web shop, front end", linux("Debian 12", true, &[22, 443])),
        ("shop-web-2", Host, Prod, Active, "fra1-r04", "Web shop, front end", linux("Debian 12", true, &[22, 443])),
        ("shop-db-1", Host, Prod, Active, "fra1-r03", "Orders and customers, primary", linux("Debian 12", true, &[22, 5432])),
        ("shop-db-2", Host, Prod, Active, "fra1-r04", "Orders and customers, replica", linux("Debian 12", false, &[22, 5432])),
        ("billing-app-1", Host, Prod, Active, "fra1-r05", "Invoices", linux("Ubuntu 22.04", true, &[22, 8443])),
        ("billing-db-1", Host, Prod, Maintenance, "fra1-r05", "Invoices, database", linux("Ubuntu 20.04", true, &[22, 3306])),
        ("mail-1", Host, Prod, Active, "fra1-r02", "Mail relay", linux("Debian 11", true, &[22, 25, 587])),
        ("files-1", Host, Prod, Active, "office-berlin", "File share of the office", json!({"os_name": "Windows Server 2019", "open_ports": [445, 3389], "firewall_enabled": true})),
        ("backup-1", Host, Prod, Active, "office-berlin", "Nightly backups", linux("Debian 12", true, &[22])),
        ("monitor-1", Host, Prod, Active, "fra1-r02", "Metrics and alerts", linux("Debian 12", true, &[22, 9090])),
        ("shop-staging-1", Host, Staging, Active, "fra1-r07", "Web shop, rehearsal", linux("Debian 12", true, &[22, 443])),
        ("billing-staging-1", Host, Staging, Active, "fra1-r07", "Invoices, rehearsal", linux("Ubuntu 22.04", true, &[22, 8443])),
        ("ci-runner-1", Host, Dev, Active, "fra1-r08", "Builds and tests", linux("Debian 12", false, &[22])),
        ("ci-runner-2", Host, Dev, Provisioning, "fra1-r08", "Builds and tests", linux("Debian 13", true, &[22])),
        ("old-shop-1", Host, Prod, Retired, "fra1-r01", "The shop before 2023", linux("Debian 9", false, &[21, 22, 80])),
        ("fra1-core-sw-1", NetworkDevice, Prod, Active, "fra1-r01", "Core switch", json!({"os_name": "Arista EOS", "logging_enabled": true})),
        ("fra1-core-sw-2", NetworkDevice, Prod, Active, "fra1-r01", "Core switch", json!({"os_name": "Arista EOS", "logging_enabled": true})),
        ("fra1-fw-1", NetworkDevice, Prod, Active, "fra1-r01", "Firewall", json!({"os_name": "OPNsense", "has_default_credentials": false})),
        ("berlin-sw-1", NetworkDevice, Prod, Active, "office-berlin", "Office switch", json!({"os_name": "Cisco IOS"})),
        ("berlin-ap-1", NetworkDevice, Prod, Active, "office-berlin", "Wireless, ground floor", json!({"has_default_credentials": true})),
        ("shop", Service, Prod, Active, "fra1", "What customers see", json!({"encryption_in_transit": true})),
        ("billing", Service, Prod, Active, "fra1", "What accounting sees", json!({"encryption_in_transit": true})),
        ("mail", Service, Prod, Active, "fra1", "Mail of the company", json!({"encryption_in_transit": true})),
        ("intranet", Service, Prod, Active, "office-berlin", "Wiki and calendar", json!({"encryption_in_transit": false})),
        ("office-suite", SoftwareLicense, Prod, Active, "office-berlin", "42 seats, yearly", json!({})),
        ("ide-licences", SoftwareLicense, Dev, Active, "office-berlin", "8 seats, yearly", json!({})),
        ("backup-software", SoftwareLicense, Prod, Active, "office-berlin", "2 servers", json!({})),
        ("assets-bucket", CloudResource, Prod, Active, "eu-central-1", "Product pictures", json!({"disk_encrypted": true})),
        ("backup-bucket", CloudResource, Prod, Active, "eu-west-1", "Copies of the backups", json!({"disk_encrypted": true})),
        ("dns-zone", CloudResource, Prod, Active, "global", "example.com and its subdomains", json!({})),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_thirty_assets_of_every_type() {
        let assets = assets();
        assert_eq!(assets.len(), 30);
        for asset_type in AssetType::ALL {
            assert!(assets.iter().any(|asset| asset.asset_type == *asset_type), "{asset_type:?}");
        }
    }
}
