//! Waiting for a condition with a deadline. Nothing in the lab or its tests
//! sleeps for a fixed time and hopes.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Asks `check` again and again until it yields a value.
///
/// `check` answers `Ok(Some(value))` when the condition holds, `Ok(None)` or
/// an error when it doesn't yet; the last error is part of the message if the
/// deadline passes. `what` completes the sentence "waited 30 s for …".
pub async fn wait_for<T, C, F>(deadline: Duration, what: &str, mut check: C) -> Result<T>
where
    C: FnMut() -> F,
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + deadline;
    loop {
        let last_error = match check().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            let seconds = deadline.as_secs();
            match last_error {
                Some(error) => bail!("waited {seconds} s for {what}; the last answer was: {error:#}"),
                None => bail!("waited {seconds} s for {what}"),
            }
        }
        sleep(INTERVAL).await;
    }
}
