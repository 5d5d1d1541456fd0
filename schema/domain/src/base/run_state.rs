//! Where a run is in its life: compliance runs and imports have the same states, each in a table of its own.

use crate::base::text::text_enum;

text_enum! {
    /// Where a run is in its life.
    RunState in table."state" {
        /// No worker has begun.
        Queued = "QUEUED",
        /// Workers are at it.
        Running = "RUNNING",
        /// Every shard is done.
        Succeeded = "SUCCEEDED",
        /// A shard could not be done, or rules changed again and again.
        Failed = "FAILED",
        /// Somebody ended it.
        Cancelled = "CANCELLED",
    }
}

impl RunState {
    /// Whether nothing will change any more.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}
