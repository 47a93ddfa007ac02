//! A use of a claim as an entry of the books.

use k8s_openapi::jiff::Timestamp;
use vingt_core::ledger::{Basis, Entry};
use vingt_crds::DecisionRecord;

use super::ends::End;
use crate::tenants::class;
use crate::world::Claim;

/// The name of a use in the books. A claim can be used again, which is another use.
pub fn name(claim: &Claim, record: &DecisionRecord) -> String {
    format!("{}/{}", claim.uid, record.start.as_millisecond())
}

/// The entry of a use.
pub fn entry(claim: &Claim, record: &DecisionRecord, end: End) -> Entry {
    let (end_ms, by_rule) = match end {
        End::Open | End::Due(_) => (None, false),
        End::Told(ended_ms) => (Some(ended_ms), false),
        End::ByRule(ended_ms) => (Some(ended_ms), true),
    };
    let account = &record.account;
    let profile = if account.profile.is_empty() { "unknown" } else { &account.profile };
    Entry {
        claim: name(claim, record),
        tenant: record.tenant.clone(),
        class: class(account.class),
        reserve: account.reserve.clone(),
        profile: profile.to_owned(),
        units: record.units,
        basis: match account.basis {
            vingt_crds::Basis::Ordinary => Basis::Ordinary,
            vingt_crds::Basis::Claimed => Basis::Claimed,
            vingt_crds::Basis::Ordered => Basis::Ordered,
        },
        ordinary_from_ms: account.ordinary_from.map(Timestamp::as_millisecond),
        start_ms: record.start.as_millisecond(),
        end_ms,
        by_rule,
    }
}
