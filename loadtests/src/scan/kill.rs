//! The part `kill`: workers are killed during compliance runs. Each run must end exactly once, with the same counts as
//! a run without a kill.

use std::time::Duration;

use anyhow::Result;

use super::{
    run::{Counts, Run},
    seeded::Seeding,
};
use crate::{
    deployment::Deployment,
    measurement::{Measurement, number},
    random::Random,
    report::{progress, whole},
};

/// Number of worker processes, one of which is killed in each run.
const PROCESSES: usize = 2;
const SUCCEEDED: &str = "SELECT count(*) FROM compliance_run JOIN organization ON organization.id = compliance_run.org_id
    WHERE slug = $1 AND state = 'SUCCEEDED' AND shards_done = shards";
const ENDED: &str =
    "SELECT count(*) FROM audit_entry JOIN organization ON organization.id = audit_entry.org_id
    WHERE slug = $1 AND action = 'compliance_run.finished'";
const ENDED_ONCE: &str = "SELECT count(DISTINCT entity_id) FROM audit_entry JOIN organization ON organization.id = audit_entry.org_id
    WHERE slug = $1 AND action = 'compliance_run.finished'";
const BURIED: &str = "SELECT count(*) FROM job JOIN organization ON organization.id = job.org_id
    WHERE slug = $1 AND state = 'BURIED'";

/// Runs the part: compliance runs with one killed worker each.
pub(super) async fn run(
    deployment: &mut Deployment,
    assets: i64,
    seed: u64,
    runs: usize,
) -> Result<Measurement> {
    progress("scan: killing workers");
    let tenant = deployment.tenant("killed").await?;
    let mut random = Random::new(seed);
    while deployment.workers.len() < PROCESSES {
        deployment.join_worker().await?;
    }
    Seeding { deployment, tenant: &tenant, assets, seed }.fill().await?;
    Run::start(deployment, &tenant).await?.wait(|_| Ok(())).await?;
    // Changes alternate, so in every second run below, the assets are in the same state as in this run.
    let (quiet, quiet_duration) = Run::start(deployment, &tenant).await?.wait(|_| Ok(())).await?;
    let (mut kills, mut others) = (0, 0);
    let mut took = Vec::with_capacity(runs);
    for round in 1..=runs {
        // Because of the change, the run writes rows, and must write each exactly once.
        let (opened, fixed) =
            Seeding { deployment, tenant: &tenant, assets, seed }.change().await?;
        let expected = if round.is_multiple_of(2) {
            Counts { opened: fixed, fixed: opened, ..quiet.clone() }
        } else {
            let more = opened - fixed;
            let (passed, failed) = (quiet.passed - more, quiet.failed + more);
            Counts { passed, failed, opened, fixed, ..quiet.clone() }
        };
        let mut started = Run::start(deployment, &tenant).await?;
        let kill_at = random.between(Duration::ZERO, quiet_duration);
        let mut is_due = true;
        let (counts, elapsed) = started
            .wait(|elapsed| {
                if is_due && elapsed >= kill_at {
                    deployment
                        .workers
                        .swap_remove(random.below(deployment.workers.len()))
                        .kill()?;
                    deployment.start_worker()?;
                    is_due = false;
                    kills += 1;
                }
                Ok(())
            })
            .await?;
        took.push(elapsed);
        others += i64::from(counts != expected);
        if round.is_multiple_of(10) {
            progress(&format!("scan: {round} of {runs} runs with a kill done"));
        }
    }
    let mut measurement = Measurement::new(
        "kill",
        format!(
            "{runs} runs of {} assets, with 1 % of the assets changed before each. One of {PROCESSES} workers is killed (SIGKILL) at a random time \
             within the {:.1} s of the undisturbed run, and replaced immediately; seed {seed}.",
            whole(number(assets)),
            quiet_duration.as_secs_f64()
        ),
    );
    measurement.figure("kills", number(kills), "");
    measurement.latencies("run with a kill", took, None);
    measurement.check("runs with other counts than expected", others, 0);
    let all = i64::try_from(runs)? + 2;
    measurement.check(
        "runs that succeeded with all shards done",
        deployment.count(&tenant, SUCCEEDED).await?,
        all,
    );
    measurement.check(
        "audit entries of finished runs",
        deployment.count(&tenant, ENDED).await?,
        all,
    );
    measurement.check(
        "runs with an audit entry of their end",
        deployment.count(&tenant, ENDED_ONCE).await?,
        all,
    );
    measurement.check("jobs buried", deployment.count(&tenant, BURIED).await?, 0);
    let verified = deployment.admin(&["verify-posture", "--organization", &tenant.slug]).await;
    if let Err(error) = &verified {
        progress(&format!("scan: {error:#}"));
    }
    measurement.check("verify-posture: failures", i64::from(verified.is_err()), 0);
    Ok(measurement)
}
