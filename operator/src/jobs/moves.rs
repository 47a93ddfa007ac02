//! What to do next with a replica that is on its way to other devices: a total
//! function from what is recorded and there to one step. Takes no step itself.

/// How long the new replica may take to be ready, in milliseconds.
pub const READY_WITHIN_MS: i64 = 300_000;

/// What the next step depends on, besides the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, each seen in another object.
pub struct MoveFacts {
    /// The server is suspended or being deleted.
    pub stopped: bool,
    /// Recorded: when the move was decided, in milliseconds since 1970.
    pub started_ms: i64,
    /// Recorded: the new replica is ready.
    pub leaving: bool,
    /// The replica that moves is there and not being deleted.
    pub there: bool,
    /// It is marked as the one to go first.
    pub marked: bool,
    /// Replicas wished for.
    pub wanted: u32,
    /// Replicas that are ready, without the one that moves.
    pub others_ready: u32,
}

/// The next thing to bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// Nothing, until something changes or this time comes (milliseconds since 1970).
    Wait {
        /// When to look again.
        until_ms: i64,
    },
    /// Mark the replica that moves as the one to go first.
    Mark,
    /// Record that the new one is ready: the Deployment gets one replica less.
    Leave,
    /// It is over: take the mark off if the replica is still there, and forget the move.
    End {
        /// Whether the replica has moved.
        moved: bool,
    },
}

/// The next step of a move.
pub fn next_move(facts: &MoveFacts, now_ms: i64) -> MoveStep {
    if facts.stopped {
        return MoveStep::End { moved: false };
    }
    if !facts.there {
        return MoveStep::End { moved: facts.leaving };
    }
    // A controller that chose another one, or that does nothing, is not waited for for ever.
    let times = if facts.leaving { 2 } else { 1 };
    let until_ms = facts.started_ms.saturating_add(times * READY_WITHIN_MS);
    if until_ms <= now_ms {
        return MoveStep::End { moved: false };
    }
    match facts {
        MoveFacts { leaving: true, .. } => MoveStep::Wait { until_ms },
        facts if facts.others_ready < facts.wanted => MoveStep::Wait { until_ms },
        MoveFacts { marked: false, .. } => MoveStep::Mark,
        MoveFacts { .. } => MoveStep::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: i64 = READY_WITHIN_MS;

    fn begun() -> MoveFacts {
        MoveFacts { there: true, wanted: 2, others_ready: 1, ..MoveFacts::default() }
    }

    #[test]
    fn the_old_replica_goes_when_the_new_one_is_ready() {
        assert_eq!(next_move(&begun(), 0), MoveStep::Wait { until_ms: LATE });
        let ready = MoveFacts { others_ready: 2, ..begun() };
        assert_eq!(next_move(&ready, 0), MoveStep::Mark);
        let marked = MoveFacts { marked: true, ..ready };
        assert_eq!(next_move(&marked, 0), MoveStep::Leave);
        let leaving = MoveFacts { leaving: true, ..marked };
        assert_eq!(next_move(&leaving, LATE), MoveStep::Wait { until_ms: 2 * LATE });
        assert_eq!(next_move(&MoveFacts { there: false, ..leaving }, LATE), MoveStep::End { moved: true });
    }

    #[test]
    fn a_move_that_comes_to_nothing_is_undone() {
        let undone = MoveStep::End { moved: false };
        assert_eq!(next_move(&begun(), LATE), undone, "the new one is not ready in time");
        assert_eq!(next_move(&MoveFacts { stopped: true, ..begun() }, 0), undone);
        assert_eq!(next_move(&MoveFacts { there: false, ..begun() }, 0), undone, "it went by itself");
        let other = MoveFacts { leaving: true, others_ready: 1, ..begun() };
        assert_eq!(next_move(&other, 2 * LATE), undone, "another one went in its stead");
    }
}
