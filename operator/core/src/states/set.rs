//! A set of GPUs as a bitmap with summaries: the lowest member is found in as
//! many steps as the number of GPUs has digits to the base of 64, so that the
//! choice among equal GPUs does not depend on how they came to be equal.

/// A set of numbers below a bound given at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuSet {
    /// `levels[0]` has a bit for each member; each level above a bit for each word below that is not zero.
    levels: Vec<Vec<u64>>,
}

impl GpuSet {
    /// The empty set of numbers below `bound`.
    pub fn new(bound: usize) -> Self {
        let mut levels = Vec::new();
        let mut bits = bound.max(1);
        loop {
            let words = bits.div_ceil(64);
            levels.push(vec![0; words]);
            if words == 1 {
                return Self { levels };
            }
            bits = words;
        }
    }

    /// Puts `member` in. It must be below the bound.
    pub fn insert(&mut self, member: usize) {
        let mut at = member;
        for level in &mut self.levels {
            let word = &mut level[at >> 6];
            let was_empty = *word == 0;
            *word |= 1 << (at & 63);
            if !was_empty {
                return;
            }
            at >>= 6;
        }
    }

    /// Takes `member` out.
    pub fn remove(&mut self, member: usize) {
        let mut at = member;
        for level in &mut self.levels {
            let word = &mut level[at >> 6];
            *word &= !(1 << (at & 63));
            if *word != 0 {
                return;
            }
            at >>= 6;
        }
    }

    /// Whether `member` is in it.
    pub fn contains(&self, member: usize) -> bool {
        self.levels[0][member >> 6] >> (member & 63) & 1 == 1
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.levels[self.levels.len() - 1][0] == 0
    }

    /// The lowest member.
    pub fn first(&self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        Some(self.levels.iter().rev().fold(0, |at, level| at << 6 | level[at].trailing_zeros() as usize))
    }

    /// The members, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.levels[0].iter().enumerate().flat_map(|(word, &bits)| Bits(bits).map(move |bit| word << 6 | bit))
    }

    /// The lowest member that is in `other` too. Both must have the same bound.
    pub fn first_common(&self, other: &Self) -> Option<usize> {
        self.levels[0]
            .iter()
            .zip(&other.levels[0])
            .position(|(a, b)| a & b != 0)
            .map(|word| word << 6 | (self.levels[0][word] & other.levels[0][word]).trailing_zeros() as usize)
    }

    /// The lowest member from `from` on that is in `other` too. Both must have the same bound.
    #[inline]
    pub fn next_common(&self, other: &Self, from: usize) -> Option<usize> {
        let common = |level: usize, word: usize| {
            let of = |set: &Self| set.levels.get(level).and_then(|words| words.get(word)).copied();
            of(self).zip(of(other)).map_or(0, |(a, b)| a & b)
        };
        let (word, bit) = (from >> 6, from & 63);
        let here = common(0, word) & (u64::MAX << bit);
        if here != 0 {
            return Some(word << 6 | here.trailing_zeros() as usize);
        }
        // A word that neither summary leaves out may still have no common member.
        let next = word + 1;
        let summaries = self.levels.get(1).map_or(0, Vec::len);
        (next >> 6..summaries).find_map(|summary| {
            let after = if summary == next >> 6 { u64::MAX << (next & 63) } else { u64::MAX };
            Bits(common(1, summary) & after).find_map(|bit| {
                let word = summary << 6 | bit;
                let there = common(0, word);
                (there != 0).then(|| word << 6 | there.trailing_zeros() as usize)
            })
        })
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.levels[0].iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// The positions of the bits that are set, lowest first.
#[derive(Clone, Debug)]
pub struct Bits(pub u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}
