//! Whole or none: what is to be written to the claims of one gang or pod, also
//! after a crash between any two writes. Which devices they get is decided elsewhere.

/// How far one claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimState {
    /// It has neither decision record nor allocation.
    Undecided,
    /// Its decision record is valid and as planned; it has no allocation.
    Recorded,
    /// It is allocated exactly what its valid record says.
    Allocated,
    /// It has a record or an allocation that is not ours, or not as planned.
    Other,
}

/// A write to one claim, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimWrite {
    /// Finalizer and decision record.
    Record(usize),
    /// Allocation and reservation.
    Allocate(usize),
    /// Take the allocation away again.
    Deallocate(usize),
    /// Take the decision record away again.
    Forget(usize),
}

/// What to do with the claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimsStep {
    /// Nothing is decided: devices are to be planned for all of them.
    Plan,
    /// These writes, in this order, bring about the whole.
    Write(Vec<ClaimWrite>),
    /// All are allocated: the gates may come off.
    Complete,
    /// The whole cannot come about: these writes, in this order, leave none.
    RollBack(Vec<ClaimWrite>),
}

/// The next step with the claims of one gang or pod, all of whose pods are gated.
///
/// `planned` says that devices are decided for all of them and that this is
/// recorded elsewhere (in the job's status). A pod of its own has no such record:
/// its claims' records are the decision, which stands only if every claim has one.
pub fn claims_step(claims: &[ClaimState], planned: bool) -> ClaimsStep {
    let any = |state| claims.contains(&state);
    let decided = any(ClaimState::Recorded) || any(ClaimState::Allocated);
    if any(ClaimState::Other) || (!planned && decided && any(ClaimState::Undecided)) {
        return ClaimsStep::RollBack(undo(claims));
    }
    if any(ClaimState::Undecided) && !planned {
        return ClaimsStep::Plan;
    }
    let writes = complete(claims);
    if writes.is_empty() { ClaimsStep::Complete } else { ClaimsStep::Write(writes) }
}

/// All records come before the first allocation: while one is missing, no
/// claim is more than a record, which holds devices but lets no pod start.
fn complete(claims: &[ClaimState]) -> Vec<ClaimWrite> {
    let of = |states: &'static [ClaimState]| {
        claims.iter().enumerate().filter(move |(_, state)| states.contains(state)).map(|(index, _)| index)
    };
    let records = of(&[ClaimState::Undecided]).map(ClaimWrite::Record);
    let allocations = of(&[ClaimState::Undecided, ClaimState::Recorded]).map(ClaimWrite::Allocate);
    records.chain(allocations).collect()
}

/// An allocation without record is void, a record without allocation is not: so
/// the allocation goes first. What is not ours is not touched.
fn undo(claims: &[ClaimState]) -> Vec<ClaimWrite> {
    let writes = |(index, state): (usize, &ClaimState)| match state {
        ClaimState::Undecided | ClaimState::Other => vec![],
        ClaimState::Recorded => vec![ClaimWrite::Forget(index)],
        ClaimState::Allocated => vec![ClaimWrite::Deallocate(index), ClaimWrite::Forget(index)],
    };
    claims.iter().enumerate().flat_map(writes).collect()
}

#[cfg(test)]
mod tests;
