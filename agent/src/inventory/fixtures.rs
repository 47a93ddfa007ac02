//! GPUs for tests, with the sizes of the real ones.

use crate::nvml::{Gpu, Instance, MigMode, Placement, Profile};

/// Name, id, compute slices, most, MiB, SM, copy engines, decoders, OFA, placements as start and size.
type Row = (&'static str, u32, u32, u32, u64, u32, u32, u32, u32, &'static [u32], u32);

const ALL: &[u32] = &[0, 1, 2, 3, 4, 5, 6];

const H100: [Row; 7] = [
    ("1g.10gb", 19, 1, 7, 9984, 16, 1, 1, 0, ALL, 1),
    ("1g.10gb+me", 20, 1, 1, 9984, 16, 1, 1, 1, ALL, 1),
    ("1g.20gb", 15, 1, 4, 20096, 26, 1, 1, 0, &[0, 2, 4, 6], 2),
    ("2g.20gb", 14, 2, 3, 20096, 32, 2, 2, 0, &[0, 2, 4], 2),
    ("3g.40gb", 9, 3, 2, 40448, 60, 3, 3, 0, &[0, 4], 4),
    ("4g.40gb", 5, 4, 1, 40448, 64, 4, 4, 0, &[0], 4),
    ("7g.80gb", 0, 7, 1, 81152, 132, 8, 7, 1, &[0], 8),
];

/// An idle H100 SXM5 with MIG on.
pub(crate) fn h100(minor: u32) -> Gpu {
    let profile = |row: Row| Profile {
        id: row.1,
        name: row.0.to_owned(),
        compute_slices: row.2,
        max_instances: row.3,
        memory_mib: row.4,
        multiprocessors: row.5,
        copy_engines: row.6,
        decoders: row.7,
        encoders: 0,
        jpeg_engines: row.7,
        ofa_engines: row.8,
        placements: row.9.iter().map(|start| Placement { start: *start, size: row.10 }).collect(),
    };
    Gpu {
        minor,
        uuid: format!("GPU-{minor}"),
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        architecture: "hopper".to_owned(),
        switches_mig_live: true,
        brand: "Nvidia".to_owned(),
        compute_capability: "9.0".to_owned(),
        driver_version: "570.169".to_owned(),
        memory_mib: 81559,
        mig: MigMode::Enabled,
        profiles: H100.map(profile).to_vec(),
        instances: Vec::new(),
        processes: 0,
    }
}

/// An instance on a GPU.
pub(crate) fn instance(id: u32, profile_id: u32, start: u32, size: u32) -> Instance {
    Instance { id, profile_id, placement: Placement { start, size }, compute: Vec::new() }
}
