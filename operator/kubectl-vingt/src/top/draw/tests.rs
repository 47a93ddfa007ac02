use super::super::picture::Picture;
use super::super::picture::tests::{claimed, published, tenant};
use super::*;

fn screen(width: u16, colours: bool) -> Screen {
    Screen { width, colours, terminal: false }
}

fn picture() -> Picture {
    let mut slices = published("node-10", 8);
    slices.extend(published("node-2", 1));
    slices.extend(published("node-3", 8));
    let on = |name: &str, tenant: &str, job: &str, device: &str| {
        let node = if device == "gpu-0" || device.starts_with("gpu-0-") { "node-2" } else { "node-10" };
        claimed(name, tenant, job, node, device)
    };
    let claims = [
        on("a", "research", "TrainingJob/research/sweep", "gpu-0-mig-2g20gb-14-0"),
        on("b", "research", "TrainingJob/research/sweep", "gpu-0-mig-2g20gb-14-2"),
        on("c", "serving", "Pod/serving/chat-7f9c-x2x", "gpu-0-mig-1g10gb-19-5"),
        on("d", "serving", "Pod/serving/proof-0", "gpu-1-mig-3g40gb-9-4"),
        on("e", "research", "TrainingJob/research/pretrain", "gpu-7"),
    ];
    let tenants =
        [tenant("idle", "0", "4", 0), tenant("research", "8", "16", 1), tenant("serving", "2", "9", 0)];
    Picture::of(&slices, &claims, &tenants)
}

#[test]
fn the_map_shows_every_partition_where_it_lies_within_80_columns() {
    let text = map(&picture(), screen(80, false));
    let expected = "\
3 nodes, 17 GPUs: 1 full, 14 free, 2 in part (7 of 16 slices free); 1 waiting

node-2  AaAa·B··
node-10 ········ ····Bbbb ········ ········ ········ ········ ········ Aaaaaaaa
1 more node with 8 GPUs, all free

   TENANT    HELD  GUARANTEED  LIMIT  WAITING
   idle         0           0      4        0
A  research   1.6           8     16        1
B  serving    0.6           2      9        0
";
    assert_eq!(text, expected, "\n{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn gpus_that_do_not_fit_go_on_in_lines_as_equal_as_can_be() {
    let text = map(&picture(), screen(70, false));
    let wanted = "node-10 ········ ····Bbbb ········ ········\n        ········ ········ ········ Aaaaaaaa\n";
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn eight_gpus_of_a_short_name_fit_80_columns() {
    let claims = [claimed("a", "t", "Pod/p/x", "node-0", "gpu-3")];
    let text = map(&Picture::of(&published("node-0", 8), &claims, &[]), screen(80, false));
    let line = "node-0 ········ ········ ········ Aaaaaaaa ········ ········ ········ ········\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn colours_make_blocks_with_a_gap_after_each() {
    let text = map(&picture(), screen(80, true));
    let research =
        "\u{1b}[38;5;39m█▉\u{1b}[0m\u{1b}[38;5;39m█▉\u{1b}[0m\u{1b}[2m·\u{1b}[0m\u{1b}[38;5;208m▉\u{1b}[0m";
    assert!(text.contains(&format!("node-2  {research}")), "{text}");
    assert!(text.contains("\u{1b}[38;5;208m█"), "the legend: {text:?}");
}

#[test]
fn gpus_say_what_lies_on_them() {
    let text = gpus(&picture(), screen(60, false));
    let wanted = "\
GPU            SLICES    HELD  WHAT
node-2/gpu-0   AaAa·B··   0.7  research/sweep 2g.20gb ×2,
                               serving/chat-7f9c-x2x 1g.10gb
node-3/gpu-0   ········     0
";
    assert!(text.starts_with(wanted), "{text}");
    assert!(text.contains("node-10/gpu-7  Aaaaaaaa     1  research/pretrain\n"), "{text}");
}

#[test]
fn nodes_are_counted() {
    let text = nodes(&picture(), screen(100, false));
    let wanted = "\
NODE     GPUS  HELD  FREE  SLICES  PRODUCT                STATE
node-2      1   0.7     0  3 of 8  NVIDIA H100 80GB HBM3
node-3      8     0     8       -  NVIDIA H100 80GB HBM3
node-10     8   1.5     6  4 of 8  NVIDIA H100 80GB HBM3
";
    assert_eq!(text, wanted, "\n{text}");
}

#[test]
fn nothing_published_is_said() {
    let text = map(&Picture::default(), screen(80, false));
    assert_eq!(text, "no GPU is published: is vingt's agent running on the nodes that have some?\n\n");
}
