//! Manifests that many trials apply; `@nodes` in them stands for the trial's
//! own nodes, see `Space::read`.

/// A `TrainingJob`; `gpu` as in `profile: 1g.10gb`.
pub fn job(name: &str, workers: u32, gpu: &str) -> String {
    gang(name, workers, gpu, "")
}

/// The same, with more fields of its spec, in YAML's flow style where they are several lines.
pub fn gang(name: &str, workers: u32, gpu: &str, more: &str) -> String {
    format!(
        "
apiVersion: vingt.dev/v1alpha1
kind: TrainingJob
metadata: {{name: {name}}}
spec:
  workers: {workers}
  gpu: {{{gpu}}}
  {more}
  template:
    spec:
      nodeSelector: @nodes
      containers: [{{name: train, image: example.invalid/x}}]
"
    )
}

/// A pod with a claim made from a template.
pub fn pod(name: &str, template: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeSelector: @nodes
  resourceClaims: [{{name: gpu, resourceClaimTemplateName: {template}}}]
  containers: [{{name: c, image: example.invalid/x, resources: {{claims: [{{name: gpu}}]}}}}]
"
    )
}
