//! State of a run. Compliance runs and imports have the same states and are stored in separate tables.

use crate::base::text::text_enum;

text_enum! {
    /// The state of a compliance run or an import.
    RunState in table."state" {
        /// Waiting for a worker to start it.
        Queued = "QUEUED",
        /// Workers are processing the run's shards.
        Running = "RUNNING",
        /// Completed: all shards were processed.
        Succeeded = "SUCCEEDED",
        /// Processing failed permanently, or the rules kept changing during the run.
        Failed = "FAILED",
        /// Cancelled before all shards were processed.
        Cancelled = "CANCELLED",
    }
}

impl RunState {
    /// Returns true if the state is final.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}
