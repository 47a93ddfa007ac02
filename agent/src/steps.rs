//! Names for the instants between two effects of prepare and unprepare, told
//! to an observer. In production nobody listens; the crash tests end the
//! process at each of them in turn.

/// Told at each instant at which a crash leaves something half done.
pub trait Steps: Send + Sync {
    /// The effect before `step` is done, the one after it has not begun.
    fn reached(&self, step: &'static str);
}

/// Nobody listens.
pub struct Unobserved;

impl Steps for Unobserved {
    fn reached(&self, _step: &'static str) {}
}
