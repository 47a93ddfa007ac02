//! Every name that more than one part of vingt must spell alike: the operator
//! writes them, the agent and the admission policies of the chart check them.

/// API group of vingt's kinds.
pub const GROUP: &str = "vingt.dev";
/// Name of the DRA driver: in slices, allocations, and the kubelet's plugin registry.
pub const DRIVER: &str = "gpu.vingt.dev";

/// Scheduling gate that holds a pod until its devices are decided (DESIGN D2).
pub const GATE: &str = "vingt.dev/admission";
/// Taint key on every published device, so that no stock allocator takes one by itself.
pub const FENCE_TAINT: &str = "vingt.dev/managed";
/// Finalizer of the stock resource-claim controller; without it a claim in use can be deleted.
pub const CLAIM_FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Finalizer on jobs of our kinds, until what they hold is released.
pub const JOB_FINALIZER: &str = "vingt.dev/release";

/// Annotation on a ResourceClaim: the decision record, JSON of `DecisionRecord`.
pub const DECISION: &str = "vingt.dev/decision";
/// Finalizer on a ResourceClaim that was decided, until its use is in the ledger.
pub const LEDGER_FINALIZER: &str = "vingt.dev/ledger";
/// Annotation on a ResourceClaim: when the last of its devices was given back, as an RFC 3339 time with
/// milliseconds. The agent writes it.
pub const ENDED: &str = "vingt.dev/ended";
/// Annotation on a pod: name of the `SovereignOrder` of its namespace that it runs on. Users write it.
pub const ORDER: &str = "vingt.dev/order";
/// Annotation on a gated pod: in words, why it waits.
pub const WAIT_REASON: &str = "vingt.dev/waiting";

/// Annotation on a job of our kinds or a pod: when its progress was last saved, as an RFC 3339 time. Users write it.
pub const CHECKPOINTED_AT: &str = "vingt.dev/checkpointed-at";
/// Annotation on a pod: `true` or `false`, whether it may be stopped for others. Users write it.
pub const PREEMPTIBLE: &str = "vingt.dev/preemptible";

/// Label on a namespace: the tenant it belongs to. Only the operator may write it.
pub const TENANT_LABEL: &str = "vingt.dev/tenant";
/// Label on the objects of a `TrainingJob` (Job, Service, pods, claims): its name.
pub const TRAINING_JOB_LABEL: &str = "vingt.dev/training-job";
/// Label on the objects of an `InferenceJob` (Deployment, Service, pods, claims): its name.
pub const INFERENCE_JOB_LABEL: &str = "vingt.dev/inference-job";
/// Label on a DeviceClass: the name of the ResourceClaimTemplate that every tenant's namespace gets for it.
pub const CLAIM_TEMPLATE_LABEL: &str = "vingt.dev/claim-template";
/// Label on what the operator made and may remove again.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`], and the operator's server-side-apply field manager.
pub const OPERATOR: &str = "vingt-operator";

/// Device class of whole GPUs.
pub const CLASS_GPU: &str = "gpu.vingt.dev";
/// Device class of all MIG partitions; a request picks one by a selector on `profile`.
pub const CLASS_MIG: &str = "mig.vingt.dev";
/// Priority class of pods that vingt creates; it never preempts (DESIGN D2).
pub const PRIORITY_CLASS: &str = "vingt";

/// Names of the attributes and counters that the agent publishes and the
/// operator reads. All are in the driver's own domain.
pub mod device {
    /// `gpu` or `mig`.
    pub const TYPE: &str = "type";
    /// UUID of a whole GPU.
    pub const UUID: &str = "uuid";
    /// UUID of the GPU that a partition is cut from.
    pub const PARENT_UUID: &str = "parentUUID";
    /// Minor number of the GPU on its node.
    pub const MINOR: &str = "minor";
    /// MIG profile, as the driver names it (`3g.40gb`).
    pub const PROFILE: &str = "profile";
    /// First memory slice of a partition.
    pub const PLACEMENT_START: &str = "placementStart";
    /// Memory slices of a partition.
    pub const PLACEMENT_SIZE: &str = "placementSize";
    /// Product name, as NVML gives it.
    pub const PRODUCT_NAME: &str = "productName";
    /// Architecture, lower case (`hopper`).
    pub const ARCHITECTURE: &str = "architecture";
    /// Capacity: memory in bytes.
    pub const MEMORY: &str = "memory";
    /// Counter: compute slices (7 on an H100). As a capacity it is `computeSlices`: the API wants a C identifier there.
    pub const COMPUTE_SLICES: &str = "compute-slices";
    /// Prefix of the counters of one memory slice each: `memory-slice-0`..
    pub const MEMORY_SLICE_PREFIX: &str = "memory-slice-";
}
