//! What is certified is true to the last digit, and every constant of every theorem is the one that a second derivation gives: numbers
//! by plain loops in `f64` on explicit matrices, noise that is as bad as it can be, and dictionaries with copies.

use crate::common;

use common::explicit::{Explicit, Matrix};
use common::theorems::{check_all_measured, check_promise};
use common::{Case, inner, norm, on_every_device, rng, tensor, wide};
use mlcsc::evaluate::trial::{self, TrialSignal};
use mlcsc::geometry::{LayerShape, Pair, SignalShape};
use mlcsc::model::{Mlcsc, ModelConfig, OperatorForm};
use mlcsc::theory::bounds::covering_patches;
use mlcsc::theory::certificate::{Certificate, Uniqueness};
use mlcsc::theory::{Levels, ModelProfile, Noise, Theorem};
use rand::RngExt;

/// A dictionary and a code over it, by plain loops.
struct Side {
    coherence: f64,
    shortest: f64,
    longest: f64,
    stripe: usize,
    /// Least and largest |γ|‖d‖ of the non-zeros.
    least: f64,
    most: f64,
}

impl Side {
    fn new(matrix: &Matrix, code: &[f64], shape: [usize; 3], kernel: [usize; 2], stride: [usize; 2]) -> Self {
        let norms: Vec<f64> = matrix.columns.iter().map(|column| norm(column)).collect();
        let mut coherence = 0.0f64;
        for (i, first) in matrix.columns.iter().enumerate() {
            for (j, second) in matrix.columns.iter().enumerate().skip(i + 1) {
                coherence = coherence.max(inner(first, second).abs() / (norms[i] * norms[j]));
            }
        }
        let weighted: Vec<f64> =
            code.iter().zip(&norms).map(|(value, norm)| value.abs() * norm).filter(|value| *value > 0.0).collect();
        Self {
            coherence,
            shortest: norms.iter().copied().fold(f64::INFINITY, f64::min),
            longest: norms.iter().copied().fold(0.0, f64::max),
            stripe: stripe(code, shape, kernel, stride),
            least: weighted.iter().copied().fold(f64::INFINITY, f64::min),
            most: weighted.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// The most non-zeros whose atoms overlap an atom at one position.
fn stripe(code: &[f64], [_, rows, columns]: [usize; 3], kernel: [usize; 2], stride: [usize; 2]) -> usize {
    let place = |index: usize| [index / columns % rows, index % columns];
    let mut most = 0;
    for row in 0..rows {
        for column in 0..columns {
            let overlaps = |index: &usize| {
                let other = place(*index);
                [row, column]
                    .iter()
                    .zip(other)
                    .enumerate()
                    .all(|(axis, (here, there))| here.abs_diff(there) * stride[axis] < kernel[axis])
            };
            most = most.max((0..code.len()).filter(overlaps).filter(|&index| code[index] != 0.0).count());
        }
    }
    most
}

struct LayerFacts {
    own: Side,
    effective: Side,
    /// Non-zeros in a stripe of what is reached.
    reached: usize,
    /// Most non-zeros in a patch.
    patch: usize,
    nonzeros: usize,
    largest: f64,
    /// c_j.
    cover: usize,
}

/// Everything that the theorems speak of, for a model without padding.
fn facts(case: &Case, code: &[f32]) -> Vec<LayerFacts> {
    let explicit = case.explicit();
    let codes = explicit.propagate(&wide(code));
    let magnitudes: Vec<f64> = code.iter().map(|&value| f64::from(value.abs())).collect();
    let reached = explicit.absolute().propagate(&magnitudes);
    let depth = explicit.layers.len();
    let extent = |index: usize| match explicit.layers.get(index + 1) {
        Some(reader) => reader.kernel,
        None => seen(&explicit, index, explicit.layers[index].kernel),
    };
    let (mut kernel, mut stride) = ([1, 1], [1, 1]);
    let mut found = Vec::new();
    for index in 0..depth {
        let layer = &explicit.layers[index];
        for axis in 0..2 {
            kernel[axis] += (layer.kernel[axis] - 1) * stride[axis];
            stride[axis] *= layer.stride[axis];
        }
        let effective = Explicit { layers: explicit.layers[..=index].to_vec() }.matrix();
        let (patch, below) = (extent(index), layer.kernel);
        let sees = seen(&explicit, index, below);
        found.push(LayerFacts {
            own: Side::new(&layer.matrix(), &codes[index], layer.code, layer.kernel, layer.stride),
            effective: Side::new(&effective, &codes[index], layer.code, kernel, stride),
            reached: self::stripe(&reached[index], layer.code, layer.kernel, layer.stride),
            patch: patch_count(&codes[index], layer.code, patch),
            nonzeros: codes[index].iter().filter(|value| **value != 0.0).count(),
            largest: codes[index].iter().fold(0.0, |largest, value| largest.max(value.abs())),
            cover: (0..2).map(|axis| sees[axis].div_ceil(patch[axis])).product(),
        });
    }
    found
}

/// Most positions of γ_i per axis whose atoms meet a window of that extent, counted.
fn seen(explicit: &Explicit, index: usize, window: [usize; 2]) -> [usize; 2] {
    let layer = &explicit.layers[index];
    std::array::from_fn(|axis| {
        let meets = |position: usize, start: usize| {
            let first = position * layer.stride[axis];
            first < start + window[axis] && start < first + layer.kernel[axis]
        };
        let count = |start: usize| (0..layer.code[axis + 1]).filter(|&position| meets(position, start)).count();
        (0..layer.signal[axis + 1]).map(count).max().unwrap()
    })
}

fn patch_count(code: &[f64], [_, rows, columns]: [usize; 3], extent: [usize; 2]) -> usize {
    let inside = |index: usize, top: usize, left: usize| {
        let (row, column) = (index / columns % rows, index % columns);
        (top..top + extent[0]).contains(&row) && (left..left + extent[1]).contains(&column)
    };
    let count = |top, left| (0..code.len()).filter(|&index| code[index] != 0.0 && inside(index, top, left)).count();
    (0..rows).flat_map(|top| (0..columns).map(move |left| count(top, left))).max().unwrap()
}

/// Errors in the three norms, and the paper's constant.
#[derive(Debug, Clone, Copy)]
struct Expected {
    global: f64,
    local: f64,
    largest: f64,
    paper: Option<f64>,
}

impl Expected {
    fn all(value: f64) -> Self {
        Self { global: value, local: value, largest: value, paper: None }
    }
}

fn root(count: usize) -> f64 {
    (count as f64).sqrt()
}

/// 1 − (k − 1)μ.
fn apart(stripe: usize, side: &Side) -> f64 {
    1.0 - (stripe.max(1) - 1) as f64 * side.coherence
}

fn is_unique(side: &Side) -> bool {
    (side.stripe as f64) < 0.5 * (1.0 + 1.0 / side.coherence)
}

fn is_unit(side: &Side) -> bool {
    (side.shortest - 1.0).abs() < 1e-4 && (side.longest - 1.0).abs() < 1e-4
}

/// Largest error of an entry after basis pursuit with penalty 4ε.
fn of_basis_pursuit(side: &Side, noise: f64) -> Option<f64> {
    let pull = side.stripe as f64 * side.coherence / apart(side.stripe, side);
    // ε(1 + ρ) + 4ερ < 4ε.
    (is_unique(side) && 1.0 + 5.0 * pull < 4.0).then(|| 5.0 * noise / (side.shortest * apart(side.stripe, side)))
}

/// The bounds of every theorem, as they follow from their proofs.
fn expected(theorem: &Theorem, facts: &[LayerFacts], noise: &Noise) -> Vec<Option<Expected>> {
    let deepest = &facts[facts.len() - 1];
    let (deep, count) = (&deepest.effective, deepest.effective.stripe);
    match theorem {
        Theorem::ModelProjection => {
            let of_layer = |layer: &LayerFacts| {
                let side = &layer.effective;
                let least = 1.0 - (2.0 * side.stripe as f64 - 1.0) * side.coherence;
                is_unique(side).then(|| Expected::all(2.0 * noise.global / (side.shortest * least.sqrt())))
            };
            facts.iter().map(of_layer).collect()
        }
        Theorem::LayeredCoding => {
            let mut error = Some(noise.global);
            let mut of_layer = |layer: &LayerFacts| {
                let side = &layer.own;
                let least = 1.0 - (2.0 * side.stripe as f64 - 1.0) * side.coherence;
                error = error.filter(|_| is_unique(side)).map(|error| 2.0 * error / (side.shortest * least.sqrt()));
                error.map(Expected::all)
            };
            facts.iter().map(&mut of_layer).collect()
        }
        Theorem::GreedyProjection => {
            // k < ½(1 + 1/μ) − ε/(μ|c|_min), times μ.
            let pull = noise.effective_patch / deep.least;
            let holds = count as f64 * deep.coherence + pull < 0.5 * (1.0 + deep.coherence);
            let global = noise.global / (deep.shortest * apart(count, deep).sqrt());
            let largest = global.min(noise.effective_patch / (deep.shortest * apart(count, deep)));
            let local = global.min(root(deepest.patch) * largest);
            let deepest = holds.then_some(Expected { global, local, largest, paper: Some(global) });
            carried(facts, deepest, false)
        }
        Theorem::ConvexProjection { .. } => {
            let of_entry = of_basis_pursuit(deep, noise.effective_patch);
            let deepest = of_entry.map(|of_entry| {
                let spread = (1.0 + (count.max(1) - 1) as f64 * deep.coherence).sqrt() * noise.global;
                let penalties = root(deepest.nonzeros) * 4.0 * noise.effective_patch;
                let by_energy = (spread + penalties) / (deep.shortest * apart(count, deep));
                let global = by_energy.min(root(deepest.nonzeros) * of_entry);
                let paper = count as f64 <= (1.0 + 1.0 / deep.coherence) / 3.0 && is_unit(deep);
                let paper = paper.then(|| 7.5 * noise.effective_patch * root(deepest.patch));
                let local = global.min(root(deepest.patch) * of_entry);
                Expected { global, local, largest: of_entry.min(global), paper }
            });
            carried(facts, deepest, true)
        }
        Theorem::LayeredBasisPursuit { .. } => {
            let mut below = Some((noise.first_patch, Some(noise.first_patch)));
            let mut of_layer = |layer: &LayerFacts| {
                let (noise, paper) = below?;
                let of_entry = of_basis_pursuit(&layer.own, noise);
                let third = layer.own.stripe as f64 <= (1.0 + 1.0 / layer.own.coherence) / 3.0 && is_unit(&layer.own);
                let paper = paper.filter(|_| third).map(|noise| 7.5 * noise * root(layer.patch));
                let found = of_entry.map(|largest| Expected {
                    global: root(layer.nonzeros) * largest,
                    local: root(layer.patch) * largest,
                    largest,
                    paper,
                });
                below = found.map(|found| (found.local, found.paper));
                found
            };
            facts.iter().map(&mut of_layer).collect()
        }
        Theorem::LayeredThresholding { soft, .. } => {
            let mut below = Some(noise.first_patch);
            let mut of_layer = |layer: &LayerFacts| {
                let (noise, side, count) = (below?, &layer.own, layer.own.stripe as f64);
                let outside = side.longest * (count * side.coherence * side.most + noise);
                let inside = side.shortest * (side.least - (count - 1.0) * side.coherence * side.most - noise);
                let threshold = outside + 0.01 * (inside - outside);
                let changed = (side.longest.powi(2) - 1.0).abs().max((side.shortest.powi(2) - 1.0).abs());
                let largest = side.longest * ((count - 1.0) * side.coherence * side.most + noise)
                    + if *soft { threshold } else { 0.0 }
                    + changed * layer.largest;
                let found = (outside < inside).then(|| Expected {
                    global: root(layer.nonzeros) * largest,
                    local: root(layer.patch) * largest,
                    largest,
                    paper: None,
                });
                below = found.map(|found| found.local);
                found
            };
            facts.iter().map(&mut of_layer).collect()
        }
    }
}

/// From γ_L down: every step by the largest that its dictionary makes of an error, on patches by as many as cover what one sees.
fn carried(facts: &[LayerFacts], deepest: Option<Expected>, local: bool) -> Vec<Option<Expected>> {
    let mut found = vec![deepest];
    let mut current = deepest;
    for layer in facts[1..].iter().rev() {
        let side = &layer.own;
        let growth = side.longest * (1.0 + (layer.reached.max(1) - 1) as f64 * side.coherence).sqrt();
        let half = (layer.reached as f64) < 0.5 * (1.0 + 1.0 / side.coherence) && is_unit(side);
        current = current.map(|error| {
            let global = growth * error.global;
            let of_patch = global.min(growth * root(layer.cover) * error.local);
            // √(3c_j/2) in the paper's local norm, √(3/2) in its global one.
            let factor = (1.5 * if local { layer.cover as f64 } else { 1.0 }).sqrt();
            let paper = error.paper.filter(|_| half).map(|paper| factor * paper);
            Expected { global, local: of_patch, largest: of_patch, paper }
        });
        found.push(current);
    }
    found.reverse();
    found
}

/// A model whose deeper layers overlap: one large entry in every atom, on a channel of its own, and, where a layer has any, a small one
/// elsewhere; of unit norm or not.
fn overlapping(signal: SignalShape, layers: Vec<LayerShape>, small: &[f32], unit: bool, seed: u64) -> Case {
    let mut random = rng(seed);
    let mut channels = signal.channels;
    let mut all = Vec::new();
    for (layer, &small) in layers.iter().zip(small) {
        assert!(layer.atoms <= channels, "a channel for every atom");
        let [height, width] = layer.kernel.0;
        let mut values = vec![0.0f32; layer.atoms * channels * height * width];
        for (atom, values) in values.chunks_exact_mut(channels * height * width).enumerate() {
            let large = atom * height * width + random.random_range(0..height * width);
            let other = (large + 1 + random.random_range(0..values.len() - 1)) % values.len();
            let scale = if unit { 1.0 } else { 0.8 + 0.5 * random.random::<f32>() };
            values[large] = scale * (1.0 - small * small).sqrt();
            values[other] = scale * if random.random::<bool>() { small } else { -small };
        }
        channels = layer.atoms;
        all.push(values);
    }
    Case { config: ModelConfig::new(signal, layers), filters: all, seed }
}

fn profiled(case: &Case, device: &burn::tensor::Device) -> (Mlcsc, ModelProfile) {
    let model = case.model(device);
    let profile = ModelProfile::new(&model, case.config.signal).unwrap();
    (model, profile)
}

fn levels(case: &Case, model: &Mlcsc, profile: &ModelProfile, code: &[f32]) -> Levels {
    let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
    let codes = tensor(code, operator.code().batched(1), &model.device());
    Levels::of(profile, &operator.propagate(codes)).unwrap().remove(0)
}

/// A signal of a code with noise, of which everything is known.
fn known(case: &Case, model: &Mlcsc, profile: &ModelProfile, code: &[f32], noise: &[f64]) -> Vec<TrialSignal> {
    let operator = model.operator(case.config.signal, OperatorForm::Cascade).unwrap();
    let clean = case.explicit().synthesize(&wide(code));
    let noisy: Vec<f32> = clean.iter().zip(noise).map(|(clean, noise)| (clean + noise) as f32).collect();
    let noisy = tensor(&noisy, operator.signal().batched(1), &model.device());
    let codes = tensor(code, operator.code().batched(1), &model.device());
    let told = |noise: &[f32]| Noise::measured(profile.geometry(), noise);
    TrialSignal::of(profile, &noisy, &operator.propagate(codes), told).unwrap()
}

/// Three layers in one dimension, whose numbers can be worked out by hand: c_2 = ⌈3/2⌉ = 2, and stripes that differ.
fn by_hand() -> (Case, Vec<f32>) {
    let layers = vec![
        LayerShape::new(3, Pair([1, 3]), 1),
        LayerShape::new(2, Pair([1, 2]), 1),
        LayerShape::new(2, Pair([1, 2]), 1),
    ];
    let mut filters = vec![vec![0.0f32; 3 * 3 * 3], vec![0.0; 2 * 3 * 2], vec![0.0; 2 * 2 * 2]];
    // D_1: (√0.99 on channel 0, 0.1 on channel 1 two further on), 1 on channel 1, 2 on channel 2 in the middle.
    let first = |atom: usize, channel: usize, column: usize| (atom * 3 + channel) * 3 + column;
    filters[0][first(0, 0, 0)] = 0.99f32.sqrt();
    filters[0][first(0, 1, 2)] = 0.1;
    filters[0][first(1, 1, 0)] = 1.0;
    filters[0][first(2, 2, 1)] = 2.0;
    // D_2: (0.6 on 0, 0.8 on 1 one further on), (√0.96 on 2, 0.2 on 1).
    let second = |atom: usize, channel: usize, column: usize| (atom * 3 + channel) * 2 + column;
    filters[1][second(0, 0, 0)] = 0.6;
    filters[1][second(0, 1, 1)] = 0.8;
    filters[1][second(1, 2, 0)] = 0.96f32.sqrt();
    filters[1][second(1, 1, 0)] = 0.2;
    // D_3: (√0.99 on 0, 0.1 on 1 one further on), 1 on 1.
    let third = |atom: usize, channel: usize, column: usize| (atom * 2 + channel) * 2 + column;
    filters[2][third(0, 0, 0)] = 0.99f32.sqrt();
    filters[2][third(0, 1, 1)] = 0.1;
    filters[2][third(1, 1, 0)] = 1.0;
    let config = ModelConfig::new(SignalShape::new(3, 1, 10), layers);
    // γ_3 has six positions: atom 0 at the first and at the fourth.
    let mut code = vec![0.0; 12];
    (code[0], code[3]) = (1.0, -1.5);
    (Case { config, filters, seed: 0 }, code)
}

#[test]
fn numbers_of_three_layers_are_those_by_hand() {
    on_every_device(|device| {
        let (case, code) = by_hand();
        let (model, profile) = profiled(&case, &device.device);
        let levels = levels(&case, &model, &profile, &code);
        let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
        // Moved by two, D_1's first two atoms share 0.1; D_2's 0.8·0.2 moved by one; D_3's 0.1 moved by one.
        for (layer, coherence, least, most) in [(0, 0.1, 1.0, 2.0), (1, 0.16, 1.0, 1.0), (2, 0.1, 1.0, 1.0)] {
            close(profile.own[layer].mutual(), coherence);
            close(profile.own[layer].min_norm(), least);
            close(profile.own[layer].max_norm(), most);
        }
        // D^(2): (0.6√0.99 on 0; 0.8 and then 0.06 on 1) of norm 1, (0.2 on 1; 2√0.96 on 2) of norm √3.88.
        close(profile.effective[1].mutual(), 0.16 / 3.88f64.sqrt());
        close(profile.effective[1].max_norm(), 3.88f64.sqrt());
        assert_eq!([0, 1, 2].map(|layer| profile.own[layer].radius), [[0, 2], [0, 1], [0, 1]]);
        assert_eq!([0, 1, 2].map(|layer| profile.effective[layer].radius), [[0, 2], [0, 3], [0, 4]]);
        assert_eq!([2, 3].map(|depth| covering_patches(profile.geometry(), depth)), [2, 1]);
        // γ_2: channel 0 at 0 and channel 1 at 1, the same again from 3 on; γ_1: three channels at 0 and 1, again from 3 on.
        let counts: Vec<[usize; 4]> = levels
            .layers
            .iter()
            .map(|level| [level.nonzeros, level.own_stripe, level.effective_stripe, level.patch])
            .collect();
        assert_eq!(counts, [[6, 6, 6, 3], [4, 2, 4, 2], [2, 1, 2, 1]]);
        assert!(levels.supports_survive());
        let noise = Noise { global: 0.02, first_patch: 0.015, effective_patch: 0.008 };
        // E/√(1 − μ(D^(3))); a stripe of γ_3 holds one non-zero, one of γ_2 two: √(1 + 0.16).
        let deep = profile.effective[2].mutual();
        let promise = Theorem::GreedyProjection.promise(&profile, &levels, &noise);
        let bound = |layer: usize| promise.layers[layer].clone().unwrap();
        close(bound(2).global, 0.02 / (profile.effective[2].min_norm() * (1.0 - deep).sqrt()));
        close(bound(1).global, bound(2).global);
        close(bound(0).global, bound(2).global * 1.16f64.sqrt());
        // One non-zero in a patch of γ_3; c_3 = 1 and c_2 = 2.
        close(bound(2).local, 0.008 / (profile.effective[2].min_norm() * (1.0 - deep)));
        close(bound(1).local, bound(2).local);
        close(bound(0).local, bound(2).local * (2.0 * 1.16f64).sqrt());
        assert!(bound(0).local < bound(0).global);
    });
}

/// Every bound and every radius on models with several covering patches, own stripes unlike effective ones, columns of unit norm and of
/// others, against [`expected`].
#[test]
fn every_constant_is_that_of_the_proofs() {
    on_every_device(|device| {
        let mut cases = vec![by_hand()];
        let layers = || vec![LayerShape::new(6, 2, 1), LayerShape::new(5, 3, 1), LayerShape::new(4, 2, 1)];
        for seed in 0..10 {
            let smalls = [[0.01; 3], [0.04, 0.02, 0.05], [0.02, 0.0, 0.0], [0.1, 0.3, 0.3], [0.04, 0.0, 0.2]];
            let case = overlapping(SignalShape::new(7, 8, 8), layers(), &smalls[seed as usize % 5], seed < 5, seed);
            let mut code = vec![0.0f32; case.explicit().code().iter().product()];
            code[seed as usize % 3] = 1.0;
            cases.push((case.clone(), code.clone()));
            // Far apart, where the own stripe holds one.
            code[16 + 15] = -1.3;
            cases.push((case, code));
        }
        let two = vec![LayerShape::new(5, Pair([3, 2]), Pair([2, 1])), LayerShape::new(4, Pair([2, 3]), 1)];
        let case = overlapping(SignalShape::new(6, 9, 7), two, &[0.02, 0.02], true, 9);
        let mut code = vec![0.0f32; case.explicit().code().iter().product()];
        (code[0], code[7]) = (0.7, 1.1);
        cases.push((case, code));
        let mut seen = std::collections::BTreeMap::<(&str, usize), [usize; 3]>::new();
        let (mut covers, mut stripes) = (0, 0);
        for (case, code) in &cases {
            let (model, profile) = profiled(case, &device.device);
            let levels = levels(case, &model, &profile, code);
            let facts = facts(case, code);
            covers += usize::from(facts.iter().any(|layer| layer.cover > 1));
            stripes += usize::from(facts.iter().any(|layer| layer.own.stripe != layer.effective.stripe));
            for (level, facts) in levels.layers.iter().zip(&facts) {
                let found =
                    [level.nonzeros, level.own_stripe, level.effective_stripe, level.patch, level.reached_stripe];
                let sides = [facts.own.stripe, facts.effective.stripe];
                assert_eq!(found, [facts.nonzeros, sides[0], sides[1], facts.patch, facts.reached]);
            }
            for theorem in Theorem::all() {
                for length in [0.0, 0.004, 0.03, 0.2, 2.0] {
                    let noise = Noise { global: length, first_patch: 0.7 * length, effective_patch: 0.9 * length };
                    let promise = theorem.promise(&profile, &levels, &noise);
                    let expected = expected(&theorem, &facts, &noise);
                    for (layer, (found, expected)) in promise.layers.iter().zip(expected).enumerate() {
                        let what =
                            format!("{} layer {} of {case:?}: {found:?} {expected:?}", theorem.name(), layer + 1);
                        let seen = seen.entry((theorem.name(), layer)).or_default();
                        let (Ok(found), Some(expected)) = (found, expected) else {
                            assert!(found.is_err() && expected.is_none(), "{what}");
                            seen[1] += 1;
                            continue;
                        };
                        seen[0] += 1;
                        // Rounded up, and hardly so; w² − 1 has fewer digits than w.
                        let same = |found: f64, value: f64| {
                            found >= value * (1.0 - 1e-12) - 1e-15 && found <= value * (1.0 + 1e-9) + 1e-13
                        };
                        assert!(same(found.global, expected.global), "{what}");
                        assert!(same(found.local, expected.local), "{what}");
                        assert!(same(found.largest, expected.largest), "{what}");
                        assert_eq!(found.paper.is_some(), expected.paper.is_some(), "{what}");
                        if let (Some(found), Some(expected)) = (found.paper, expected.paper) {
                            seen[2] += 1;
                            // Of unit norm to the rounding of `f32`.
                            assert!((found - expected).abs() <= 1e-6 * expected, "{what}");
                        }
                    }
                }
                check_radius(&theorem, &profile, &levels, &facts);
            }
        }
        assert!(covers >= 10 && stripes >= 6, "{covers} {stripes}");
        for theorem in Theorem::all() {
            for layer in 0..2 {
                let [bounds, refused, _] = seen[&(theorem.name(), layer)];
                assert!(bounds >= 5 && refused >= 4, "{} layer {}: {seen:?}", theorem.name(), layer + 1);
            }
        }
        for (name, layer) in [("omp-projection", 0), ("bp-projection", 0), ("bp-projection", 1), ("layered-bp", 1)] {
            assert!(seen[&(name, layer)][2] >= 4, "{name} {layer}: {seen:?}");
        }
    });
}

/// The radius lies where [`expected`] stops having a bound for every layer.
fn check_radius(theorem: &Theorem, profile: &ModelProfile, levels: &Levels, facts: &[LayerFacts]) {
    let holds = |length: f64| expected(theorem, facts, &Noise::of_length(length)).iter().all(Option::is_some);
    match theorem.radius(profile, levels) {
        None => assert!(!holds(0.0), "{}", theorem.name()),
        Some(radius) if radius.is_infinite() => assert!(holds(1e30), "{}", theorem.name()),
        Some(radius) => {
            assert!(holds(radius * (1.0 - 1e-9)) && !holds(radius * (1.0 + 1e-9)), "{}: {radius}", theorem.name());
        }
    }
}

/// One dense layer with these columns.
fn dense(columns: &[&[f32]]) -> Case {
    let config = ModelConfig::new(SignalShape::new(columns[0].len(), 1, 1), vec![LayerShape::new(columns.len(), 1, 1)]);
    Case { config, filters: vec![columns.concat()], seed: 0 }
}

/// Noise along the singular vector of the support, against an atom, or between two signals: what is promised is what happens.
#[test]
fn bounds_are_reached_where_noise_is_as_bad_as_it_can_be() {
    on_every_device(|device| {
        // μ = 0.2 between the first two, 0.28 of nothing else.
        let case = dense(&[&[1.0, 0.0, 0.0], &[0.2, 0.96f32.sqrt(), 0.0], &[0.0, 0.0, 1.0]]);
        let (model, profile) = profiled(&case, &device.device);
        let operator = model.operator(case.config.signal, OperatorForm::Matrix).unwrap();
        let columns = case.explicit().matrix().columns;
        let difference: Vec<f64> = columns[0].iter().zip(&columns[1]).map(|(first, second)| first - second).collect();
        let scaled = |vector: &[f64], length: f64| -> Vec<f64> {
            vector.iter().map(|value| length * value / norm(vector)).collect()
        };
        let reached = |theorem: &Theorem, code: &[f32], noise: &[f64], local: bool| {
            let known = known(&case, &model, &profile, code, noise);
            let trial = trial::run(theorem, &profile, &operator, &known).unwrap().remove(0);
            let bound = trial.promise.layers[0].clone().unwrap();
            let error = trial.errors.unwrap()[0];
            let (found, promised) = if local { (error.largest, bound.largest) } else { (error.global, bound.global) };
            // Pursuits round to `f32` and stop at a gap of 1e-6.
            assert!(found <= promised * (1.0 + 2e-4), "{}: {found} beyond {promised}", theorem.name());
            assert!(found >= promised * (1.0 - 2e-3), "{}: {found} of {promised}", theorem.name());
        };
        // Least squares on two columns: E/σ_min = E/√(1 − μ).
        reached(&Theorem::GreedyProjection, &[1.0, 1.0, 0.0], &scaled(&difference, 0.1), false);
        // One column, noise against it: ε and the penalty 4ε, the threshold β, or nothing more.
        let against = scaled(&columns[0], -0.05);
        for theorem in [
            Theorem::ConvexProjection { penalty: None },
            Theorem::LayeredBasisPursuit { penalties: None },
            Theorem::LayeredThresholding { soft: true, thresholds: None },
            Theorem::LayeredThresholding { soft: false, thresholds: None },
        ] {
            reached(&theorem, &[1.0, 0.0, 0.0], &against, true);
        }
        // d_1 and d_2, both one-sparse, y halfway between: 2E = ‖d_1 − d_2‖ = √(2(1 − μ)), and the codes are √2 apart.
        let levels = levels(&case, &model, &profile, &[1.0, 0.0, 0.0]);
        for theorem in [Theorem::ModelProjection, Theorem::LayeredCoding] {
            let noise = Noise::of_length(0.5 * norm(&difference));
            let bound = theorem.promise(&profile, &levels, &noise).layers[0].clone().unwrap().global;
            assert!((bound / 2.0f64.sqrt() - 1.0).abs() < 1e-6, "{}: {bound}", theorem.name());
        }
    });
}

/// No promise is broken by noise along the least singular vector of the support, in models with several covering patches.
#[test]
fn adversarial_noise_breaks_no_promise() {
    on_every_device(|device| {
        let mut checked = std::collections::BTreeMap::<&str, usize>::new();
        for seed in 0..6u64 {
            let layers = vec![LayerShape::new(6, 2, 1), LayerShape::new(5, 3, 1), LayerShape::new(4, 2, 1)];
            let small = [[0.02; 3], [0.02, 0.0, 0.0], [0.1, 0.06, 0.1]][seed as usize % 3];
            let case = overlapping(SignalShape::new(7, 8, 8), layers, &small, seed < 3, 20 + seed);
            let (model, profile) = profiled(&case, &device.device);
            assert!(covering_patches(profile.geometry(), 2) > 1);
            let operator = model.operator(case.config.signal, OperatorForm::Matrix).unwrap();
            let columns = case.explicit().matrix().columns;
            let mut random = rng(seed);
            for _ in 0..8 {
                let mut code = vec![0.0f32; columns.len()];
                // Neighbours, which overlap most.
                let first = random.random_range(0..columns.len() - 1);
                (code[first], code[first + 1]) = (1.0 + random.random::<f32>(), 1.0);
                let pair = [&columns[first], &columns[first + 1]].map(|column| {
                    let length = norm(column);
                    column.iter().map(|value| value / length).collect::<Vec<f64>>()
                });
                let sign = inner(&pair[0], &pair[1]).signum();
                let worst: Vec<f64> =
                    pair[0].iter().zip(&pair[1]).map(|(first, second)| first - sign * second).collect();
                for length in [1e-3, 1e-2, 0.1] {
                    let noise: Vec<f64> = worst.iter().map(|value| length * value / norm(&worst)).collect();
                    let known = known(&case, &model, &profile, &code, &noise);
                    for theorem in Theorem::all() {
                        let trial = trial::run(&theorem, &profile, &operator, &known).unwrap().remove(0);
                        let Ok(errors) = &trial.errors else { continue };
                        *checked.entry(theorem.name()).or_default() += 1;
                        // Pursuits round to `f32` and stop at a gap of 1e-6.
                        check_promise(&theorem, &trial.promise, errors, 2e-6);
                    }
                }
            }
        }
        check_all_measured(&checked, 12);
    });
}

fn certificate(case: &Case, code: &[f32], device: &burn::tensor::Device) -> Certificate {
    let (model, profile) = profiled(case, device);
    let levels = levels(case, &model, &profile, code);
    Certificate::new(&profile, levels, 0.0, 1e-3, &Theorem::all()).unwrap()
}

/// The tetrahedron: μ = 1/3, limit 2, and two of its corners are the other two with their signs turned.
#[test]
fn no_representation_with_a_twin_is_called_unique() {
    on_every_device(|device| {
        let corners: [&[f32]; 4] = [&[1.0, 1.0, 1.0], &[1.0, -1.0, -1.0], &[-1.0, 1.0, -1.0], &[-1.0, -1.0, 1.0]];
        let case = dense(&corners);
        let (_, profile) = profiled(&case, &device.device);
        let (third, found) = (1.0 / 3.0, profile.own[0].mutual());
        // The exact third lies above the nearest `f64`.
        assert!(found > third && found < third + 1e-14, "{found}");
        assert!(profile.own[0].uniqueness_limit() <= 2.0);
        let twin = certificate(&case, &[1.0, 1.0, 0.0, 0.0], &device.device);
        assert_eq!(twin.uniqueness, [Uniqueness::Unproven]);
        assert!(twin.stability[0].is_err());
        for theorem in &twin.theorems {
            assert!(!theorem.promise.holds() && theorem.radius.is_none(), "{}", theorem.name);
        }
        // One of them is the only one.
        assert!(certificate(&case, &[1.0, 0.0, 0.0, 0.0], &device.device).is_unique());
        // Any size, and any number of dimensions: n + 1 corners of a simplex have μ = 1/n, and all of them add up to nothing.
        for (dimensions, scale) in [(3, 0.1), (7, 1.0), (15, 3.3e-5), (15, 7.7e4)] {
            // Rows of a Hadamard matrix without the first column.
            let columns: Vec<Vec<f32>> = (0..=dimensions)
                .map(|row: u32| {
                    let sign = |column: u32| if (row & column).count_ones().is_multiple_of(2) { scale } else { -scale };
                    (1..=dimensions).map(sign).collect()
                })
                .collect();
            let columns: Vec<&[f32]> = columns.iter().map(Vec::as_slice).collect();
            let half = (dimensions as usize).div_ceil(2);
            let code: Vec<f32> = (0..columns.len()).map(|index| f32::from(index < half)).collect();
            let found = certificate(&dense(&columns), &code, &device.device);
            assert_eq!(found.uniqueness, [Uniqueness::Unproven], "{dimensions} {scale}");
            let fewer: Vec<f32> = (0..columns.len()).map(|index| f32::from(index + 1 < half)).collect();
            assert!(certificate(&dense(&columns), &fewer, &device.device).is_unique(), "{dimensions} {scale}");
        }
    });
}

/// Atoms that are copies, multiples, or nearly copies of others; columns that are equal at two shifts, in one layer and through three, at
/// stride one and two; columns that cropping makes equal.
#[test]
fn copies_are_found_wherever_they_are() {
    on_every_device(|device| {
        for seed in 0..6u64 {
            let mut values = common::normals(&mut rng(seed), 12);
            // The last atom is a multiple of the first: exact for powers of two, and to the last digit for others.
            let factor = [1.0, -1.0, 0.25, 3.0, -0.7, 1e-20][seed as usize];
            let copy: Vec<f32> = values[..4].iter().map(|value| factor * value).collect();
            values.extend(copy);
            let columns: Vec<&[f32]> = values.chunks_exact(4).collect();
            let case = dense(&columns);
            let (_, profile) = profiled(&case, &device.device);
            let exact = seed < 3;
            if exact {
                assert_eq!(profile.own[0].mutual(), 1.0, "{factor}");
                assert_eq!(profile.own[0].coherence.copies_count(), 1);
                assert_eq!(profile.own[0].coherence.copies()[0].atoms, [0, 3]);
                assert_eq!(profile.own[0].coherence.attained().unwrap().atoms, [0, 3]);
            }
            let found = certificate(&case, &[1.0, 0.0, 0.0, 0.0], &device.device);
            // Where directions differ by a rounding of `f32`, one column may be known from the other; then what is stable is next to
            // nothing, and says so.
            match &found.stability[0] {
                Ok(bound) => assert!(!exact && bound.global > 100.0, "{factor}: {bound:?}"),
                Err(_) => assert_eq!(found.uniqueness, [Uniqueness::Unproven]),
            }
        }
        for seed in 0..12u64 {
            let stride = 1 + seed as usize % 2;
            for depth in 1..=3 {
                let mut layers = vec![LayerShape::new(4, 3, 1), LayerShape::new(5, 2, 1)];
                layers.truncate(depth - 1);
                // The kernel is wide enough for the atom and its move.
                layers.push(LayerShape::new(3, Pair([2, 2 + stride]), Pair([1, stride])));
                let mut case = Case::random(SignalShape::new(2, 9, 12), layers, seed);
                let width = 2 + stride;
                let filters = &mut case.filters[depth - 1];
                let len = filters.len() / 3;
                for line in 0..len / width {
                    filters[line * width + 2..(line + 1) * width].fill(0.0);
                    let (first, second) = (line * width, len + line * width);
                    filters[second..second + width].fill(0.0);
                    filters.copy_within(first..first + 2, second + stride);
                }
                let code = case.explicit().code();
                // Atom 1 at a position is atom 0 one position further on.
                let mut values = vec![0.0f32; code.iter().product()];
                values[code[1] * code[2]] = 1.0;
                let mut twin = vec![0.0f32; values.len()];
                twin[1] = 1.0;
                let explicit = case.explicit();
                assert_eq!(
                    explicit.layers[depth - 1].synthesize(&wide(&values)),
                    explicit.layers[depth - 1].synthesize(&wide(&twin))
                );
                for code in [&values, &twin] {
                    let found = certificate(&case, code, &device.device);
                    assert_eq!(found.uniqueness[depth - 1], Uniqueness::Unproven, "seed {seed}, depth {depth}");
                    assert!(found.stability[depth - 1].is_err());
                    for theorem in &found.theorems {
                        assert!(theorem.promise.layers[depth - 1].is_err(), "{} {seed} {depth}", theorem.name);
                    }
                }
                let (_, profile) = profiled(&case, &device.device);
                for dictionary in [&profile.own[depth - 1], &profile.effective[depth - 1]] {
                    assert_eq!(dictionary.mutual(), 1.0);
                    assert_eq!(dictionary.coherence.at([0, 1]), 1.0);
                    let pair = dictionary.coherence.copies()[0];
                    let moved = pair.positions.map(|position| position[1] as isize);
                    assert_eq!((pair.atoms, moved[1] - moved[0]), ([1, 0], 1));
                }
            }
        }
        // Cropped to their last column, (1, 2) and (5, 2) are equal.
        let layer = LayerShape::new(2, Pair([1, 2]), 1).with_padding(Pair([0, 1]));
        let config = ModelConfig::new(SignalShape::new(1, 1, 5), vec![layer]);
        let case = Case { config, filters: vec![vec![1.0, 2.0, 5.0, 2.0]], seed: 0 };
        let (_, profile) = profiled(&case, &device.device);
        let pair = profile.own[0].coherence.copies()[0];
        assert_eq!((profile.own[0].mutual(), pair.atoms, pair.positions), (1.0, [0, 1], [[0, 0], [0, 0]]));
        let mut code = vec![0.0; 12];
        code[0] = 1.0;
        assert_eq!(certificate(&case, &code, &device.device).uniqueness, [Uniqueness::Unproven]);
    });
}

/// A vector with a small entry has two, however small; one that cancels exactly is zero, however it was rounded on the way.
#[test]
fn small_entries_count_and_cancelled_ones_do_not() {
    on_every_device(|device| {
        let config =
            ModelConfig::new(SignalShape::new(2, 1, 1), vec![LayerShape::new(2, 1, 1), LayerShape::new(2, 1, 1)]);
        let case = Case { config, filters: vec![vec![1.0, 0.0, 0.0, 1.0], vec![0.6, 0.8, 0.6, -0.8]], seed: 0 };
        let (model, profile) = profiled(&case, &device.device);
        // γ_1 = (0.7, −5.6e-6) and smaller still, down to the last digit of the code.
        for difference in [7e-6, 1e-6, 6e-8] {
            let found = levels(&case, &model, &profile, &[0.583_333_3, 0.583_333_3 + difference]);
            let level = &found.layers[0];
            assert_eq!((level.nonzeros, level.own_stripe, level.vanished), (2, 2, 0), "{difference}");
            let small = 0.8 * f64::from(0.583_333_3f32 + difference - 0.583_333_3f32);
            assert!(level.own_least <= small * (1.0 + 1e-6) && level.own_least >= 0.99 * small, "{}", level.own_least);
        }
        let found = levels(&case, &model, &profile, &[0.583_333_3, 0.583_333_3]);
        assert_eq!((found.layers[0].nonzeros, found.layers[0].vanished), (1, 1));
        // a + b = c exactly, so that (a + b − c)·g·w = 0 through two layers, whose products `f64` cannot hold.
        let config = ModelConfig::new(
            SignalShape::new(2, 1, 1),
            vec![LayerShape::new(2, 1, 1), LayerShape::new(3, 1, 1), LayerShape::new(1, 1, 1)],
        );
        let (mut random, mut inexact) = (rng(3), 0);
        for _ in 0..40 {
            let part = |numerator: u32| numerator as f32 / (1u32 << 24) as f32;
            let [a, b] = [random.random_range(1 << 22..1 << 23), random.random_range(1 << 22..1 << 23)]
                .map(|value: u32| value | 1);
            let [a, b, c] = [a, b, a + b].map(part);
            let (weight, value) = (random.random::<f32>(), random.random::<f32>());
            let second = vec![weight, 1.0, weight, 1.0, -weight, 1.0];
            let filters = vec![vec![1.0, 0.0, 0.0, 1.0], second, vec![a, b, c]];
            let case = Case { config: config.clone(), filters, seed: 0 };
            let by_f64 =
                [a, b, -c].iter().map(|&part| f64::from(value) * f64::from(part) * f64::from(weight)).sum::<f64>();
            inexact += usize::from(by_f64 != 0.0);
            let (model, profile) = profiled(&case, &device.device);
            let found = levels(&case, &model, &profile, &[value]);
            assert_eq!((found.layers[0].nonzeros, found.layers[0].vanished), (1, 1));
        }
        assert!(inexact >= 5, "{inexact}: `f64` is exact here, and nothing is tested");
    });
}

/// A column that cancels in the cascade is zero, and nothing is unique.
#[test]
fn columns_that_cancel_make_nothing_unique() {
    on_every_device(|device| {
        let config =
            ModelConfig::new(SignalShape::new(2, 1, 1), vec![LayerShape::new(2, 1, 1), LayerShape::new(2, 1, 1)]);
        // D_1's atoms are opposite up to a factor, and the second atom of D_2 adds them up to nothing.
        let case = Case { config, filters: vec![vec![0.3, 0.1, -0.6, -0.2], vec![1.0, 0.0, 0.2, 0.1]], seed: 0 };
        let (_, profile) = profiled(&case, &device.device);
        assert_eq!(profile.effective[1].min_norm(), 0.0);
        assert_eq!(profile.effective[1].zero_columns(), [1]);
        let found = certificate(&case, &[1.0, 0.0], &device.device);
        assert_eq!(found.uniqueness, [Uniqueness::Unproven; 2]);
        assert!(found.stability.iter().all(Result::is_err));
        // g·(a + b − c)·w with a + b = c, of which `f64` may leave something.
        let config = ModelConfig::new(
            SignalShape::new(1, 1, 1),
            vec![LayerShape::new(3, 1, 1), LayerShape::new(1, 1, 1), LayerShape::new(1, 1, 1)],
        );
        let (mut random, mut inexact) = (rng(5), 0);
        for _ in 0..40 {
            let part = |numerator: u32| numerator as f32 / (1u32 << 24) as f32;
            let [a, b] = [0; 2].map(|_| random.random_range(1 << 22..1 << 23) | 1);
            let [a, b, c] = [a, b, a + b].map(part);
            let (weight, value) = (random.random::<f32>(), random.random::<f32>());
            let filters = vec![vec![weight, weight, -weight], vec![a, b, c], vec![value]];
            let case = Case { config: config.clone(), filters, seed: 0 };
            let by_f64 =
                [a, b, -c].map(|part| f64::from(value) * f64::from(part) * f64::from(weight)).iter().sum::<f64>();
            inexact += usize::from(by_f64 != 0.0);
            let (_, profile) = profiled(&case, &device.device);
            assert_eq!(profile.effective[2].min_norm(), 0.0);
            assert_eq!(certificate(&case, &[1.0], &device.device).uniqueness[2], Uniqueness::Unproven);
        }
        assert!(inexact >= 5, "{inexact}: `f64` is exact here, and nothing is tested");
    });
}

/// What makes a representation unique is found wherever there is it, by conditions that are counted anew, and every reason occurs.
#[test]
fn reasons_for_uniqueness_are_given_where_there_are_any() {
    on_every_device(|device| {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for seed in 0..24u64 {
            let layers = vec![LayerShape::new(6, 2, 1), LayerShape::new(5, 2, 1), LayerShape::new(4, 2, 1)];
            let small =
                [[0.01, 0.25, 0.05], [0.01, 0.3, 0.3], [0.02, 0.08, 0.15], [0.05, 0.05, 0.05]][seed as usize % 4];
            let case = overlapping(SignalShape::new(7, 6, 6), layers, &small, seed % 2 == 0, 40 + seed);
            let mut code = vec![0.0f32; case.explicit().code().iter().product()];
            code[if seed < 12 { 0 } else { seed as usize % 9 }] = 1.0;
            if seed % 3 > 0 {
                code[9 + 8] = 1.2;
            }
            if seed % 3 > 1 {
                code[18] = -0.8;
            }
            let facts = facts(&case, &code);
            let found = certificate(&case, &code, &device.device);
            let mut known = false;
            let mut expected: Vec<Uniqueness> = Vec::new();
            for layer in &facts {
                let reason = match (is_unique(&layer.effective), known && is_unique(&layer.own)) {
                    (true, _) => Uniqueness::Effective,
                    (false, true) => Uniqueness::Own,
                    (false, false) => Uniqueness::Unproven,
                };
                known = reason != Uniqueness::Unproven;
                expected.push(reason);
            }
            for index in (0..expected.len() - 1).rev() {
                if expected[index] == Uniqueness::Unproven && expected[index + 1] != Uniqueness::Unproven {
                    expected[index] = Uniqueness::Inherited;
                }
            }
            assert_eq!(found.uniqueness, expected, "seed {seed}");
            expected.iter().for_each(|reason| *counts.entry(format!("{reason:?}")).or_default() += 1);
        }
        for reason in ["Effective", "Own", "Inherited", "Unproven"] {
            assert!(counts.get(reason).is_some_and(|&count| count >= 2), "{reason}: {counts:?}");
        }
        // Two non-zeros that are apart for D_2's atoms and overlap for those of D^(2), whose coherence is 0.6; γ_1 over orthogonal atoms.
        let config = ModelConfig::new(
            SignalShape::new(2, 1, 6),
            vec![LayerShape::new(2, Pair([1, 2]), 1), LayerShape::new(2, Pair([1, 2]), 1)],
        );
        let orthogonal = vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let filters = vec![orthogonal, vec![0.8, 0.0, 0.0, 0.6, 0.0, 0.0, 1.0, 0.0]];
        let case = Case { config: config.clone(), filters, seed: 0 };
        let found = certificate(&case, &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], &device.device);
        assert_eq!(found.uniqueness, [Uniqueness::Effective, Uniqueness::Own]);
        // The same over atoms of coherence ½: nothing is known of two non-zeros of γ_1 that overlap, and so not of γ_2 either.
        let halves = vec![1.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.866, 0.0];
        let filters = vec![halves.clone(), vec![0.8, 0.0, 0.0, 0.6, 0.0, 0.0, 1.0, 0.0]];
        let case = Case { config: config.clone(), filters, seed: 0 };
        let found = certificate(&case, &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], &device.device);
        assert_eq!(found.uniqueness, [Uniqueness::Unproven; 2]);
        // One non-zero of γ_2 is the only one, and so are the two of γ_1 that follow from it.
        let case = Case { config, filters: vec![halves, vec![0.6, 0.0, 0.0, 0.8, 0.0, 1.0, 0.0, 0.0]], seed: 0 };
        let found = certificate(&case, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], &device.device);
        assert_eq!(found.uniqueness, [Uniqueness::Inherited, Uniqueness::Effective]);
    });
}

/// Residuals in certificates are at least the exact ones, and tight.
#[test]
fn residuals_are_rounded_up() {
    common::on_random_models(16, 31, |case, device| {
        let (_, profile) = profiled(case, &device.device);
        let (code, signal) = (case.codes(1), case.signals(1));
        let distance = |signal: &[f32]| {
            let made = case.explicit().synthesize(&wide(&code));
            norm(&made.iter().zip(signal).map(|(made, &signal)| made - f64::from(signal)).collect::<Vec<f64>>())
        };
        let near: Vec<f32> = case.explicit().synthesize(&wide(&code)).iter().map(|&value| value as f32).collect();
        for signal in [&signal, &near] {
            let (found, expected) = (profile.distance(signal, &code), distance(signal));
            assert!(found >= expected * (1.0 - 1e-9) && found <= expected * (1.0 + 1e-6) + 1e-10, "{found} {expected}");
        }
    });
}
