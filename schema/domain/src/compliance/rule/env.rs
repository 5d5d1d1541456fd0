//! Functions that conditions can call in addition to the standard library of CEL: `days(n)` and `hours(n)`, which
//! return durations.

use std::sync::{Arc, LazyLock};

use cel::{
    Env, ExecutionError,
    common::types::{CelDuration, CelInt},
};
use chrono::TimeDelta;

/// Standard library of CEL, plus `days` and `hours`.
pub(super) static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    fn span(
        of: fn(i64) -> Option<TimeDelta>,
        count: CelInt,
    ) -> Result<CelDuration, ExecutionError> {
        of(*count.inner())
            .filter(|span| span.num_nanoseconds().is_some())
            .map(CelDuration::from)
            .ok_or_else(|| ExecutionError::function_error("days", "is longer than 292 years"))
    }
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as CEL calls it")]
    fn days(count: &CelInt) -> Result<CelDuration, ExecutionError> {
        span(TimeDelta::try_days, *count)
    }
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as CEL calls it")]
    fn hours(count: &CelInt) -> Result<CelDuration, ExecutionError> {
        span(TimeDelta::try_hours, *count)
    }
    let mut env = Env::stdlib();
    cel::add_overload!(env, fn days: (CelInt) -> Result<CelDuration>)
        .expect("the standard library has no days");
    cel::add_overload!(env, fn hours: (CelInt) -> Result<CelDuration>)
        .expect("the standard library has no hours");
    Arc::new(env)
});
