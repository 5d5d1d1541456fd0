//! Tests of the domain against a real Postgres; run under `sentryops services --`, or by `make test`.
//!
//! | file | contents |
//! |---|---|
//! | `base/schema` | rules for every table, checked in the catalogue; the grants |
//! | `base/db`, `tenancy`, `listing` | transactions and their connections; isolation of organizations; lists |
//! | `access/login`, `session`, `identity`, `api_key` | sign-in, sessions, API keys, and their refusals |
//! | `access/user`, `role`, `authorize`, `audit` | users and roles; authorization when an action runs; audit trail |
//! | `inventory/asset`, `tag`, `dependency`, `custody` | assets, their tags, dependencies and holders |
//! | `inventory/import`, `dedupe`, `export`, `round_trip` | imports and exports of files |
//! | `fleet/job`, `pending`, `worker`, `schedule` | jobs, workers, schedules |
//! | `compliance/rule`, `verdict`, `native`, `trial` | rules as stored; verdicts, also computed by hand; trials |
//! | `compliance/posture`, `reevaluation`, `run` | postures of assets, re-evaluation after changes, and full runs |
//! | `compliance/waiver`, `finding` | waivers and their expiry; findings |
//! | `compliance/score`, `drift`, `report` | scores, their past and forecast, and reports |
//! | `compatibility` | data and credentials of an earlier version |
//! | `harness`, `compliance/fixture` | fixtures shared by the tests |

#![expect(clippy::unwrap_used, reason = "tests; clippy does not see that of their helpers")]

mod access;
mod base;
mod compatibility;
mod compliance;
mod fleet;
mod harness;
mod inventory;
