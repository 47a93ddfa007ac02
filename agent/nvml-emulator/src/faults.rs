//! Faults that a test waits for: an error, a delay or a kill at the n-th call of a function. Calls are counted over
//! all processes that may write the state, from the moment the fault is injected. Which call that is, is decided
//! under the state's lock; what happens, happens outside of it.

use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::state::State;
use crate::store::Store;

/// The function name that stands for all of them.
pub const ANY: &str = "*";

/// A fault, waiting or fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The C function's exact name, as the client calls it, or [`ANY`].
    pub function: String,
    /// Calls still to come until it fires: 1 is the next one, 0 has fired.
    pub remaining: u64,
    /// What happens.
    pub action: Action,
    /// On which side of the function's work.
    pub moment: Moment,
    /// The function it fired in.
    pub fired_in: Option<String>,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The function answers this code.
    Error(Code),
    /// The function takes so many milliseconds more.
    DelayMs(u64),
    /// The calling process gets SIGKILL.
    Kill,
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Moment {
    /// Instead of, or before, the function's work.
    Before,
    /// When the work is done but the caller does not know yet.
    After,
}

/// Runs a function of NVML with the faults that wait for it.
pub(crate) fn around(
    store: &Store,
    function: &str,
    work: impl FnOnce() -> Result<(), Code>,
) -> Result<(), Code> {
    let fired = due(store, function)?;
    if fired.is_empty() {
        return work();
    }
    strike(&fired, Moment::Before)?;
    let answer = work();
    strike(&fired, Moment::After)?;
    answer
}

/// Counts the call, and takes the faults that fire in it.
fn due(store: &Store, function: &str) -> Result<Vec<Fault>, Code> {
    let state = store.snapshot().map_err(|error| error.code())?;
    if !state.faults.iter().any(|fault| waits_for(fault, function)) {
        return Ok(Vec::new());
    }
    match store.change(|state| Ok(count(state, function))) {
        Ok(fired) => Ok(fired),
        // A process that cannot write is not counted.
        Err(error) if error.code() == Code::NoPermission => Ok(Vec::new()),
        Err(error) => Err(error.code()),
    }
}

fn count(state: &mut State, function: &str) -> Vec<Fault> {
    let mut fired = Vec::new();
    for fault in state.faults.iter_mut().filter(|fault| waits_for(fault, function)) {
        fault.remaining -= 1;
        if fault.remaining == 0 {
            fault.fired_in = Some(function.to_owned());
            fired.push(fault.clone());
        }
    }
    fired
}

fn waits_for(fault: &Fault, function: &str) -> bool {
    fault.remaining > 0 && (fault.function == function || fault.function == ANY)
}

fn strike(faults: &[Fault], moment: Moment) -> Result<(), Code> {
    for fault in faults.iter().filter(|fault| fault.moment == moment) {
        match fault.action {
            Action::DelayMs(delay_ms) => thread::sleep(Duration::from_millis(delay_ms)),
            Action::Error(code) => return Err(code),
            Action::Kill => {
                let me = rustix::process::getpid();
                // Nothing to do about a failure: a process may always signal itself.
                let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            }
        }
    }
    Ok(())
}
