//! Whole pursuits on a GPU, one workgroup a signal (`kernels/cube`): lassos by coordinate descent and orthogonal matching pursuits, over dictionaries
//! whose inner products are all at hand.
//!
//! What the kernels say of a signal is not taken on trust. A lasso's duality gap is computed again from its true residual; where that has
//! not got to what was asked for, since moves leave rounding in the correlations, these are computed afresh and the kernel goes on from where it was.
//! What is open after [`ROUNDS`] is left to whoever called. Of an orthogonal matching pursuit the residual has to be orthogonal to a
//! support of full size, else the signal is pursued on the host, in `f64`.

use super::proximal_gradient::look;
use super::{
    BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Problem, Pursued, Selection, SignalReport, StopReason,
    columns, largest, to_host, weighted,
};
use crate::device::left_to_host;
use crate::error::Result;
use crate::kernels::linear_algebra::diagonal;
use crate::kernels::product::product;
use crate::kernels::{correlation, cube};
use burn::tensor::{Tensor, TensorData};

/// What no kernel knows of.
const MASKS: &str = "pursuits of signals of which not all samples are known";

/// Times that a kernel goes on with correlations that were computed afresh.
const ROUNDS: usize = 3;

/// Part of the gap that a kernel is asked for: what it sees and what is true differ by rounding.
const STRICTER: f32 = 0.9;

/// Moves of a lasso in one round at most, for each atom.
const MOVES: usize = 8;

/// Values of one `[n, k]` tensor at most: enough signals for any device.
const HELD: usize = 1 << 25;

/// Tensors of that size alive at once; devices that report their memory may allow fewer signals.
const TENSORS: usize = 12;

/// Part of the signal's length that correlations of the support with the residual may have.
const ORTHOGONAL: f32 = 1e-4;

/// The signals that kernels take at a time, where they take the problem: on a GPU that can hold all inner products, with all samples known.
fn parts(problem: &Problem) -> Option<Vec<Vec<usize>>> {
    let (operator, count) = (problem.operator(), problem.count());
    let [of_buffer, of_all] = cube::capacity(&operator.device()).filter(|_| count > 0)?;
    if problem.has_mask() {
        left_to_host(MASKS);
        return None;
    }
    let atoms = operator.code().len();
    if !columns::holds_all(operator) {
        left_to_host(&format!(
            "pursuits over {atoms} atoms, whose inner products are too many to be held, but for correlations"
        ));
        return None;
    }
    // The inner products once as they are and once by the weights.
    let left = of_all.saturating_sub(2 * atoms * atoms) / TENSORS;
    let at_once = HELD.min(of_buffer).min(left) / atoms;
    if atoms * atoms > of_buffer || at_once == 0 {
        left_to_host(&format!("pursuits over {atoms} atoms, whose inner products don't fit into its memory"));
        return None;
    }
    Some((0..count).step_by(at_once).map(|first| (first..count.min(first + at_once)).collect()).collect())
}

/// Moves of a lasso in all its rounds at most: as many as the permitted sweeps over all atoms would make.
pub(super) fn budget(problem: &Problem, config: &BasisPursuitConfig) -> usize {
    problem.operator().code().len().saturating_mul(config.max_iterations)
}

/// Basis pursuits; those that did not come to the gap say so. Iterations are the coefficients moved. `None` where no kernel takes
/// the problem.
///
/// # Errors
/// As [`super::Pursuit::solve`].
pub(super) fn lasso(problem: &Problem, config: &BasisPursuitConfig) -> Result<Option<Pursued>> {
    let Some(parts) = parts(problem) else { return Ok(None) };
    let (operator, lambda) = (problem.operator(), problem.lambda()?);
    let atoms = operator.code().len();
    let &BasisPursuitConfig { gap, nonnegative, .. } = config;
    let weights = problem.weights(problem.depth());
    // Weights are atoms of other lengths: Σ w_j|γ_j| is ‖γ'‖₁ with γ'_j = w_j γ_j over the atoms d_j/w_j.
    let unweighted = |values: Tensor<2>| match &weights {
        Some(weights) => values / weights.clone(),
        None => values,
    };
    let gram = match &weights {
        Some(weights) => operator.gram() / weights.clone() / weights.clone().transpose(),
        None => operator.gram(),
    };
    let work = problem.work();
    let (mut codes, mut reports) = (Vec::new(), Vec::with_capacity(problem.count()));
    for rows in parts {
        work.check()?;
        let part = problem.part(&rows, lambda.batch(rows[0], rows.len()))?;
        let signals = part.signals();
        let correlations = operator.analyze_rows(signals.clone());
        let lambdas = part.lambda()?.rows(largest(correlations.clone(), &weights, nonnegative))?.squeeze_dim::<1>(1);
        let lambda = to_host(lambdas.clone());
        let correlations = unweighted(correlations);
        let energies = signals.clone().square().sum_dim(1).squeeze_dim::<1>(1);
        let mut start = part.has_start().then(|| weighted(part.start(), &weights));
        if nonnegative {
            start = start.map(|codes| codes.clamp_min(0.0));
        }
        let mut moves = vec![0; rows.len()];
        let (mut round, mut left) = (0, budget(problem, config));
        let (found, mut of_part) = loop {
            let started =
                start.take().map(|codes| [codes.clone(), correlations.clone() - product(codes, gram.clone())]);
            let found = cube::lasso(cube::Lasso {
                gram: gram.clone(),
                correlations: correlations.clone(),
                energies: energies.clone(),
                lambdas: lambdas.clone(),
                start: started,
                nonnegative,
                gap: STRICTER * gap,
                moves: left.min(MOVES * atoms),
            });
            let Some((found, outcomes)) = found else { return Ok(None) };
            to_host(outcomes).chunks_exact(2).zip(&mut moves).for_each(|(outcome, all)| *all += outcome[1] as usize);
            let codes = unweighted(found.clone());
            let of_part = look(operator, [&signals, &codes], &None, &weights, &lambda, nonnegative, &work)?;
            let of_part = of_part.reports(&lambda, 0);
            round += 1;
            left -= left.min(MOVES * atoms);
            if round == ROUNDS || left == 0 || of_part.iter().all(|report| report.relative_gap <= gap) {
                break (found, of_part);
            }
            work.check()?;
            start = Some(found);
        };
        for (report, moves) in of_part.iter_mut().zip(moves) {
            report.iterations = moves;
            if report.relative_gap <= gap {
                report.stop = StopReason::DualityGap;
            }
            // Whoever goes on with the others takes them for done.
            work.advance(1.0);
        }
        codes.push(unweighted(found));
        reports.extend(of_part);
    }
    Ok(Some(Pursued::consistent(operator.code_shaped(Tensor::cat(codes, 0)), reports)))
}

/// Inner products of a picture's atoms at all shifts that a kernel has at hand.
const TABLE: usize = 1 << 26;

/// Times that all tiles are worked on between two looks at what is left.
const VISITS: usize = 4;

/// Part of λ, for each part of the gap, by which the correlation of a coefficient that is left alone may be off.
const STILL: f32 = 0.1;

/// Looks after which the kernel's work is over unless the gap has fallen to this part of what it was.
const LOOKS: usize = 8;
const FALLEN: f32 = 0.7;

/// Basis pursuits of pictures tile by tile, and the rows that did not come to the gap. Iterations are sweeps. `None` where no
/// kernel takes the problem: it has to be on a GPU, over one convolution without padding, with all samples known.
///
/// # Errors
/// As [`super::Pursuit::solve`].
pub(super) fn pictures(problem: &Problem, config: &BasisPursuitConfig) -> Result<Option<(Pursued, Vec<usize>)>> {
    let (operator, count) = (problem.operator(), problem.count());
    let capacity = cube::capacity(&operator.device()).filter(|_| count > 0);
    let Some([of_buffer, of_all]) = capacity else { return Ok(None) };
    let Some(layer) = operator.geometry().effective_layer() else { return Ok(None) };
    let inner_products = correlation::inner_products(&layer);
    let code_len = operator.code().len();
    let at_once = HELD.min(of_buffer).min(of_all.saturating_sub(inner_products) / TENSORS) / code_len.max(1);
    let obstacle = if problem.has_mask() {
        Some(MASKS)
    } else if layer.padding != [0, 0] {
        Some("pictures over dictionaries with padding")
    } else if inner_products.max(layer.code.channels.saturating_mul(layer.around_one().signal.len()))
        > TABLE.min(of_buffer)
    {
        Some("pictures over atoms whose inner products at all shifts are too many to be held")
    } else if code_len > of_buffer {
        Some("pictures whose codes don't fit into one of its buffers")
    } else {
        None
    };
    if let Some(obstacle) = obstacle {
        left_to_host(obstacle);
        return Ok(None);
    }
    let (lambda, weights) = (problem.lambda()?, problem.weights(problem.depth()));
    let &BasisPursuitConfig { gap, nonnegative, .. } = config;
    // As in `lasso`: weights are atoms of other lengths.
    let unweighted = |values: Tensor<2>| match &weights {
        Some(weights) => values / weights.clone(),
        None => values,
    };
    let filters = operator.effective_filters();
    let filters = match problem.atom_weights(problem.depth()) {
        Some(weights) => {
            let dims = [weights.len(), 1, 1, 1];
            filters / Tensor::from_data(TensorData::new(weights.to_vec(), dims), &operator.device())
        }
        None => filters,
    };
    let table = correlation::table(filters, &layer);
    let work = problem.work();
    let all: Vec<usize> = (0..count).collect();
    let (mut codes, mut reports, mut open) = (Vec::new(), Vec::with_capacity(count), Vec::new());
    for rows in all.chunks(at_once.max(1)) {
        work.check()?;
        let part = problem.part(rows, lambda.batch(rows[0], rows.len()))?;
        let signals = part.signals();
        let largest = match &lambda {
            Lambda::Relative(_) => largest(operator.analyze_rows(signals.clone()), &weights, nonnegative),
            _ => Tensor::zeros([rows.len(), 1], &operator.device()),
        };
        let lambdas = part.lambda()?.rows(largest)?.squeeze_dim::<1>(1);
        let lambda = to_host(lambdas.clone());
        let start = weighted(part.start(), &weights);
        let start = if nonnegative { start.clamp_min(0.0) } else { start };
        let start = operator.code_shaped(start);
        let Some(tiles) = cube::Tiles::new(table.clone(), lambdas, start, nonnegative) else {
            left_to_host("pictures whose tiles a workgroup's memory does not hold");
            return Ok(None);
        };
        let mut moves = vec![0usize; rows.len()];
        let most = budget(problem, config);
        // Every picture goes on for itself: what it comes to does not depend on the others.
        let (mut stills, mut before) = (vec![STILL * gap; rows.len()], vec![f32::INFINITY; rows.len()]);
        let mut looks = 0;
        let (found, mut of_part) = loop {
            let found = unweighted(operator.flat(tiles.codes()));
            let looked = look(operator, [&signals, &found], &None, &weights, &lambda, nonnegative, &work)?;
            let of_part = looked.reports(&lambda, 0);
            for (row, report) in of_part.iter().enumerate() {
                let relative = if report.relative_gap.is_nan() { f32::INFINITY } else { report.relative_gap };
                // Without a penalty nothing is ever near enough: that is for the host.
                let mut over = relative <= gap || moves[row] >= most || report.lambda == 0.0;
                if looks > 0 && looks % LOOKS == 0 {
                    over |= relative > FALLEN * before[row] || relative.is_infinite();
                    before[row] = relative;
                }
                if over {
                    stills[row] = f32::INFINITY;
                }
            }
            if stills.iter().all(|still| still.is_infinite()) {
                break (found, of_part);
            }
            looks += 1;
            let correlations = operator.code_shaped(unweighted(looked.correlations));
            let allowed = Tensor::from_data(TensorData::new(stills.clone(), [stills.len()]), &operator.device());
            let Some(moved) = tiles.descend(correlations, VISITS, allowed) else { return Ok(None) };
            for ((still, all), moved) in stills.iter_mut().zip(&mut moves).zip(to_host(moved)) {
                *all += moved as usize;
                if moved == 0.0 {
                    // Nothing is off by so much, and yet the gap is open.
                    *still *= 0.5;
                }
            }
            work.check()?;
        };
        for ((row, report), moves) in rows.iter().zip(&mut of_part).zip(moves) {
            // As many moves as there are coefficients are a sweep.
            report.iterations = moves.div_ceil(code_len).min(config.max_iterations);
            if report.relative_gap <= gap {
                report.stop = StopReason::DualityGap;
            } else if moves < most {
                if report.lambda == 0.0 {
                    left_to_host("pictures without a penalty");
                }
                open.push(*row);
            }
            work.advance(1.0);
        }
        codes.push(found);
        reports.extend(of_part);
    }
    Ok(Some((Pursued::consistent(operator.code_shaped(Tensor::cat(codes, 0)), reports), open)))
}

/// Orthogonal matching pursuits to so many non-zeros, and the rows that have to be pursued on the host. `None` where no kernel takes the problem.
///
/// # Errors
/// As [`super::Pursuit::solve`].
pub(super) fn greedy(
    problem: &Problem,
    config: &OrthogonalMatchingPursuitConfig,
) -> Result<Option<(Pursued, Vec<usize>)>> {
    let &OrthogonalMatchingPursuitConfig { nonzeros, residual, nonnegative, selection } = config;
    let Some(parts) = parts(problem) else { return Ok(None) };
    if residual > 0.0 || selection != Selection::Correlation {
        left_to_host("greedy pursuits that end by their residual, or choose by what is left");
        return Ok(None);
    }
    let operator = problem.operator();
    // An atom of zeros is in no support.
    let norms = diagonal(&operator.gram()).sqrt().clamp_min(f32::MIN_POSITIVE).unsqueeze::<2>();
    let work = problem.work();
    let (mut codes, mut reports, mut open) = (Vec::new(), Vec::with_capacity(problem.count()), Vec::new());
    for rows in parts {
        work.check()?;
        let part = problem.part(&rows, Lambda::Absolute(0.0))?;
        let signals = part.signals();
        let correlations = operator.analyze_rows(signals.clone());
        let Some((found, counts)) = cube::greedy(operator.gram(), correlations, nonzeros, nonnegative) else {
            left_to_host(&format!("greedy pursuits to {nonzeros} non-zeros, for which a workgroup has no room"));
            return Ok(None);
        };
        let left = signals.clone() - operator.synthesize_rows(found.clone());
        let correlations = operator.analyze_rows(left.clone()) / norms.clone();
        let of_support = (correlations * found.clone().not_equal_scalar(0.0).float()).abs().max_dim(1);
        let numbers = vec![counts.unsqueeze_dim(1), left.square().sum_dim(1), of_support, signals.square().sum_dim(1)];
        for (row, numbers) in rows.iter().zip(to_host(Tensor::cat(numbers, 1)).chunks_exact(4)) {
            let &[count, residual, of_support, energy] = numbers else { unreachable!("four numbers a signal") };
            // A driver may end loops early; whether a signal is used up is for the host to say.
            let orthogonal = energy.is_finite() && of_support <= ORTHOGONAL * energy.sqrt();
            if !orthogonal || (count as usize) < nonzeros {
                open.push(*row);
            } else {
                work.advance(1.0);
            }
            let data_term = 0.5 * residual;
            reports.push(SignalReport {
                lambda: 0.0,
                iterations: count as usize,
                objective: data_term,
                relative_gap: if data_term == 0.0 { 0.0 } else { 1.0 },
                data_term,
                nonzeros: count as usize,
                stop: StopReason::Nonzeros,
                finished_by: None,
            });
        }
        codes.push(found);
    }
    Ok(Some((Pursued::consistent(operator.code_shaped(Tensor::cat(codes, 0)), reports), open)))
}

#[cfg(test)]
mod tests {
    use super::pictures;
    use crate::geometry::{LayerShape, Pair, SignalShape};
    use crate::kernels::cube::testing::{device, there};
    use crate::kernels::cube::{Lasso, MOST_NONZEROS, greedy, greedy_far, lasso, lasso_far};
    use crate::kernels::proximal::{accelerated_step, extrapolation, proximal_step};
    use crate::kernels::sparse::to_host;
    use crate::model::sample::generator;
    use crate::model::{Mlcsc, ModelConfig, Operator, OperatorForm};
    use crate::pursuit::duality::{Certificate, Sums};
    use crate::pursuit::proximal_gradient::extrapolate;
    use crate::pursuit::{
        BasisPursuitConfig, Lambda, OrthogonalMatchingPursuitConfig, Problem, Pursuit, ResidualDescent, StopReason,
    };
    use crate::random::normal;
    use burn::tensor::{Device, Distribution, Tensor, TensorData};

    /// Kernels give what the passes of the host give, of rows in fours and not, with a threshold for each row and for each value.
    #[test]
    fn kernels_equal_passes_on_the_host() {
        let Some(device) = device() else { return };
        let host = crate::device::named(Some("flex")).unwrap();
        let equal = |found: Tensor<2>, expected: Tensor<2>| {
            let difference: f32 = (there(found) - expected).abs().max().into_scalar();
            assert!(difference < 1e-5, "{difference}");
        };
        for (rows, columns) in [(3, 7), (40, 1024), (1, 1)] {
            let matrix = |columns| Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 1.0), &host);
            let [point, explained, correlations, before] = [0; 4].map(|_| matrix(columns));
            let momentum = matrix(1).abs() + 1.0;
            let on = |tensor: &Tensor<2>| tensor.clone().to_device(&device);
            for thresholds in [matrix(1).abs(), matrix(columns).abs()] {
                for nonnegative in [false, true] {
                    let step = |on: &dyn Fn(&Tensor<2>) -> Tensor<2>| {
                        proximal_step(on(&point), on(&explained), on(&correlations), on(&thresholds), 0.3, nonnegative)
                    };
                    let codes = step(&|tensor| tensor.clone());
                    equal(step(&on), codes.clone());
                    for restart in [false, true] {
                        let operands = [&point, &explained, &correlations, &before].map(on);
                        let [found, next, after] =
                            accelerated_step(operands, [&thresholds, &momentum].map(on), 0.3, nonnegative, restart)
                                .expect("a device for kernels");
                        let (expected_next, expected_after) =
                            extrapolate(&codes, before.clone(), &point, momentum.clone(), restart);
                        equal(found, codes.clone());
                        equal(next, expected_next);
                        equal(after, expected_after);
                    }
                }
            }
            let expected = extrapolation(point.clone(), before.clone(), momentum.clone());
            equal(extrapolation(on(&point), on(&before), on(&momentum)), expected);
        }
    }

    /// The duality gap by its definition, in `f64`.
    fn gap(atoms: &[f32], signal: &[f32], code: &[f32], lambda: f32, nonnegative: bool) -> f64 {
        let len = signal.len();
        let mut residual: Vec<f64> = signal.iter().map(|value| f64::from(*value)).collect();
        for (atom, value) in atoms.chunks_exact(len).zip(code) {
            residual.iter_mut().zip(atoms_wide(atom)).for_each(|(left, atom)| *left -= f64::from(*value) * atom);
        }
        let correlation = |atom| residual.iter().zip(atoms_wide(atom)).map(|(left, atom)| left * atom).sum::<f64>();
        let correlations: Vec<f64> = atoms.chunks_exact(len).map(correlation).collect();
        let size = |value: &f64| if nonnegative { *value } else { value.abs() };
        let sums = Sums {
            lambda: lambda.into(),
            residual_energy: residual.iter().map(|value| value * value).sum(),
            one_norm: code.iter().map(|value| f64::from(value.abs())).sum(),
            code_correlation: code.iter().zip(&correlations).map(|(a, b)| f64::from(*a) * b).sum(),
            largest_correlation: correlations.iter().map(size).fold(0.0, f64::max),
            ..Sums::default()
        };
        Certificate::from(sums).relative_gap()
    }

    fn atoms_wide(atom: &[f32]) -> impl Iterator<Item = f64> {
        atom.iter().map(|value| f64::from(*value))
    }

    /// Codes reach the gap that was asked for, by its definition: signed and not, of atoms in fours and not, of signals of zeros, with atoms of zeros,
    /// and from where another λ has left them.
    #[test]
    fn lassos_reach_their_gaps() {
        let Some(device) = device() else { return };
        let mut random = generator(2);
        // In a workgroup's memory, and in the device's.
        let kernels: [fn(Lasso) -> _; 2] = [lasso, lasso_far];
        for (index, (len, atoms)) in [(200, 48), (150, 50), (5, 3)].into_iter().enumerate() {
            let mut matrix: Vec<f32> = normal(&mut random, atoms * len).iter().map(|value| 0.3 * value).collect();
            matrix[..len].fill(0.0);
            let mut signals = normal(&mut random, 6 * len);
            signals[..len].fill(0.0);
            let tensor = |values: &[f32], dims: [usize; 2]| {
                Tensor::<2>::from_data(TensorData::new(values.to_vec(), dims), &device)
            };
            let (dictionary, given) = (tensor(&matrix, [atoms, len]), tensor(&signals, [6, len]));
            let gram = dictionary.clone().matmul(dictionary.clone().transpose());
            let correlations = given.clone().matmul(dictionary.transpose());
            let energies = given.square().sum_dim(1).squeeze_dim::<1>(1);
            for nonnegative in [false, true] {
                let mut start = None;
                for lambda in [0.3f32, 0.05] {
                    let problem = Lasso {
                        gram: gram.clone(),
                        correlations: correlations.clone(),
                        energies: energies.clone(),
                        lambdas: Tensor::<1>::full([6], lambda, &device),
                        start: start.take(),
                        nonnegative,
                        gap: 1e-4,
                        moves: 20_000,
                    };
                    let (codes, outcomes) = kernels[index % 2](problem).expect("a device for kernels");
                    let left = correlations.clone() - codes.clone().matmul(gram.clone());
                    start = Some([codes.clone(), left]);
                    let (codes, outcomes) = (to_host(there(codes)), to_host(there(outcomes)));
                    assert!(codes[..atoms].iter().all(|value| *value == 0.0) && outcomes[..2] == [0.0, 0.0]);
                    for row in 0..6 {
                        let code = &codes[row * atoms..][..atoms];
                        assert!(code[0] == 0.0 && (!nonnegative || code.iter().all(|value| *value >= 0.0)));
                        let found = gap(&matrix, &signals[row * len..][..len], code, lambda, nonnegative);
                        assert!(found < 1.2e-4, "{atoms} atoms, λ {lambda}: {found}");
                        assert!((f64::from(outcomes[2 * row]) - found).abs() < 2e-5, "{} said", outcomes[2 * row]);
                    }
                }
            }
        }
    }

    fn posed<'a>(operator: &'a Operator, signals: Tensor<4>, lambda: f32, weights: Option<&[f32]>) -> Problem<'a> {
        let problem = Problem::new(operator, signals).unwrap().with_lambda(Lambda::Relative(lambda)).unwrap();
        match weights {
            Some(weights) => problem.with_weights(1, weights.to_vec()).unwrap(),
            None => problem,
        }
    }

    /// Pictures come to their gaps tile by tile, and to the objective of the host: signed and not, with weights, strides, colours, several at once,
    /// from other codes, larger and smaller than a tile.
    #[test]
    fn pictures_reach_their_gaps() {
        let Some(device) = device() else { return };
        let host = crate::device::named(Some("flex")).unwrap();
        let mut random = generator(3);
        for (shape, kernel, stride, nonnegative, weighted) in [
            (SignalShape::new(1, 40, 33), 5, 1, false, false),
            (SignalShape::new(3, 30, 30), 6, 2, false, true),
            (SignalShape::new(1, 9, 8), 4, 1, true, true),
            (SignalShape::new(1, 1, 120), 9, 1, false, false),
        ] {
            let rows = if shape.height == 1 { 1 } else { kernel };
            let config = ModelConfig::new(
                shape,
                vec![LayerShape::new(7, Pair([rows, kernel]), Pair([stride.min(rows), stride]))],
            );
            let mut values = normal(&mut random, 7 * shape.channels * rows * kernel);
            // An atom of zeros.
            values[..shape.channels * rows * kernel].fill(0.0);
            for atom in values.chunks_exact_mut(shape.channels * rows * kernel) {
                let norm = atom.iter().map(|value| value * value).sum::<f32>().sqrt().max(1.0);
                atom.iter_mut().for_each(|value| *value /= norm);
            }
            let dims = [7, shape.channels, rows, kernel];
            let signals = normal(&mut random, 2 * shape.len());
            let weights: Vec<f32> = (0..7).map(|atom| 0.5 + 0.2 * atom as f32).collect();
            let basis = BasisPursuitConfig { gap: 1e-3, max_iterations: 1000, nonnegative };
            let on = |device: &Device| {
                let filters = Tensor::from_data(TensorData::new(values.clone(), dims), device);
                let model = Mlcsc::from_filters(config.clone(), vec![filters]).unwrap();
                let operator = model.operator(shape, OperatorForm::Auto).unwrap();
                let batch = Tensor::from_data(TensorData::new(signals.clone(), shape.batched(2)), device);
                (operator, batch)
            };
            let (of_host, batch) = on(&host);
            let weights = weighted.then_some(weights);
            let mut start = None;
            let (there, pictures_there) = on(&device);
            for lambda in [0.3, 0.1] {
                let expected = ResidualDescent::new(basis.clone()).unwrap();
                let expected = expected.solve(&posed(&of_host, batch.clone(), lambda, weights.as_deref())).unwrap();
                let mut problem = posed(&there, pictures_there.clone(), lambda, weights.as_deref());
                if let Some(start) = start.take() {
                    problem = problem.with_start(start).unwrap();
                }
                let (found, open) = pictures(&problem, &basis).unwrap().expect("a kernel for pictures");
                assert!(open.is_empty(), "{shape}, λ {lambda}: {:?}", found.reports);
                for (found, expected) in found.reports.iter().zip(&expected.reports) {
                    assert!(found.stop == StopReason::DualityGap && found.relative_gap <= 1e-3 && found.iterations > 0);
                    let difference = (found.objective - expected.objective).abs();
                    assert!(difference < 2e-3 * expected.objective, "{} {}", found.objective, expected.objective);
                    assert!((found.lambda - expected.lambda).abs() < 1e-5 * expected.lambda);
                }
                let codes = to_host(found.codes.clone());
                assert!(codes[..codes.len() / 14].iter().all(|value| *value == 0.0));
                assert!(!nonnegative || codes.iter().all(|value| *value >= 0.0));
                start = Some(found.codes);
            }
        }
    }

    /// Of dictionaries whose inner products are not held the device finds the best atoms, and pursuits are those of the host.
    #[test]
    fn atoms_are_found_where_they_are_correlated() {
        let Some(device) = device() else { return };
        let host = crate::device::named(Some("flex")).unwrap();
        let mut random = generator(5);
        let (len, atoms, count) = (24, 8200, 70);
        let mut matrix = normal(&mut random, atoms * len);
        // An atom of zeros, and one that is there twice.
        matrix[..len].fill(0.0);
        let repeated = matrix[len..2 * len].to_vec();
        matrix[2 * len..3 * len].copy_from_slice(&repeated);
        let mut signals = normal(&mut random, count * len);
        signals[..len].fill(0.0);
        signals[len..2 * len].copy_from_slice(&repeated);
        let shape = SignalShape::new(len, 1, 1);
        let config = ModelConfig::new(shape, vec![LayerShape::new(atoms, 1, 1)]);
        for nonnegative in [false, true] {
            let pursuit = OrthogonalMatchingPursuitConfig::new(5).with_nonnegative(nonnegative).init().unwrap();
            let [expected, found] = [&host, &device].map(|device| {
                let filters = Tensor::from_data(TensorData::new(matrix.clone(), [atoms, len, 1, 1]), device);
                let model = Mlcsc::from_filters(config.clone(), vec![filters]).unwrap();
                let operator = model.operator(shape, OperatorForm::Matrix).unwrap();
                let batch = Tensor::from_data(TensorData::new(signals.clone(), shape.batched(count)), device);
                pursuit.solve(&Problem::new(&operator, batch).unwrap()).unwrap()
            });
            for (found, expected) in found.reports.iter().zip(&expected.reports) {
                assert_eq!((found.nonzeros, found.stop), (expected.nonzeros, expected.stop));
                assert!((found.data_term - expected.data_term).abs() < 1e-4 * (1.0 + expected.data_term));
            }
            let difference: f32 = (there(found.codes) - expected.codes).abs().max().into_scalar();
            assert!(difference < 1e-3, "{difference}");
        }
    }

    /// Supports and coefficients are those of the host, which solves its triangular systems in `f64`; atoms that repeat others, or are zero, are left
    /// out, and so is what signals without so many dimensions have no room for. Non-negative ones are, or are given up.
    #[test]
    fn pursuits_are_those_of_the_host() {
        let Some(device) = device() else { return };
        let host = crate::device::named(Some("flex")).unwrap();
        // In a workgroup's memory, and in the device's.
        let kernels: [fn(Tensor<2>, Tensor<2>, usize, bool) -> _; 2] = [greedy, greedy_far];
        let mut random = generator(1);
        for (index, (len, atoms, nonzeros)) in [(24, 60, 8), (9, 33, 9), (6, 7, 1)].into_iter().enumerate() {
            let mut matrix = normal(&mut random, atoms * len);
            matrix[..len].fill(0.0);
            let repeated = matrix[len..2 * len].to_vec();
            matrix[2 * len..3 * len].copy_from_slice(&repeated);
            let mut signals = normal(&mut random, 7 * len);
            signals[..len].fill(0.0);
            let filters = TensorData::new(matrix.clone(), [atoms, len, 1, 1]);
            let shape = SignalShape::new(len, 1, 1);
            let config = ModelConfig::new(shape, vec![LayerShape::new(atoms, 1, 1)]);
            let model = Mlcsc::from_filters(config, vec![Tensor::from_data(filters, &host)]).unwrap();
            let operator = model.operator(shape, OperatorForm::Gram).unwrap();
            let batch = || Tensor::from_data(TensorData::new(signals.clone(), shape.batched(7)), &host);
            let tensor = |values: &[f32], dims: [usize; 2]| {
                Tensor::<2>::from_data(TensorData::new(values.to_vec(), dims), &device)
            };
            let (dictionary, given) = (tensor(&matrix, [atoms, len]), tensor(&signals, [7, len]));
            let gram = dictionary.clone().matmul(dictionary.clone().transpose());
            let correlations = given.matmul(dictionary.transpose());
            for nonnegative in [false, true] {
                let pursuit =
                    OrthogonalMatchingPursuitConfig::new(nonzeros).with_nonnegative(nonnegative).init().unwrap();
                let expected = to_host(pursuit.solve(&Problem::new(&operator, batch()).unwrap()).unwrap().codes);
                let found = kernels[index % 2](gram.clone(), correlations.clone(), nonzeros, nonnegative);
                let (codes, counts) = found.expect("a device for kernels");
                assert!(
                    kernels[index % 2](gram.clone(), correlations.clone(), MOST_NONZEROS + 1, nonnegative).is_none()
                );
                let (codes, counts) = (to_host(there(codes)), to_host(there(counts)));
                let mut compared = 0;
                for row in 0..7 {
                    let (found, expected) = (&codes[row * atoms..][..atoms], &expected[row * atoms..][..atoms]);
                    let count = found.iter().filter(|value| **value != 0.0).count();
                    assert_eq!(count, counts[row] as usize);
                    if nonnegative && count < nonzeros {
                        continue;
                    }
                    compared += 1;
                    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                        assert!((found - expected).abs() < 2e-3, "signal {row}, atom {place}: {found} for {expected}");
                    }
                }
                assert!(compared > 0 || nonzeros == len, "{atoms} atoms");
            }
        }
    }
}
