//! Draws a [`Picture`]: each GPU as the memory slices that it has.
//!
//! In colours, a partition is a block in its tenant's colour, with a hair's
//! breadth to the next; without, its tenant's letter, large where a partition
//! begins and small where it goes on (`AaAaBbb·`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::picture::{Gpu, Held, Node, Picture, Tenant};
use crate::screen::{Screen, cell};
use crate::words;

/// Beyond this many tenants there are no letters left.
const LETTERS: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Columns of a node's name at most.
const NAME: usize = 24;

/// The tenants that hold something, in order: their place is their letter and their colour.
type Marks<'a> = BTreeMap<&'a str, usize>;

fn marks(picture: &Picture) -> Marks<'_> {
    let holding = picture.tenants.iter().filter(|tenant| tenant.held_units > 0 && !tenant.name.is_empty());
    holding.enumerate().map(|(index, tenant)| (tenant.name.as_str(), index)).collect()
}

fn letter(mark: Option<usize>) -> char {
    mark.map_or('?', |mark| LETTERS.get(mark).map_or('+', |letter| char::from(*letter)))
}

/// All GPUs, node by node, and the tenants below: what `top` alone shows.
pub fn map(picture: &Picture, screen: Screen) -> String {
    let marks = marks(picture);
    let mut text = format!("{}\n\n", summary(picture));
    let (idle, busy): (Vec<&Node>, Vec<&Node>) =
        picture.nodes.iter().partition(|node| node.idle() && node.complete && healthy(node));
    let longest = busy.iter().map(|node| node.name.chars().count()).max().unwrap_or(0).min(NAME);
    for node in &busy {
        for (line, gpus) in rows(node, usize::from(screen.width).saturating_sub(longest)).enumerate() {
            let name = if line == 0 { short(&node.name, longest) } else { String::new() };
            let gpus: Vec<String> = gpus.iter().map(|gpu| slices(gpu, &marks, screen)).collect();
            let broken = if node.complete { "" } else { "  not all slices published" };
            let _ =
                writeln!(text, "{name:<longest$} {}{}", gpus.join(" "), if line == 0 { broken } else { "" });
        }
    }
    if !idle.is_empty() {
        let gpus = idle.iter().map(|node| node.gpus.len()).sum();
        let more = if busy.is_empty() { "" } else { " more" };
        let nodes = if idle.len() == 1 { "node" } else { "nodes" };
        let _ = writeln!(text, "{}{more} {nodes} with {}, all free", idle.len(), words::count(gpus, "GPU"));
    }
    if !picture.tenants.is_empty() {
        text.push('\n');
        text.push_str(&tenants(picture, screen));
    }
    notes(picture, &mut text);
    text
}

/// One line for each node.
pub fn nodes(picture: &Picture, screen: Screen) -> String {
    let rows = picture.nodes.iter().map(|node| {
        let held = node.gpus.iter().flat_map(|gpu| &gpu.held).map(|held| held.units).sum();
        let whole = node.gpus.iter().filter(|gpu| gpu.held.is_empty() && gpu.healthy).count();
        let cut: Vec<&Gpu> = node.gpus.iter().filter(|gpu| !gpu.held.is_empty() && gpu.free() > 0).collect();
        let state = match (node.complete, healthy(node)) {
            (false, _) => "not all slices published",
            (true, false) => "has a GPU that is not given out",
            (true, true) => "",
        };
        vec![
            cell(&node.name),
            cell(node.gpus.len().to_string()),
            cell(words::gpus(held)),
            cell(whole.to_string()),
            cell(of(cut.iter().map(|gpu| gpu.free()).sum(), cut.iter().map(|gpu| gpu.slices).sum())),
            cell(node.gpus.first().map(|gpu| gpu.product.as_str()).unwrap_or_default()),
            cell(state),
        ]
    });
    let mut text =
        screen.table(&["NODE", "GPUS", "HELD", "FREE", "SLICES", "PRODUCT", "STATE"], &[1, 2, 3, 4], rows);
    notes(picture, &mut text);
    text
}

/// One line for each GPU, with what lies on it.
pub fn gpus(picture: &Picture, screen: Screen) -> String {
    let marks = marks(picture);
    let mut text = String::new();
    let widest = |of: fn(&Node, &Gpu) -> usize| {
        picture
            .nodes
            .iter()
            .flat_map(|node| node.gpus.iter().map(move |gpu| of(node, gpu)))
            .max()
            .unwrap_or(0)
    };
    let name = widest(|node, gpu| node.name.chars().count() + gpu.name.chars().count() + 1);
    let drawn = widest(|_, gpu| gpu.slices as usize).max("SLICES".len());
    let _ = writeln!(text, "{:<name$}  {:<drawn$}  HELD  WHAT", "GPU", "SLICES");
    for (node, gpu) in picture.nodes.iter().flat_map(|node| node.gpus.iter().map(move |gpu| (node, gpu))) {
        let held = words::gpus(gpu.held.iter().map(|held| held.units).sum());
        let (label, pad) = (format!("{}/{}", node.name, gpu.name), drawn.saturating_sub(gpu.slices as usize));
        let before = format!("{label:<name$}  {}{:pad$}  {held:>4}  ", slices(gpu, &marks, screen), "");
        let indent = name + drawn + 10;
        let room = usize::from(screen.width).saturating_sub(indent).max(20);
        let what =
            if gpu.healthy || !gpu.held.is_empty() { what(gpu) } else { vec!["not given out".to_owned()] };
        for (line, part) in wrap(&what, room).into_iter().enumerate() {
            let before = if line == 0 { before.clone() } else { " ".repeat(indent) };
            let _ = writeln!(text, "{}", format!("{before}{part}").trim_end());
        }
    }
    notes(picture, &mut text);
    text
}

/// One line for each tenant.
pub fn tenants(picture: &Picture, screen: Screen) -> String {
    let marks = marks(picture);
    let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let row = |tenant: &Tenant| {
        let mark = marks.get(tenant.name.as_str()).copied();
        let first = match mark {
            Some(mark) if screen.colours => screen.cell(mark, "█"),
            Some(mark) => cell(letter(Some(mark)).to_string()),
            None if tenant.name.is_empty() => cell("?"),
            None => cell(""),
        };
        vec![
            first,
            cell(if tenant.name.is_empty() { "(nobody's)" } else { &tenant.name }),
            cell(words::gpus(tenant.held_units)),
            cell(dash(&tenant.guaranteed)),
            cell(dash(&tenant.limit)),
            cell(tenant.waiting.to_string()),
        ]
    };
    let header = ["", "TENANT", "HELD", "GUARANTEED", "LIMIT", "WAITING"];
    screen.table(&header, &[2, 3, 4, 5], picture.tenants.iter().map(row))
}

/// The cluster in one line.
fn summary(picture: &Picture) -> String {
    let gpus: Vec<&Gpu> = picture.nodes.iter().flat_map(|node| &node.gpus).collect();
    if gpus.is_empty() {
        return "no GPU is published: is vingt's agent running on the nodes that have some?".to_owned();
    }
    let free = gpus.iter().filter(|gpu| gpu.held.is_empty() && gpu.healthy).count();
    let cut: Vec<&&Gpu> = gpus.iter().filter(|gpu| !gpu.held.is_empty() && gpu.free() > 0).collect();
    let sick = gpus.iter().filter(|gpu| gpu.held.is_empty() && !gpu.healthy).count();
    let full = gpus.len() - free - cut.len() - sick;
    let mut parts = vec![format!("{full} full"), format!("{free} free")];
    if !cut.is_empty() {
        let slices = of(cut.iter().map(|gpu| gpu.free()).sum(), cut.iter().map(|gpu| gpu.slices).sum());
        parts.push(format!("{} in part ({slices} slices free)", cut.len()));
    }
    if sick > 0 {
        parts.push(format!("{sick} not given out"));
    }
    let waiting: u32 = picture.tenants.iter().map(|tenant| tenant.waiting).sum();
    let waits = if waiting == 0 { String::new() } else { format!("; {waiting} waiting") };
    let nodes = words::count(picture.nodes.len(), "node");
    format!("{nodes}, {}: {}{waits}", words::count(gpus.len(), "GPU"), parts.join(", "))
}

/// The slices of a GPU, one character each.
fn slices(gpu: &Gpu, marks: &Marks<'_>, screen: Screen) -> String {
    let mut text = String::new();
    let mut slice = 0;
    while slice < gpu.slices {
        let Some(held) = gpu.held.iter().find(|held| (held.first..held.first + held.slices).contains(&slice))
        else {
            let firsts = gpu.held.iter().map(|held| held.first);
            let end = firsts.filter(|first| *first > slice).min().unwrap_or(gpu.slices).min(gpu.slices);
            let free = if gpu.healthy { "·" } else { "x" };
            text.push_str(&screen.dim(&free.repeat((end - slice) as usize)));
            slice = end;
            continue;
        };
        let end = (held.first + held.slices).min(gpu.slices);
        text.push_str(&partition(held, (end - slice) as usize, marks, screen));
        slice = end;
    }
    text
}

fn partition(held: &Held, size: usize, marks: &Marks<'_>, screen: Screen) -> String {
    let mark = marks.get(held.tenant.as_str()).copied();
    match mark {
        Some(mark) if screen.colours => {
            screen.paint(mark, &format!("{}▉", "█".repeat(size.saturating_sub(1))))
        }
        mark => {
            let letter = letter(mark);
            let rest = letter.to_ascii_lowercase().to_string().repeat(size.saturating_sub(1));
            format!("{letter}{rest}")
        }
    }
}

/// What lies on a GPU, equal things counted.
fn what(gpu: &Gpu) -> Vec<String> {
    let mut things: Vec<(String, usize)> = Vec::new();
    for held in &gpu.held {
        let job = held.workload.split_once('/').map_or(held.workload.as_str(), |(_, job)| job);
        let thing = if held.profile == "gpu" { job.to_owned() } else { format!("{job} {}", held.profile) };
        match things.iter_mut().find(|(known, _)| *known == thing) {
            Some((_, number)) => *number += 1,
            None => things.push((thing, 1)),
        }
    }
    things.into_iter().map(|(thing, n)| if n == 1 { thing } else { format!("{thing} ×{n}") }).collect()
}

/// Puts things into lines of `room` columns, with commas; at least one line.
fn wrap(things: &[String], room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (index, thing) in things.iter().enumerate() {
        let comma = if index + 1 < things.len() { "," } else { "" };
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            *line = format!("{thing}{comma}");
        } else if line.chars().count() + thing.chars().count() + 2 <= room {
            let _ = write!(line, " {thing}{comma}");
        } else {
            lines.push(format!("{thing}{comma}"));
        }
    }
    lines
}

/// The GPUs of a node in lines of `room` columns, as equal as can be.
fn rows(node: &Node, room: usize) -> impl Iterator<Item = &[Gpu]> {
    let width = node.gpus.iter().map(|gpu| gpu.slices as usize + 1).max().unwrap_or(1);
    let fit = (room / width).max(1);
    let lines = node.gpus.len().div_ceil(fit).max(1);
    node.gpus.chunks(node.gpus.len().div_ceil(lines).max(1))
}

fn healthy(node: &Node) -> bool {
    node.gpus.iter().all(|gpu| gpu.healthy)
}

fn of(part: u32, all: u32) -> String {
    if all == 0 { "-".to_owned() } else { format!("{part} of {all}") }
}

fn short(name: &str, longest: usize) -> String {
    if name.chars().count() <= longest {
        return name.to_owned();
    }
    name.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

fn notes(picture: &Picture, text: &mut String) {
    for (index, note) in picture.notes.iter().enumerate() {
        let _ = writeln!(text, "{}note: {note}", if index == 0 { "\n" } else { "" });
    }
}

#[cfg(test)]
mod tests;
