//! Jobs, workers and schedules, as users see them. The fleet is all worker processes of an installation.
//!
//! | file | contents |
//! |---|---|
//! | `job` | jobs: states, history, queues, and the actions of users |
//! | `pending` | queries of other modules for jobs of a kind that wait or run |
//! | `worker` | worker processes, which claim and run jobs |
//! | `schedule` | schedules: actions that run at the times of a cron expression |

pub mod job;
pub mod pending;
pub mod schedule;
pub mod worker;
