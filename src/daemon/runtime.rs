//! The runtime that a program's work runs in.

use std::future::{Future, pending};
use std::io;
use std::panic::resume_unwind;

use tokio::runtime::Builder;
use tokio::task::JoinError;

/// Runs a program's work on as many threads as there are processors. What is still under way when it ends, such as a look-up
/// of a name that nobody answers, is not waited for.
///
/// # Errors
/// The system's, when no thread can be had.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(outcome)
}

/// Runs work on one of the threads of [`block_on`] and not on its caller's, where each task that the work spawns or waits for would
/// have to wake another thread. A panic goes on here.
pub async fn on_worker<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await.map_err(JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime ends, and this with it.
        Err(Err(_)) => pending().await,
    }
}
