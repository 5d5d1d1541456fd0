//! Whether assets are as the rules want them: rules, runs, findings, scores.
//!
//! | file | what lives there |
//! |---|---|
//! | `rule` | machine-checkable conditions, and how they judge |
//! | `run` | compliance runs and their shards |
//! | `posture` | what every rule says of an asset now |
//! | `finding`, `waiver` | rules that assets break, and dated permissions to leave them broken |
//! | `score` | how much of what was judged holds, and how much was judged |
//! | `drift`, `forecast` | what changed between two runs, and what time alone will change |
//! | `report` | a run's outcome for those who answer for it |

pub mod drift;
pub mod finding;
pub mod forecast;
pub mod posture;
pub mod report;
pub mod rule;
pub mod run;
pub mod score;
pub mod waiver;
