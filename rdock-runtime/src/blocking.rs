//! For programs without an asynchronous runtime, such as a plain `#[test]`.

use crate::error::{Error, Result};
use std::future::Future;

/// Runs a future of this library to its end on this thread.
///
/// ```no_run
/// use rdock_runtime::{ContainerSpec, Runtime, blocking};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let runtime = Runtime::open_default()?;
///     let spec = ContainerSpec::new("busybox").args(["echo", "hello"]);
///     let container = blocking::wait(spec.start(&runtime))??;
///     let exit = blocking::wait(container.wait())??;
///     assert!(exit.success());
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`Error::System`] inside an asynchronous runtime, whose thread must not block (use `.await` there), and
/// when descriptors ran out.
pub fn wait<F: Future>(future: F) -> Result<F::Output> {
    let failed = Error::system("wait for a container on this thread");
    if tokio::runtime::Handle::try_current().is_ok() {
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::Deadlock,
            "this thread belongs to an asynchronous runtime",
        )));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_future_runs_to_its_end_with_time_and_blocking_work() {
        let slept = async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            tokio::task::spawn_blocking(|| 7).await
        };
        assert_eq!(super::wait(slept).expect("wait").expect("join"), 7);
    }

    #[test]
    fn futures_of_this_library_can_be_spawned() {
        fn is_send<T: Send>(_: T) {}
        // Compiled, not run.
        let _ = |spec: &crate::ContainerSpec, runtime: &crate::Runtime, container: &crate::Container| {
            is_send(spec.start(runtime));
            is_send(spec.start_detached(runtime));
            is_send(container.wait());
            is_send(container.exec(["true"]).output());
        };
    }

    #[tokio::test]
    async fn a_runtimes_own_thread_is_not_blocked() {
        assert!(super::wait(async {}).is_err());
    }
}
