//! The tokio runtime of a program.

use std::future::{Future, pending};
use std::io;
use std::panic::resume_unwind;

use tokio::runtime::Builder;
use tokio::task::JoinError;

/// Runs `work` in a runtime with one thread per processor. Does not wait for tasks that are still blocked when `work` ends, such
/// as DNS lookups without an answer.
///
/// # Errors
/// No thread can be created.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}

/// Runs `work` on a worker thread of `block_on` rather than on its calling thread, where each spawned or awaited task would wake
/// another thread. Propagates panics.
pub async fn on_worker<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await.map_err(JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => resume_unwind(panic),
        // Canceled: the runtime is shutting down, and this task with it.
        Err(Err(_)) => pending().await,
    }
}
