//! The domain against a real Postgres; run under `sentryops services --`, or by `make test`.
//!
//! | file | what it holds |
//! |---|---|
//! | `base/schema` | what must be true of every table, asked of the catalogue; the grants |
//! | `base/db`, `tenancy`, `listing` | transactions and their connections; nothing of another organization is seen or changed; lists |
//! | `access/login`, `session`, `identity`, `api_key` | who is let in, for how long, and who is not |
//! | `access/user`, `role`, `authorize`, `audit` | who may do what to whom, and still may when it is done; who changed what |
//! | `inventory/asset`, `tag`, `dependency`, `custody` | what there is, what needs what, and who holds what |
//! | `inventory/import`, `once`, `export`, `round_trip` | files in and out |
//! | `fleet/job`, `worker`, `schedule` | what is to be done, by whom and when |
//! | `compliance/rule`, `verdict`, `native`, `trial` | rules as they are kept, what they say, and the same by hand |
//! | `compliance/posture`, `following`, `run` | what rules say of assets, following changes, and looking at everything |
//! | `compliance/waiver`, `finding` | what may stay broken, until when; what is broken |
//! | `compliance/score`, `drift`, `report` | how much holds, how that went and will go, and for whom it is written down |
//! | `compatibility` | what an earlier version handed out and stored |
//! | `harness`, `compliance/judged` | what the tests start from |

#![expect(clippy::unwrap_used, reason = "tests; clippy does not see that of their helpers")]

mod access;
mod base;
mod compatibility;
mod compliance;
mod fleet;
mod harness;
mod inventory;
