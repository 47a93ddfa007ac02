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
    let mut text = format!("\n======== what was in {name} ========\n");
    for command in commands {
        text.push_str(&format!(
            "---- kubectl {}\n{}\n",
            command.join(" "),
            kubectl(space.lab, command).await
        ));
    }
    for container in space.lab.operator().containers() {
        text.push_str(&format!("---- the operator, {}\n{}\n", container.pod, tail(&container.log)));
    }
    for node in space.nodes() {
        for container in node.agent().containers() {
            text.push_str(&format!("---- the agent of {}\n{}\n", node.name(), tail(&container.log)));
        }
    }
    let differences = space.auditor.differences();
    text.push_str(&format!("---- the auditor sees\n{}\n========\n", differences.join("\n")));
    text
}

async fn kubectl(lab: &Lab, args: &[&str]) -> String {
    lab.kubectl(args).await.unwrap_or_else(|error| format!("{error:#}"))
}
