//! The Kubernetes API of vingt, as Rust types: `TrainingJob`, `InferenceJob`,
//! `Tenant`, and the names and records that the operator, the agent and the
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
mod tenant;
mod training_job;

pub use conditions::{ConditionType, set_condition};
pub use decision::{DecidedDevice, DecisionRecord, InvalidDecision};
pub use gpu::GpuRequest;
pub use inference_job::{InferenceJob, InferenceJobSpec, InferenceJobStatus};
pub use pod_template::PodTemplate;
pub use scheduling::{
    Evictions, ExpectedStart, LastEviction, MoveState, ReplicaMove, TopologySpec, TrainingMove,
};
pub use tenant::{NamespaceSelector, RecentUse, Tenant, TenantSpec, TenantStatus};
pub use training_job::{
    Assignment, Checkpoint, RestartPolicy, TrainingJob, TrainingJobSpec, TrainingJobStatus,
};
