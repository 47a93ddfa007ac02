//! Which GPUs of a cluster are of one sort, told once per cycle: what is the same for all of a sort is looked at once.

use std::collections::HashMap;

use super::{MAX_DEVICES, looked_at};
use crate::model::{Device, Gpu};

/// Which GPUs are of one sort.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cards {
    /// For each GPU, the number of its card.
    pub of: Vec<usize>,
    /// For each card, the first GPU that is of it.
    pub first: Vec<usize>,
    /// For each GPU the devices that are looked at, as bits.
    pub all: Vec<u64>,
    /// Those of them that have no taint.
    pub untainted: Vec<u64>,
}

/// What GPUs that share their list of devices have in common.
#[derive(Clone, Copy, Debug)]
struct Shared {
    card: usize,
    all: u64,
    untainted: u64,
}

impl Cards {
    /// Of GPUs, told apart once.
    pub fn of(gpus: &[Gpu]) -> Self {
        let mut cards = Self::default();
        // Lists of devices are long, and most GPUs share theirs with others: the address tells.
        let mut known: HashMap<*const Vec<Device>, Shared> = HashMap::new();
        let mut last: Option<(*const Vec<Device>, Shared)> = None;
        for (index, gpu) in gpus.iter().enumerate() {
            let at = gpu.devices.address();
            let same = |shared: &Shared| gpus[cards.first[shared.card]].capacity == gpu.capacity;
            let shared = last.filter(|(before, _)| *before == at).map(|(_, shared)| shared);
            let shared = shared.or_else(|| known.get(&at).copied()).filter(same);
            let shared = shared.unwrap_or_else(|| {
                let shared = cards.look_at(gpus, index);
                known.insert(at, shared);
                shared
            });
            last = Some((at, shared));
            cards.of.push(shared.card);
            cards.all.push(shared.all);
            cards.untainted.push(shared.untainted);
        }
        cards
    }

    fn look_at(&mut self, gpus: &[Gpu], index: usize) -> Shared {
        let gpu = &gpus[index];
        let card = self.first.iter().position(|first| alike(&gpus[*first], gpu)).unwrap_or_else(|| {
            self.first.push(index);
            self.first.len() - 1
        });
        let bits = |of: fn(&Device) -> bool| {
            looked_at(gpu)
                .zip(0..MAX_DEVICES)
                .filter(|(d, _)| of(d))
                .fold(0, |mask, (_, bit)| mask | 1 << bit)
        };
        Shared { card, all: bits(|_| true), untainted: bits(|device| !device.tainted) }
    }
}

/// Whether two GPUs are of one sort, whatever their devices are called.
fn alike(a: &Gpu, b: &Gpu) -> bool {
    let same =
        |(a, b): (&Device, &Device)| a.units == b.units && a.consumes == b.consumes && a.kind == b.kind;
    a.capacity == b.capacity
        && a.devices.len() == b.devices.len()
        && a.devices.iter().zip(b.devices.iter()).all(same)
}
