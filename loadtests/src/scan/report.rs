//! The part `report`: downloads of a compliance run's report, as printable HTML and as CSV.

use std::time::Instant;

use anyhow::Result;

use super::sizes::MeasuredOrganization;
use crate::{
    client::Connection,
    deployment::Deployment,
    measurement::{Measurement, number},
    report::{progress, whole},
};

/// Number of downloads of each format.
const TIMES: usize = 5;

/// Measures the downloads of the measured run's report.
pub(super) async fn run(
    deployment: &Deployment,
    measured: &MeasuredOrganization,
) -> Result<Measurement> {
    let mut measurement = Measurement::new(
        "report",
        format!(
            "GET of /reports/compliance/{{run}}.html and .csv of a run of {} assets, {TIMES} times each; measured from the request to the last byte.",
            whole(number(measured.assets))
        ),
    );
    for (form, target) in [("html", Some((50, "≤ 2,000"))), ("csv", None)] {
        progress(&format!("scan: downloading the report as {form}"));
        let path = format!("/reports/compliance/{}.{form}", measured.run);
        let (mut took, mut bytes) = (Vec::new(), 0);
        for _ in 0..TIMES {
            let mut connection = Connection::open(deployment.api.address).await?;
            let began = Instant::now();
            bytes = connection.download(&path, &measured.tenant.token).await?;
            took.push(began.elapsed());
        }
        measurement.latencies(form, took, target);
        measurement.figure(format!("{form}: size"), number(bytes) / 1024.0, "KiB");
    }
    Ok(measurement)
}
