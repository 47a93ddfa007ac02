//! Threads for what may take its time: of the lowest priority, so that no
//! decision waits for them.

/// Nice value of the threads.
const NICE: i32 = 19;

/// Runs `work` in a thread of its own. Returns whether there is one.
pub fn run(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // It may well be refused; then it only takes more from others.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "a thread in the background keeps its priority");
        }
        work();
    });
    spawned.inspect_err(|error| tracing::warn!(%error, %name, "no thread can be started")).is_ok()
}
