//! Compliance: rules, the runs that evaluate assets against the rules, findings, waivers and scores.
//!
//! The words of this module: a *verdict* is the result of evaluating one rule on one asset. A *failure* is the verdict
//! `FAIL`; the failure is *waived* while a waiver (a time-limited exception to a rule) covers it. A *finding* is the
//! stored record of a failure, and is *live* until the failure is fixed or goes out of scope. A rule is *assessed* on
//! an asset if the verdict is pass or fail, waived or not. `NOT_ASSESSED` (a fact is missing) and `ERROR` are verdicts,
//! too. A *posture* is all verdicts and the score of one asset. A run is split into *shards*, each of which evaluates
//! one range of asset ids.
//!
//! A rule's *weight* follows from its severity. A *score* is a percentage: weight of the passed rules out of the weight
//! of the passed and failed rules, without waived failures. *Coverage* is a fraction: weight of the assessed rules out
//! of the weight of all rules that apply.
//!
//! | file | what lives there |
//! |---|---|
//! | `rule` | rules as machine-checkable conditions, and their evaluation |
//! | `run`, `scope`, `range` | compliance runs, the filter for their assets, and the id ranges of their shards |
//! | `evidence` | facts of an asset beside a verdict, and who may see them |
//! | `evaluator` | the threads on which rules are evaluated |
//! | `posture`, `lock` | postures, and the lock that protects the postures of an organization |
//! | `asset_deletion` | deletion of an asset together with its posture and findings |
//! | `finding`, `waiver` | records of failures, and time-limited exceptions to rules |
//! | `score` | percentage of the rule weight (from severity) that passed, and coverage |
//! | `drift` | changes between two runs |
//! | `forecast` | verdicts that will change merely because time passes, e.g. when a certificate expires |
//! | `report` | the results of a run, for auditors and managers |

pub mod asset_deletion;
pub mod drift;
pub(crate) mod evaluator;
pub mod evidence;
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
