//! The runtime that a program's work runs in.

use std::future::Future;
use std::io;

use tokio::runtime::Builder;

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
