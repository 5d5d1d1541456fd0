//! The work of the fleet, as people see it: jobs, workers, schedules.
//!
//! | file | what lives there |
//! |---|---|
//! | `job` | orders to workers: their states, history and queues |
//! | `worker` | processes that take jobs |
//! | `schedule` | what is started at which times |

pub mod job;
pub mod schedule;
pub mod worker;
