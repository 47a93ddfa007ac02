//! The Kubernetes API of vingt, as Rust types: `TrainingJob`, `InferenceJob`,
//! `Tenant`, `SovereignReserve`, `SovereignOrder`, `UsageReport`, and the names and records that the operator, the agent and the
//! admission policies agree on.
//!
//! It holds no behaviour: what is decided lives in `vingt-core`, what is
//! written to the API server in `vingt-operator`. The YAML in `crds/yaml` and
//! in the chart is generated from here (`cargo run -p vingt-crds`).

mod conditions;
mod decision;
mod gpu;
mod inference_job;
pub mod manifests;
pub mod names;
mod pod_template;
mod reference;
mod scheduling;
mod shape;
mod sovereign_order;
mod sovereign_reserve;
mod tenant;
mod training_job;
mod usage_report;

pub use conditions::{ConditionType, set_condition};
pub use decision::{Basis, DecidedAccount, DecidedDevice, DecisionRecord, InvalidDecision, ended};
pub use gpu::GpuRequest;
pub use inference_job::{InferenceJob, InferenceJobSpec, InferenceJobStatus};
pub use pod_template::PodTemplate;
pub use scheduling::{
    Evictions, ExpectedStart, LastEviction, MoveState, ReplicaMove, TopologySpec, TrainingMove,
};
pub use shape::{Fraction, ReserveShape};
pub use sovereign_order::{OrderState, SovereignOrder, SovereignOrderSpec, SovereignOrderStatus};
pub use sovereign_reserve::{
    AccountAmount, AccountBucket, AccountDay, AccountWindow, Borrower, Crisis, CrisisInForce, InstantClaim,
    Maintenance, NextOrder, PoolSelector, ReserveAccount, ReserveClaimable, ReserveHolder, ReserveLent,
    ReserveProof, ReserveTokens, ReserveYear, SovereignReserve, SovereignReserveSpec, SovereignReserveStatus,
    TokenBucket,
};
pub use tenant::{
    NamespaceSelector, PriceDerivation, PricePlan, RecentUse, Tenant, TenantClass, TenantSpec, TenantStatus,
};
pub use training_job::{
    Assignment, Checkpoint, RestartPolicy, TrainingJob, TrainingJobSpec, TrainingJobStatus,
};
pub use usage_report::{
    ReportClaims, ReportCrisis, ReportDerivation, ReportInstalled, ReportLine, ReportOrders, ReportPool,
    ReportPrice, ReportSubject, ReportSubjectKind, ReportSummary, UsageReport, UsageReportSpec,
};
