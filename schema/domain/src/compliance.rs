//! Whether assets are as the rules want them: rules, runs, findings, scores.
//!
//! | file | what lives there |
//! |---|---|
//! | `rule` | machine-checkable conditions, and how they judge |
//! | `run`, `scope`, `range` | compliance runs, which assets they are of, and their shards |
//! | `posture`, `lock` | what every rule says of an asset now, and the lock under which it is judged |
//! | `asset_deletion` | deleting an asset with what was judged of it |
//! | `finding`, `waiver` | rules that assets break, and dated permissions to leave them broken |
//! | `score` | how much of what was judged holds, and how much was judged |
//! | `drift`, `forecast` | what changed between two runs, and what time alone will change |
//! | `report` | a run's outcome for those who answer for it |

pub mod asset_deletion;
pub mod drift;
pub mod finding;
pub mod forecast;
pub(crate) mod lock;
pub mod posture;
pub mod range;
pub mod report;
pub mod rule;
pub mod run;
pub mod scope;
pub mod score;
pub mod waiver;
