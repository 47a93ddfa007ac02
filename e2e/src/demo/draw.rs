//! Draws a [`Picture`] as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};

use super::picture::{Gpu, Picture};

/// Letters that stand for jobs on the GPUs.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// The table of jobs, and below it the GPUs that hold something.
pub fn picture(picture: &Picture, width: u16) -> String {
    let letters: BTreeMap<(&str, &str), char> = picture
        .jobs
        .iter()
        .zip(LETTERS.iter().cycle())
        .map(|(job, letter)| ((job.namespace.as_str(), job.name.as_str()), char::from(*letter)))
        .collect();
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(["", "KIND", "JOB", "STATE", "GPU", "READY", "NODE", "WHY IT WAITS"]);
    for job in &picture.jobs {
        let letter = letters.get(&(job.namespace.as_str(), job.name.as_str()));
        table.add_row([
            letter.map(char::to_string).unwrap_or_default(),
            job.kind.to_owned(),
            format!("{}/{}", job.namespace, job.name),
            job.state.clone(),
            job.gpu.clone(),
            job.ready.clone(),
            job.nodes.clone(),
            job.why.clone(),
        ]);
    }
    let mut text = table.to_string();
    text.push('\n');
    text.push_str(&gpus(picture, &letters));
    text
}

/// One line per node: its GPUs, one cell per memory slice.
fn gpus(picture: &Picture, letters: &BTreeMap<(&str, &str), char>) -> String {
    let mut nodes: BTreeMap<&str, Vec<&Gpu>> = BTreeMap::new();
    for ((node, _), gpu) in &picture.gpus {
        nodes.entry(node).or_default().push(gpu);
    }
    let mut text = String::new();
    let mut idle = (0, 0);
    for (node, gpus) in nodes {
        if gpus.iter().all(|gpu| gpu.taken.is_empty()) {
            idle = (idle.0 + 1, idle.1 + gpus.len());
            continue;
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "  {node:<8}");
        for gpu in gpus {
            let _ = write!(text, " {}", cells(gpu, letters));
        }
        text.push('\n');
    }
    if idle.0 > 0 {
        let _ = writeln!(text, "  {} more nodes with {} GPUs, all free", idle.0, idle.1);
    }
    text
}

fn cells(gpu: &Gpu, letters: &BTreeMap<(&str, &str), char>) -> String {
    (0..gpu.slices)
        .map(|slice| {
            let taken =
                gpu.taken.iter().find(|taken| (taken.start..taken.start + taken.size).contains(&slice));
            match taken {
                None => '·',
                Some(taken) => {
                    let (namespace, name) = &taken.job;
                    letters.get(&(namespace.as_str(), name.as_str())).copied().unwrap_or('?')
                }
            }
        })
        .collect()
}

/// What is different in `new`, one line per job.
pub fn changes(old: &Picture, new: &Picture) -> Vec<String> {
    new.jobs
        .iter()
        .filter(|job| !old.jobs.contains(job))
        .map(|job| {
            let state = if job.state.is_empty() { "new" } else { &job.state };
            let mut line = format!("{} {}/{}: {state}", job.kind, job.namespace, job.name);
            for (word, value) in [("", &job.ready), ("on ", &job.nodes), ("- ", &job.why)] {
                if !value.is_empty() {
                    let _ = write!(line, " {word}{value}");
                }
            }
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::picture::{Job, Taken};
    use super::*;

    fn taken(start: i64, size: i64, name: &str) -> Taken {
        Taken {
            start,
            size,
            profile: Some("p".to_owned()),
            job: ("ns".to_owned(), name.to_owned()),
            pod: format!("{name}-{start}"),
            gpu_uuid: "GPU-0".to_owned(),
        }
    }

    #[test]
    fn partitions_show_where_they_lie() {
        let job = |name: &str| Job {
            kind: "TrainingJob",
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            ..Job::default()
        };
        let gpu = Gpu { slices: 8, taken: [taken(0, 2, "a"), taken(4, 4, "b")].into() };
        let mut shown = Picture { jobs: vec![job("a"), job("b")], gpus: BTreeMap::new() };
        shown.gpus.insert(("node-0".to_owned(), 0), gpu);
        shown.gpus.insert(("node-1".to_owned(), 0), Gpu { slices: 8, ..Gpu::default() });
        let text = picture(&shown, 100);
        assert!(text.contains("node-0   AA··BBBB\n"), "{text}");
        assert!(text.contains("1 more nodes with 1 GPUs, all free"), "{text}");
    }
}
