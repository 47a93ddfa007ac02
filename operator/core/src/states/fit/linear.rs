//! A linear program of the one form that is needed: the cheapest fractional
//! cover of a demand by configurations, and the prices that prove it.

/// Comparisons of fractions.
const EPSILON: f64 = 1e-9;

/// A solution.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cover {
    /// How often each configuration is used.
    pub(super) times: Vec<f64>,
    /// A price of each demand at which no configuration is worth more than 1.
    pub(super) price: Vec<f64>,
}

/// Minimises the sum of `times` subject to Σ times · configuration ≥ `counts`, by the simplex method on the dual
/// (maximise the worth of `counts` at prices at which no configuration is worth more than 1), which starts
/// feasible. Every demand must be in some configuration, or its price grows without end: `None`.
pub(super) fn cover(configurations: &[Vec<u32>], counts: &[u64]) -> Option<Cover> {
    let (rows, columns) = (configurations.len(), counts.len());
    // Columns: the prices, a slack for each configuration, the right side.
    let width = columns + rows + 1;
    let mut table: Vec<Vec<f64>> = configurations
        .iter()
        .enumerate()
        .map(|(row, configuration)| {
            let mut line = vec![0.0; width];
            for (cell, &count) in line.iter_mut().zip(configuration) {
                *cell = f64::from(count);
            }
            line[columns + row] = 1.0;
            line[width - 1] = 1.0;
            line
        })
        .collect();
    let mut objective = vec![0.0; width];
    for (cell, &count) in objective.iter_mut().zip(counts) {
        *cell = -to_f64(count);
    }
    let mut basis: Vec<usize> = (columns..columns + rows).collect();
    // Bland's rule: the lowest column that improves, the lowest basic variable of those that leave. It ends.
    while let Some(enter) = (0..width - 1).find(|&column| objective[column] < -EPSILON) {
        let ratio = |line: &[f64]| line[width - 1] / line[enter];
        let leave = (0..rows)
            .filter(|&row| table[row][enter] > EPSILON)
            .min_by(|&a, &b| ratio(&table[a]).total_cmp(&ratio(&table[b])).then(basis[a].cmp(&basis[b])))?;
        let pivot = table[leave][enter];
        table[leave].iter_mut().for_each(|cell| *cell /= pivot);
        let line = table[leave].clone();
        let clear = |other: &mut Vec<f64>| {
            let factor = other[enter];
            if factor != 0.0 {
                other.iter_mut().zip(&line).for_each(|(cell, from)| *cell -= factor * from);
            }
        };
        table.iter_mut().enumerate().filter(|(row, _)| *row != leave).for_each(|(_, other)| clear(other));
        clear(&mut objective);
        basis[leave] = enter;
    }
    let mut price = vec![0.0; columns];
    for (line, &variable) in table.iter().zip(&basis) {
        if variable < columns {
            price[variable] = line[width - 1];
        }
    }
    Some(Cover { times: objective[columns..columns + rows].to_vec(), price })
}

/// Counts of jobs are far below 2⁵³.
#[allow(clippy::cast_precision_loss)]
pub(super) fn to_f64(count: u64) -> f64 {
    count as f64
}
