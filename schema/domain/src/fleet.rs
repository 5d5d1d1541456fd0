//! The work of the fleet, as people see it: jobs, workers, schedules.
//!
//! | file | what lives there |
//! |---|---|
//! | `job` | orders to workers: their states, history and queues |
//! | `pending` | jobs that have not ended, as the domain asks for them |
//! | `worker` | processes that take jobs |
//! | `schedule` | what is started at which times |

pub mod job;
pub mod pending;
pub mod schedule;
pub mod worker;
