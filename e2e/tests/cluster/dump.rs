//! What was there when a trial failed: objects, events, and the ends of logs.

use vingt_e2e::Lab;
use vingt_e2e::process::tail;

use crate::space::Space;

/// Everything worth knowing of a trial's place, as text.
pub async fn of(space: &Space<'_>) -> String {
    let name = &space.name;
    let kinds = "trainingjobs,inferencejobs,jobs,deployments,pods,resourceclaims";
    let columns = "custom-columns=POD:.metadata.name,PHASE:.status.phase,NODE:.spec.nodeName,\
                   GATES:.spec.schedulingGates[*].name,WAITS:.metadata.annotations.vingt\\.dev/waiting";
    let commands: [&[&str]; 6] = [
        &["get", kinds, "-n", name, "-o", "wide"],
        &["get", "pods", "-n", name, "-o", columns],
        &["get", "trainingjobs,inferencejobs", "-n", name, "-o", "yaml"],
        &["get", "resourceclaims", "-n", name, "-o", "yaml"],
        &["get", "events", "-n", name, "--sort-by=.lastTimestamp"],
        &["get", "tenants,nodes"],
    ];
    let mut parts = vec![format!("\n======== what was in {name} ========")];
    for command in commands {
        parts.push(format!("---- kubectl {}\n{}", command.join(" "), kubectl(space.lab, command).await));
    }
    for container in space.lab.operator().containers() {
        parts.push(format!("---- the operator, {}\n{}", container.pod, tail(&container.log)));
    }
    for node in space.nodes() {
        for container in node.agent().containers() {
            parts.push(format!("---- the agent of {}\n{}", node.name(), tail(&container.log)));
        }
    }
    parts.push(format!("---- the auditor sees\n{}\n========", space.auditor.differences().join("\n")));
    parts.join("\n")
}

async fn kubectl(lab: &Lab, args: &[&str]) -> String {
    lab.kubectl(args).await.unwrap_or_else(|error| format!("{error:#}"))
}
